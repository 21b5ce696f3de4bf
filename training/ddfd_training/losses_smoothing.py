"""Smoothing terms: what keeps a depth map flat where the scene is, and sharp at its edges.

The thesis compares five of them, each beside the same depth loss, with none (chapter 2, table
2.1). Chapter 2 prints neither equations nor weights; chapter 3 prints those of one, Xian's (eqs
3.2 and 3.3). Here each is what its own paper says; where the thesis leaves a choice, the choice is
an argument. All are pure functions on ``[N, 1, H, W]``
metres. A difference that touches an unknown (NaN or infinite) or masked pixel is left out; where
nothing is left, the term is 0 with a zero gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddfd_training.losses_depth import depth_gradient, known_target, masked_mean, valid_depth

HU_ALPHA = 0.5
# The thesis' eq 3.3: L1 depth + mu times the gradient term, for which eq 3.2 cites Xian.
THESIS_MU = 1e-3
# Ours. Hu et al. write 1, beside ln(|e| + 0.5), twice as steep as L1 at a small error, and start
# from ImageNet; beside L1 and from random weights, 1 makes a network answer one depth. At 0.01
# the logarithms, steepest at 0, pull a pixel with at most 0.08 of L1's pull.
HU_WEIGHT = 0.01
DEMON_STEPS_PX = (1, 2, 4, 8, 16)
XIAN_SCALES = 4
MIN_DEPTH_M = 1e-3
GUIDES = ("truth", "image")
OPERATORS = ("difference", "sobel")


def _difference(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Forward differences along x and y, ``[N, 1, H, W]`` (0 at the far border), and where valid.

    A pixel counts when it and both the neighbours it is compared with are known.
    """
    along_x = F.pad(values.diff(dim=-1), (0, 1))
    along_y = F.pad(values.diff(dim=-2), (0, 0, 0, 1))
    inside = torch.zeros_like(valid)
    inside[..., :-1, :-1] = (
        valid[..., :-1, :-1] & valid[..., :-1, 1:] & valid[..., 1:, :-1]
    )  # fmt: skip
    return along_x, along_y, inside


