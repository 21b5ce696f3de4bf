"""Image losses: pure functions on ``[N, 3, H, W]`` tensors in [0, 1]."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddfd_training.losses_depth import masked_mean

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03

Array = TypeVar("Array", Tensor, np.ndarray)


def l1_image(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference of two images; arguments as in :func:`charbonnier`."""
    return masked_mean((pred - target).abs(), None if mask is None else mask.bool())


def charbonnier(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, eps: float = 1e-3
) -> Tensor:
    """Smoothed L1 of two images (ICIP 2022 eq 2, thesis eq 3.4).

    Mean of sqrt((pred - target)^2 + eps^2); the equation's sum is divided by the number of values,
    channels included.

    Args:
        pred: ``[N, C, H, W]`` in [0, 1].
        target: Same shape.
        mask: ``[N, 1, H, W]`` boolean; only true pixels count (a registered pair has borders).
        eps: Errors below it count as squares.
    """
    return masked_mean(
        ((pred - target) ** 2 + eps**2).sqrt(), None if mask is None else mask.bool()
    )


def _gaussian_taps(like: Tensor) -> Tensor:
    """The SSIM window, separated: ``[11]`` weights that sum to one."""
    half = SSIM_WINDOW_PX // 2
    offset_px = torch.arange(-half, half + 1, dtype=like.dtype, device=like.device)
    taps = torch.exp(-(offset_px**2) / (2 * SSIM_SIGMA_PX**2))
    return taps / taps.sum()


def _window_means(images: Tensor) -> Tensor:
    """Gaussian means of every 11x11 window: ``[..., H, W]`` -> ``[..., H - 10, W - 10]``.

    Every plane becomes a channel of one channels-last depthwise convolution: on a CPU twenty times
    as fast as planes in the batch dimension. Without cuDNN, which may round products to TF32.
    """
    taps = _gaussian_taps(images)
    planes = images.reshape(1, -1, *images.shape[-2:])
    planes = planes.contiguous(memory_format=torch.channels_last)
    count = planes.shape[1]
    with torch.backends.cudnn.flags(enabled=False):
        planes = F.conv2d(planes, taps.view(1, 1, 1, -1).repeat(count, 1, 1, 1), groups=count)
        planes = F.conv2d(planes, taps.view(1, 1, -1, 1).repeat(count, 1, 1, 1), groups=count)
    return planes.reshape(*images.shape[:-2], *planes.shape[-2:])


def ssim_from_moments(
    mean_a: Array, mean_b: Array, aa: Array, bb: Array, ab: Array, *, data_range: float
) -> Array:
    """SSIM from the window means of a, b, a^2, b^2 and a b (Wang et al. 2004, eq 13).

    Arrays or tensors of one shape; returns the same.
    """
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    product, squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    luminance = (2 * product + c1) / (squares + c1)
    return luminance * (2 * (ab - product) + c2) / (aa + bb - squares + c2)


def ssim_map(pred: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity per pixel (Wang et al. 2004), Gaussian window 11x11 of sigma 1.5 px.

    Only windows that lie inside the image are used, as in the original.

    Args:
        pred: ``[N, C, H, W]``, H and W at least 11.
        target: Same shape.
        data_range: Largest minus smallest possible value.

    Returns:
        ``[N, C, H - 10, W - 10]``, at most 1.

    Raises:
        ValueError: The images are smaller than the window or differ in shape.
    """
    if pred.shape != target.shape or min(pred.shape[-2:]) < SSIM_WINDOW_PX:
        raise ValueError(
            f"SSIM: expected two images of one shape, at least {SSIM_WINDOW_PX} px high and wide, "
            f"got {tuple(pred.shape)} and {tuple(target.shape)}"
        )
    # Variances are small differences of large numbers: no half precision here.
    with torch.autocast(pred.device.type, enabled=False):
        dtype = torch.float64 if pred.dtype == torch.float64 else torch.float32
        a, b = pred.to(dtype), target.to(dtype)
        moments = _window_means(torch.stack((a, b, a * a, b * b, a * b)))
        return ssim_from_moments(*moments.unbind(), data_range=data_range)


def ssim(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, data_range: float = 1.0
) -> Tensor:
    """Structural dissimilarity 1 - SSIM of two images (thesis eq 3.5); 0 for equal ones.

    Arguments as in :func:`ssim_map`; a pixel counts where ``mask`` ``[N, 1, H, W]`` is true at the
    window's centre.
    """
    half = SSIM_WINDOW_PX // 2
    inner = None if mask is None else mask.bool()[..., half:-half, half:-half]
    return masked_mean(1.0 - ssim_map(pred, target, data_range), inner)


def reblur(
    reblurred: Tensor, defocused: Tensor, alpha: float = 0.85, mask: Tensor | None = None
) -> Tensor:
    """How far a synthetically reblurred image is from the camera's own (thesis eq 5.1).

    alpha / 2 (1 - SSIM) + (1 - alpha) L1, both images ``[N, 3, H, W]`` in [0, 1]; only pixels
    where ``mask`` ``[N, 1, H, W]`` is true count.
    """
    l1 = l1_image(reblurred, defocused, mask)
    return 0.5 * alpha * ssim(reblurred, defocused, mask) + (1.0 - alpha) * l1


def edge_aware_smoothness(values: Tensor, image: Tensor, beta: float = 2.5) -> Tensor:
    """Penalty on a map's gradient that fades at the image's edges (thesis eq 5.2).

    1/n sum |dx M| exp(-beta |dx I|) + |dy M| exp(-beta |dy I|). The thesis prints the image
    gradient without its modulus; a signed one would reward smoothing across half of the edges.

    Args:
        values: Depth or defocus map M, ``[N, 1, H, W]``.
        image: Image I, ``[N, 3, H, W]`` in [0, 1]; its gradient is averaged over the channels.
        beta: Sensitivity to edges.
    """
    total = values.new_zeros(())
    for dim in (-1, -2):
        edge = image.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        total = total + (values.diff(dim=dim).abs() * torch.exp(-beta * edge)).sum()
    return total / values.numel()
