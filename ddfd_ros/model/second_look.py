"""A second look at the two distances that blur allows: which one does the scene's shape suggest?

Blur has no sign: through a given lens, every pixel lies at one of two distances, one on each side
of the focus. Of a floor, a wall or a table one of the two makes a plane, the other a fold. To see
that, one has to see both distances, in dioptres, over a wide surrounding; the network's fine
layers know no lens and cannot. ``SecondLook`` is shown both beside what context said, and answers
on which side a pixel lies and how far context was off.

Seen in dioptres, a scene is the same through any lens, so what is learnt with one lens holds for
the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ddfd_ros.model.lite_blocks import Expanded, Merge, Separable, conv_bn, stack

LOOKS = 3
"""Maps that are answered: half the log-odds of the positive side, and the corrections of context's
inverse distance and of the logarithm of its deviation."""
_SHOWN = 7
_POOL = 4
_DIOPTRES = (-0.5, 3.0)
_LEAST_DEVIATION = 1e-2


class SecondLook(nn.Module):
    """A small encoder and decoder over 1/4 to 1/32 of the size.

    Args:
        skips: Channels of the network's encoder at 1/8, 1/16 and 1/32 of the size; its features
            are seen beside the distances.
        widths: Channels here at 1/4, 1/8, 1/16 and 1/32.
    """

    def __init__(self, skips: Sequence[int], widths: Sequence[int] = (32, 48, 80, 112)) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(_SHOWN, widths[0], 3), nn.ReLU(), Separable(widths[0]))
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.downs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 2, stride=2, bias=False), nn.BatchNorm2d(b))
            for a, b in pairs
        )
        self.skips = nn.ModuleList(
            conv_bn(skip, width, 1) for skip, width in zip(skips, widths[1:], strict=True)
        )
        self.stages = nn.ModuleList(stack(Expanded, width, 2) for width in widths[1:])
        self.merges = nn.ModuleList(Merge(b, a, a) for a, b in pairs)
        self.blocks = nn.ModuleList(
            stack(Separable if i == 0 else Expanded, a, 1) for i, (a, _) in enumerate(pairs)
        )
        self.out = nn.Conv2d(widths[0], LOOKS * _POOL**2, 3, padding=1)
        # Untrained, nothing is said.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, shown: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Look again.

        Args:
            shown: ``[N, 7, H, W]`` of ``two_distances``.
            features: The encoder's, at 1/8, 1/16 and 1/32 of the size.

        Returns:
            ``[N, LOOKS, H, W]``.
        """
        levels = [self.stem(F.avg_pool2d(shown, _POOL))]
        for down, skip, stage, beside in zip(
            self.downs, self.skips, self.stages, features, strict=True
        ):
            levels.append(stage(F.relu(down(levels[-1]) + skip(beside))))
        x = levels[-1]
        for i in reversed(range(len(self.merges))):
            x = self.blocks[i](self.merges[i](x, levels[i]))
        return F.pixel_shuffle(self.out(x), _POOL)


def two_distances(
    blur: torch.Tensor,
    blur_sigma: torch.Tensor,
    dioptre: torch.Tensor,
    dioptre_sigma: torch.Tensor,
    strength: torch.Tensor,
    focus: torch.Tensor,
) -> torch.Tensor:
    """What the second look is shown of each pixel, in dioptres and their logarithms.

    Args:
        blur: Width of the blur in pixels, ``[N, 1, H, W]``.
        blur_sigma: Its deviation.
        dioptre: Inverse distance by context.
        dioptre_sigma: Its deviation.
        strength: A in pixels per dioptre, ``[N, 1, 1, 1]``.
        focus: 1/d_f in dioptres, ``[N, 1, 1, 1]``.

    Returns:
        ``[N, 7, H, W]``: the nearer and the farther distance, the one by context, the logarithms
        of the deviations of both and of half the way between the two, and the focus.
    """
    half = blur / strength
    near, far = ((focus + s * half).clamp(*_DIOPTRES) for s in (1.0, -1.0))
    logarithms = [
        torch.log(value.clamp(min=_LEAST_DEVIATION))
        for value in (blur_sigma / strength, dioptre_sigma, half)
    ]
    return torch.cat([near, far, dioptre, *logarithms, focus.expand_as(blur)], dim=1)
