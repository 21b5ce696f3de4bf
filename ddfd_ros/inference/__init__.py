"""The runtimes a model can run on, behind one interface; a runtime loads only when chosen."""

from ddfd_ros.inference.base import Backend, BackendOptions
from ddfd_ros.inference.factory import RUNTIMES, open_backend

__all__ = ["RUNTIMES", "Backend", "BackendOptions", "open_backend"]
