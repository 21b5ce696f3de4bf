"""The data sets, one module each; names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "RgbdSample": "base",
    "Nyuv2": "nyuv2",
    "DfdDslr": "dfd_dslr",
    "RgbdFolder": "rgbd_folder",
}
__all__ = ["DfdDslr", "Nyuv2", "RgbdFolder", "RgbdSample"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    """Import the data set's module when its class is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