def _sobel(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 3x3 Sobel operator, unnormalised, where all nine pixels are known."""
    smooth, slope = values.new_tensor([1.0, 2.0, 1.0]), values.new_tensor([-1.0, 0.0, 1.0])
    kernel = torch.stack((torch.outer(smooth, slope), torch.outer(slope, smooth)))[:, None]
    # A derivative is a small difference of large numbers: no half precision here.
    with torch.autocast(values.device.type, enabled=False):
        both = F.conv2d(values, kernel, padding=1)
    unknown = F.pad((~valid).to(values.dtype), (1, 1, 1, 1), value=1.0)
    inside = F.max_pool2d(unknown, 3, stride=1) == 0
    return both[:, :1], both[:, 1:], inside


_DERIVATIVES = {"difference": _difference, "sobel": _sobel}


def smoothing_hu(
    pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None, *, operator: str = "difference"
) -> Tensor:
    """Gradient and normal terms of Hu et al. (2019, "Revisiting single image depth estimation").

    Mean of F(|dx e|) + F(|dy e|), e = pred - target, F(x) = ln(x + 0.5), plus the mean of
    1 - cos of the angle between the normals (-dx d, -dy d, 1) of both maps (their eqs 3 and 4).
    F is negative below 0.5: a perfect map scores 2 ln 0.5.

    Args:
        pred_m: ``[N, 1, H, W]``, metres.
        target_m: Same shape, metres; NaN where unknown.
        mask: Boolean; only true pixels count.
        operator: ``difference`` (the paper's derivative) or ``sobel`` (its public code).
    """
    if operator not in _DERIVATIVES:
        raise ValueError(f"operator: expected one of {', '.join(OPERATORS)}, got {operator!r}")
    derive = _DERIVATIVES[operator]
    valid = valid_depth(target_m, mask).expand_as(pred_m)
    known_m = known_target(pred_m, target_m, valid)
    pred_x, pred_y, inside = derive(pred_m, valid)
    true_x, true_y, _ = derive(known_m, valid)
    gradient = sum(
        (difference.abs() + HU_ALPHA).log() for difference in (pred_x - true_x, pred_y - true_y)
    )
    dot = pred_x * true_x + pred_y * true_y + 1.0
    lengths = (pred_x**2 + pred_y**2 + 1.0) * (true_x**2 + true_y**2 + 1.0)
    return masked_mean(gradient + 1.0 - dot / lengths.sqrt(), inside)


def smoothing_eigen(pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared gradient of the logarithmic error (Eigen and Fergus 2015, their eq 1, last term).

    1/n sum (dx D)^2 + (dy D)^2 with D = ln pred - ln target. The thesis cites Eigen et al. 2014,
    whose loss has no gradient; that one is ``scale_invariant_log`` of ``losses_depth``.
    Below 1 mm a prediction counts as 1 mm. Arguments as in :func:`smoothing_hu`.
    """
    valid = valid_depth(target_m, mask).expand_as(pred_m)
    known_m = known_target(pred_m, target_m, valid).clamp(min=MIN_DEPTH_M)
    error = pred_m.clamp(min=MIN_DEPTH_M).log() - known_m.log()
    along_x = error.diff(dim=-1).square() * (valid[..., 1:] & valid[..., :-1])
    along_y = error.diff(dim=-2).square() * (valid[..., 1:, :] & valid[..., :-1, :])
    return (along_x.sum() + along_y.sum()) / valid.sum().clamp(min=1)


def smoothing_ummenhofer(pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scale-invariant gradient of DeMoN (Ummenhofer et al. 2017, their eqs 4 and 5).

    g_h = ((f(x+h) - f(x)) / (|f(x+h)| + |f(x)|), the same along y); the sum over h = 1, 2, 4, 8,
    16 px of the mean Euclidean length of g_h[pred] - g_h[target]. The paper applies it to inverse
    depth; that only turns the sign of g, so the value is the same. Steps wider than the map are
    left out. Arguments as in :func:`smoothing_hu`.
    """
    valid = valid_depth(target_m, mask).expand_as(pred_m)
    known_m = known_target(pred_m, target_m, valid)
    total = (pred_m * 0.0).sum()
    for step in DEMON_STEPS_PX:
        if step >= min(pred_m.shape[-2:]):
            break
        inside = valid[..., :-step, :-step] & valid[..., step:, :-step] & valid[..., :-step, step:]
        offset = torch.cat(
            [
                a - b
                for a, b in zip(_relative(pred_m, step), _relative(known_m, step), strict=True)
            ],
            dim=1,
        )
        total = total + masked_mean(torch.linalg.vector_norm(offset, dim=1, keepdim=True), inside)
    return total


def _relative(values: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Differences over ``step`` pixels along x and y, relative to the two values."""
    here = values[..., :-step, :-step]
    result = []
    for there in (values[..., :-step, step:], values[..., step:, :-step]):
        size = (there.abs() + here.abs()).clamp(min=MIN_DEPTH_M)
        result.append((there - here) / size)
    return result[0], result[1]


def smoothing_xian(
    pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None, *, scales: int = XIAN_SCALES
) -> Tensor:
    """Multi-scale gradient of the error (Xian et al. 2020, after Li and Snavely 2018).

    The sum over ``scales`` of 1/n sum |dx R| + |dy R|, R = pred - target at every 1st, 2nd, 4th,
    8th pixel. With one scale it is the thesis' eq 3.2, which cites the same source. Arguments
    otherwise as in :func:`smoothing_hu`.
    """
    valid = valid_depth(target_m, mask).expand_as(pred_m)
    total = (pred_m * 0.0).sum()
    for scale in range(scales):
        every = (..., slice(None, None, 2**scale), slice(None, None, 2**scale))
        total = total + depth_gradient(pred_m[every], target_m[every], valid[every])
    return total


def smoothing_godard(
    pred_m: Tensor,
    target_m: Tensor,
    mask: Tensor | None = None,
    *,
    guide: str = "truth",
    image: Tensor | None = None,
) -> Tensor:
    """Edge-aware smoothness of Godard et al. (2019, their eq 3), modified for supervision.

    1/n sum |dx d| exp(-|dx G|) + |dy d| exp(-|dy G|), d the prediction over its mean. In the
    original d is inverse depth over its mean and the guide G is the image (self-supervision knows
    nothing better). The thesis does not print its modification; here d is depth and the guide the
    true depth over its mean, so that exactly the scene's own edges may stay.

    Args:
        pred_m: ``[N, 1, H, W]``, metres.
        target_m: Same shape, metres; NaN where unknown. The original does not look at it.
        mask: Boolean; only true pixels count.
        guide: ``truth``, or ``image`` for the original; below 1 mm, a depth then counts as 1 mm.
        image: ``[N, 3, H, W]`` in [0, 1], for ``guide="image"``.
    """
    if guide not in GUIDES or (guide == "image" and image is None):
        raise ValueError(f"guide: expected truth, or image together with image=, got {guide!r}")
    if guide == "truth":
        inside = valid_depth(target_m, mask).expand_as(pred_m)
        known_m = known_target(pred_m, target_m, inside)
        edges, answer = known_m / _means(known_m, inside), pred_m
    else:
        assert image is not None  # refused above
        counts = torch.ones_like(pred_m) if mask is None else mask
        inside = counts.bool().expand_as(pred_m)
        edges, answer = image, 1.0 / pred_m.clamp(min=MIN_DEPTH_M)
    answer = answer / _means(answer, inside)
    total = (pred_m * 0.0).sum()
    for dim in (-1, -2):
        last = pred_m.shape[dim] - 1
        pairs = inside.narrow(dim, 0, last) & inside.narrow(dim, 1, last)
        strength = edges.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        total = total + (answer.diff(dim=dim).abs() * (-strength).exp() * pairs).sum()
    return total / inside.sum().clamp(min=1)


def _means(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of each map where it is known, ``[N, 1, 1, 1]``, positive."""
    weights = valid.to(values.dtype)
    count = weights.sum(dim=(1, 2, 3), keepdim=True)
    mean = (values * weights).sum(dim=(1, 2, 3), keepdim=True) / count.clamp(min=1)
    return torch.where(count > 0, mean.clamp(min=MIN_DEPTH_M), torch.ones_like(mean))


def smoothing_none(pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None) -> Tensor:
    """No smoothing: 0, with a zero gradient (the thesis' first row)."""
    del target_m, mask
    return (pred_m * 0.0).sum()


@dataclass(frozen=True)
class Smoothing:
    """A smoothing term of the thesis' table 2.1.

    Attributes:
        term: ``term(pred_m, target_m, mask=None)``.
        weight: Its weight beside L1 depth: the thesis' own where it prints one (Xian 0.001,
            eq 3.3), else the source's (Eigen 1, Godard 0.001), else ours (Ummenhofer 1, Hu
            :data:`HU_WEIGHT`).
        source: The paper.
    """

    term: Callable[..., Tensor]
    weight: float
    source: str


SMOOTHING: dict[str, Smoothing] = {
    "none": Smoothing(smoothing_none, 0.0, "thesis table 2.1, first row"),
    "hu": Smoothing(smoothing_hu, HU_WEIGHT, "Hu et al., WACV 2019"),
    "eigen": Smoothing(smoothing_eigen, 1.0, "Eigen and Fergus, ICCV 2015"),
    "ummenhofer": Smoothing(smoothing_ummenhofer, 1.0, "Ummenhofer et al., CVPR 2017"),
    "xian": Smoothing(smoothing_xian, THESIS_MU, "Xian et al., CVPR 2020"),
    "godard": Smoothing(smoothing_godard, 1e-3, "Godard et al., ICCV 2019, guided by the truth"),
}
"""The rows of the thesis' table 2.1 by name."""
