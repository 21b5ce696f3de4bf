"""The thin ROS 2 shell over ``core`` and ``inference``: the only modules that import rclpy."""
