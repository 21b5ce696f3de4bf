"""What every network here has in common: its heads, and how it takes images of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

HEAD_CHOICES: tuple[str, ...] = ("both", "depth", "sharp")
"""Values of the option ``heads``."""


class ImageNetwork(nn.Module):
    """Base of networks whose two halves are ``forward_aligned`` and padding.

    A subclass implements ``forward_aligned`` for sides that are multiples of ``size_multiple``.
    ``forward`` pads whatever comes at the right and bottom and crops the answers, so that results
    keep their pixel positions. Exported graphs hold ``forward_aligned`` alone.
    """

    size_multiple: int = 32
    side_inputs: tuple[str, ...] = ()
    """What ``forward_aligned`` takes beside the image, as keyword arguments: ``lens``, or maps."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Estimate every head of an image of any size.

        Args:
            image: RGB ``[N, 3, H, W]`` in [0, 1].

        Returns:
            Head name to ``[N, C, H, W]``.

        Raises:
            ValueError: The image does not have that shape.
        """
        return self._at_any_size(image, self.forward_aligned)

    def _at_any_size(
        self, image: torch.Tensor, answer: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Pad an image, have it answered and crop the answers; raises as ``forward``.

        ``answer`` is ``forward_aligned``, told what else it takes beside the image.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(
                f"image: expected [N, 3, H, W], got {list(image.shape)}; add the batch dimension "
                "and put the three colour channels second"
            )
        height, width = image.shape[-2:]
        outputs = answer(pad_to_multiple(image, self.size_multiple))
        return {name: value[..., :height, :width] for name, value in outputs.items()}

    def forward_aligned(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Estimate every head; both sides of the image are multiples of ``size_multiple``."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward_aligned")


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Extend ``[N, C, H, W]`` at the right and bottom to multiples by reflection.

    Where a side is too short to be reflected (padding needs a larger mirror image than there is),
    the edge is repeated instead.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom:
        mode = "reflect" if bottom < height else "replicate"
        image = functional.pad(image, (0, 0, 0, bottom), mode=mode)
    if right:
        mode = "reflect" if right < width else "replicate"
        image = functional.pad(image, (0, right, 0, 0), mode=mode)
    return image


def in_full_precision(layer: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """What ``layer`` answers to ``features``, in float32 also where autocast is on.

    For the last layer of a depth or blur map. With the 8 bits of bfloat16, depth from 4 to 8 m
    comes in steps of 3 cm: a surface turns into stairs, and a loss on the map's gradient pulls at
    these instead of at the surface.

    Args:
        layer: With weights of float32, as autocast has them.
        features: ``[N, C, H, W]``.
    """
    kind = features.device.type
    if not torch.is_autocast_enabled(kind):
        return layer(features)
    with torch.autocast(kind, enabled=False):
        return layer(features.float())


def check_choice(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value of a named option with a ValueError that lists what exists."""
    if value not in choices:
        known = ", ".join(repr(item) for item in choices)
        raise ValueError(f"{option}: expected one of {known}, got {value!r}")
