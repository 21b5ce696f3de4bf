"""The networks (PyTorch). Importing this package alone does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddfd_ros.model.networks import build_network, network_names

__all__ = ["build_network", "network_names"]


def __getattr__(name: str) -> object:
    """Resolve the re-exports on first use, so that core-only installations never need torch."""
    if name in __all__:
        from ddfd_ros.model import networks

        return getattr(networks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
