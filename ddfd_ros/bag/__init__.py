"""``ddfd-bag``: a recorded bag in, a bag with the node's answers out, without ROS."""
