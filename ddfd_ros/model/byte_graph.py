"""A network as a camera sees it: bytes in, metres and bytes out. This is what gets exported."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.types import HEADS
from ddfd_ros.model.base import ImageNetwork


class ByteGraph(nn.Module):
    """Casting, scaling and transposition around a network, so that runtimes move few bytes.

    The network runs in evaluation mode: the wrapper sets it and keeps it there.

    Args:
        network: A network of ``build_network``.
        heads: Outputs wanted; None for all that the network has.

    Attributes:
        outputs: The heads in the order of ``HEADS``, which is the order of the results.

    Raises:
        ContractError: The network lacks a head that is wanted, or none is wanted.
    """

    def __init__(self, network: nn.Module, heads: Collection[str] | None = None) -> None:
        super().__init__()
        self.network = network.eval()
        # A network that pads by itself would leave a part of that in the graph.
        self.aligned = (
            network.forward_aligned if isinstance(network, ImageNetwork) else network.forward
        )
        with torch.no_grad():
            side = int(getattr(network, "size_multiple", 32))
            weight = next(network.parameters())
            available = self.aligned(weight.new_zeros(1, 3, 2 * side, 2 * side))
        wanted = set(available) if heads is None else set(heads)
        if not wanted or wanted - set(available):
            raise ContractError(
                f"heads: expected a selection of {[h for h in HEADS if h in available]}, got "
                f"{sorted(wanted)}; choose heads that the network has"
            )
        self.outputs = tuple(name for name in HEADS if name in wanted)

    def train(self, mode: bool = True) -> ByteGraph:
        """Stay in evaluation mode whatever is asked: a graph for use has no training mode."""
        del mode
        return super().train(False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Answer one image.

        Args:
            image: uint8 ``[H, W, 3]``, RGB; sides multiples of the network's ``size_multiple``.

        Returns:
            One tensor per name in ``outputs``: float32 ``[H, W]``, or for ``sharp_rgb`` uint8
            ``[H, W, 3]``, clamped and rounded half up.
        """
        # The cast comes first and the cast back last: TensorRT takes uint8 only at a graph's ends.
        planes = image.to(torch.float32).permute(2, 0, 1).unsqueeze(0) / 255.0
        answers = self.aligned(planes)
        return tuple(_deliver(name, answers[name]) for name in self.outputs)


def _deliver(name: str, value: torch.Tensor) -> torch.Tensor:
    # Squeezing costs nothing at run time, where indexing would become a copy.
    if name != "sharp_rgb":
        return value.squeeze(0).squeeze(0)
    levels = torch.floor(value.squeeze(0).clamp(0.0, 1.0) * 255.0 + 0.5)
    return levels.permute(1, 2, 0).to(torch.uint8)
