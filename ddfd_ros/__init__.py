"""Deep depth from defocus for ROS 2: the part that runs on the robot."""

__version__ = "0.1.0"
