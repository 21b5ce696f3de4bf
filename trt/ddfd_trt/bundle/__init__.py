"""``ddfd-bundle``: TensorRT, Python and this project, for machines that can install nothing."""
