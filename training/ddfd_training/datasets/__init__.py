"""The data sets, one module each; names are loaded on first use. All of them: ``registry``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "DATASETS": "registry",
    "DepthOrder": "sample",
    "DfdDslr": "dfd_dslr",
    "Nyuv2": "nyuv2",
    "RgbdDataset": "base",
    "RgbdFolder": "rgbd_folder",
    "RgbdSample": "sample",
    "open_dataset": "registry",
}
__all__ = [
    "DATASETS",
    "DepthOrder",
    "DfdDslr",
    "Nyuv2",
    "RgbdDataset",
    "RgbdFolder",
    "RgbdSample",
    "open_dataset",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    """Import a name's module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
