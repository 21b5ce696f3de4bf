"""A stand-in for pycuda on machines without a GPU; see ``driver``."""
