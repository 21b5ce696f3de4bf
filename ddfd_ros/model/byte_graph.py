"""A network as a camera sees it: bytes in, metres and bytes out. This is what gets exported."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.types import HEADS
from ddfd_ros.model.base import ImageNetwork
from ddfd_ros.model.blur_space import lens_vector


class ByteGraph(nn.Module):
    """Casting, scaling and transposition around a network, so that runtimes move few bytes.

    The network runs in evaluation mode: the wrapper sets it and keeps it there.

    Args:
        network: A network of ``build_network``.
        heads: Outputs wanted; None for all that the network has.

    Attributes:
        inputs: ``image``, then what the network takes beside it (its ``side_inputs``).
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
        self.inputs = ("image", *getattr(network, "side_inputs", ()))
        with torch.no_grad():
            side = int(getattr(network, "size_multiple", 32))
            weight = next(network.parameters())
            sides = (2 * side, 2 * side)
            beside = {
                name: _shaped(name, value.to(weight.device))
                for name, value in self._side_examples(*sides).items()
            }
            available = self.aligned(weight.new_zeros(1, 3, *sides), **beside)
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

    def examples(self, height: int, width: int) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with or to warm up on, in the order of ``inputs``."""
        image = torch.zeros(height, width, 3, dtype=torch.uint8)
        return (image, *self._side_examples(height, width).values())

    def _side_examples(self, height: int, width: int) -> dict[str, torch.Tensor]:
        examples = {}
        for name in self.inputs[1:]:
            if name == "lens":
                lens: Any = self.network.lens
                examples[name] = torch.tensor(lens_vector(lens))
            else:  # a map of the image's size, in metres or pixels
                examples[name] = torch.ones(height, width)
        return examples

    def forward(self, image: torch.Tensor, *beside: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Answer one image.

        Args:
            image: uint8 ``[H, W, 3]``, RGB; sides multiples of the network's ``size_multiple``.
            beside: One float32 tensor per further name in ``inputs``: ``lens`` as ``[2]``
                (``blur_space.lens_vector``), a map such as ``depth_m`` as ``[H, W]``.

        Returns:
            One tensor per name in ``outputs``: float32 ``[H, W]``, or for ``sharp_rgb`` uint8
            ``[H, W, 3]``, clamped and rounded half up.
        """
        # The cast comes first and the cast back last: TensorRT takes uint8 only at a graph's ends.
        planes = image.to(torch.float32).permute(2, 0, 1).unsqueeze(0) / 255.0
        sides = {
            name: _shaped(name, value) for name, value in zip(self.inputs[1:], beside, strict=True)
        }
        answers = self.aligned(planes, **sides)
        return tuple(_deliver(name, answers[name]) for name in self.outputs)


def _shaped(name: str, value: torch.Tensor) -> torch.Tensor:
    """A side input as the network takes it: a batch of one."""
    return value.unsqueeze(0) if name == "lens" else value.unsqueeze(0).unsqueeze(0)


def _deliver(name: str, value: torch.Tensor) -> torch.Tensor:
    # Squeezing costs nothing at run time, where indexing would become a copy.
    if name != "sharp_rgb":
        return value.squeeze(0).squeeze(0)
    levels = torch.floor(value.squeeze(0).clamp(0.0, 1.0) * 255.0 + 0.5)
    return levels.permute(1, 2, 0).to(torch.uint8)
