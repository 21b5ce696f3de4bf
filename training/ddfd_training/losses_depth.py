"""Depth losses: pure functions on ``[N, 1, H, W]`` tensors in metres.

A pixel whose target is NaN or infinite does not count, nor one where the optional boolean ``mask``
is false. Where no pixel counts the loss is 0 and still has a (zero) gradient, so that a batch
without truth leaves the weights alone instead of turning them into NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def valid_depth(target_m: Tensor, mask: Tensor | None = None) -> Tensor:
    """Boolean tensor, true where ``target_m`` is a number and ``mask`` (if given) is true."""
    valid = torch.isfinite(target_m)
    return valid if mask is None else valid & mask.to(torch.bool)


def masked_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of ``values`` where ``valid``; zero with a gradient where nothing is valid."""
    if valid is None:
        return values.mean()
    weights = valid.to(values.dtype).expand_as(values)
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def known_target(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """The target with its unknown pixels replaced by the prediction: NaN * 0 would stay NaN."""
    return torch.where(valid, target.to(pred.dtype), pred.detach())


def l1_depth(pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute depth error in metres (thesis eq 3.1, ICIP 2022 eq 1).

    Args:
        pred_m: ``[N, 1, H, W]``, metres.
        target_m: Same shape, metres; NaN where unknown.
        mask: Boolean, broadcastable to it; only true pixels count.

    Example:
        >>> l1_depth(torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), 1.5)).item()
        0.5
    """
    valid = valid_depth(target_m, mask)
    return masked_mean((pred_m - known_target(pred_m, target_m, valid)).abs(), valid)


def log_l1_depth(
    pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None, min_depth_m: float = 1e-3
) -> Tensor:
    """Mean absolute error of the natural logarithm of depth: relative error, near and far alike.

    ``pred_m`` is clamped to ``min_depth_m`` because a linear output may be negative; arguments
    otherwise as in :func:`l1_depth`.
    """
    valid = valid_depth(target_m, mask)
    known_m = known_target(pred_m, target_m, valid).clamp(min=min_depth_m)
    return masked_mean((pred_m.clamp(min=min_depth_m).log() - known_m.log()).abs(), valid)


def scale_invariant_log(
    pred_m: Tensor,
    target_m: Tensor,
    mask: Tensor | None = None,
    *,
    share: float = 0.5,
    min_depth_m: float = 1e-3,
) -> Tensor:
    """Scale-invariant error in the logarithm of depth (Eigen et al. 2014, their eq 4).

    Mean of D^2 minus ``share`` times the square of the mean of D, D = ln pred - ln target, over
    the known pixels of each map, averaged over the maps that have any. ``share`` 1 forgives any
    common factor, 0 none. Arguments otherwise as in :func:`log_l1_depth`.
    """
    valid = valid_depth(target_m, mask).expand_as(pred_m)
    known_m = known_target(pred_m, target_m, valid).clamp(min=min_depth_m)
    weights = valid.to(pred_m.dtype)
    error = (pred_m.clamp(min=min_depth_m).log() - known_m.log()) * weights
    pixels = weights.flatten(1).sum(dim=1)
    count = pixels.clamp(min=1.0)
    each = error.square().flatten(1).sum(dim=1) / count
    each = each - share * (error.flatten(1).sum(dim=1) / count).square()
    return each.sum() / (pixels > 0).sum().clamp(min=1)


def depth_gradient(pred_m: Tensor, target_m: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gradient term of the thesis' depth loss (eq 3.2), of the residual R = pred - target.

    1/n sum |dx R| + |dy R|. Differences are forward; one that touches an unknown pixel is left
    out. n counts the known pixels, as in the equation. Arguments as in :func:`l1_depth`.
    """
    valid = valid_depth(target_m, mask).expand_as(pred_m)
    residual_m = pred_m - known_target(pred_m, target_m, valid)
    along_x = residual_m.diff(dim=-1).abs() * (valid[..., 1:] & valid[..., :-1])
    along_y = residual_m.diff(dim=-2).abs() * (valid[..., 1:, :] & valid[..., :-1, :])
    return (along_x.sum() + along_y.sum()) / valid.sum().clamp(min=1)


def laplace_nll(
    pred_m: Tensor,
    sigma_m: Tensor,
    target_m: Tensor,
    mask: Tensor | None = None,
    *,
    detach_residual: bool = False,
    min_sigma_m: float = 1e-3,
) -> Tensor:
    """Negative log-likelihood of the depth under a Laplace distribution around the prediction.

    With scale b = sigma / sqrt(2), so that ``sigma_m`` is the standard deviation:
    log(2 b) + |target - pred| / b (Kendall and Gal 2017, the L1 form of their eq 5).

    Args:
        pred_m: ``[N, 1, H, W]``, metres.
        sigma_m: Same shape, positive, metres; clamped to ``min_sigma_m``.
        target_m: Same shape, metres; NaN where unknown.
        mask: Boolean; only true pixels count.
        detach_residual: The error is taken as given: only ``sigma_m`` receives a gradient, so a
            large sigma cannot excuse the depth head from learning a hard pixel.
        min_sigma_m: Smallest standard deviation believed.
    """
    valid = valid_depth(target_m, mask)
    error_m = (pred_m - known_target(pred_m, target_m, valid)).abs()
    if detach_residual:
        error_m = error_m.detach()
    scale_m = sigma_m.clamp(min=min_sigma_m) / math.sqrt(2.0)
    return masked_mean((2.0 * scale_m).log() + error_m / scale_m, valid)
