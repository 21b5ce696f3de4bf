"""Photograph a sharp image and its depth through a thin lens: layered defocus with occlusion.

The scene is cut into layers of (nearly) equal depth or blur. Each is blurred with the lens's
point-spread function for its distance, and the layers are laid over each other from near to far
(Carvalho 2018, eqs. 1-2, after Hasinoff and Kutulakos 2007):

    L_blurred = sum_k (A*_k L*_k) * h_k . M_k,     M_k = prod_{j nearer than k} (1 - A*_j * h_j)

A_k is the mask of layer k, h_k its point-spread function, and the star marks the layer extended
behind what occludes it, so that a blurred edge in front lets the background shine through instead
of a dark seam. (In the paper's eq. 2 the mask that hides has no star: what goes on behind a near
edge would let through what is farther still.) The result is divided by the sum of the weights:
thin slices of a slanted surface do not cover a pixel wholly by themselves.

With soft layers each pixel is shared by the two layers next to its blur, A_k = max(0, 1 - |p - k|)
at position p. Shares of one surface lie side by side, so they add up until the pixel is covered:
a layer gets min(A*_k * h_k, what is left) instead of a product.

Blur is applied to the pixel values as they are (gamma-encoded), as in the papers.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.optics_options import (
    LAYER_STEP_M,
    RENDER_PRESETS,
    Layering,
    Layers,
    RenderOptions,
    cut,
    render_options,
)
from ddfd_training.psf import render_kernel

__all__ = [
    "JUMP_PX",
    "LAYER_STEP_M",
    "RENDER_PRESETS",
    "RenderOptions",
    "render_defocus",
    "to_planes",
]

JUMP_PX = 1.0
"""Neighbouring pixels whose blur differs by more than this many pixels lie on two surfaces."""
_FFT_FROM = 19  # kernel width from which the Fourier transform is faster than the sum


def to_planes(rgb: np.ndarray) -> torch.Tensor:
    """An image uint8 or uint16 ``[H, W, 3]`` as ``[1, 3, H, W]`` in [0, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(rgb, dtype=np.float32))
    return values.permute(2, 0, 1)[None] / float(np.iinfo(rgb.dtype).max)


def render_defocus(
    sharp_rgb: torch.Tensor,
    depth_m: torch.Tensor,
    lens: LensConfig,
    *,
    kernel: str = "disk",
    layer_step_m: float = LAYER_STEP_M,
    sigma_per_diameter: float = 0.3,
    options: RenderOptions | str | None = None,
) -> torch.Tensor:
    """Blur ``sharp_rgb`` as ``lens`` would, from its depth.

    Differentiable in ``sharp_rgb``, and with soft layers (``options="soft"``) in ``depth_m`` too.
    Runs where the tensors are.

    Args:
        sharp_rgb: ``[N, C, H, W]`` all-in-focus images, any range.
        depth_m: ``[N, 1, H, W]`` positive depth in metres, without gaps.
        lens: The lens, its pixel pitch that of this image.
        kernel: As in ``RenderOptions``.
        layer_step_m: Thickness of a depth layer in metres.
        sigma_per_diameter: For ``gaussian``: standard deviation over blur diameter
            (0.3 in D3-Net's code, 0.5 in the self-supervised variant).
        options: A name of ``RENDER_PRESETS`` or all options; replaces the three above.

    Returns:
        ``[N, C, H, W]``, of the same type and range.

    Raises:
        ValueError: Shapes do not fit, depth is not positive and finite, or an unknown kernel.

    Example:
        >>> lens = LensConfig(15e-3, 2.8, 8.0, 5.6e-6)
        >>> wall = torch.full((1, 1, 32, 32), 1.0)
        >>> render_defocus(torch.rand(1, 3, 32, 32), wall, lens).shape
        torch.Size([1, 3, 32, 32])
    """
    if options is None:
        layering = Layering("depth", layer_step_m)
        options = RenderOptions(kernel, sigma_per_diameter, layering=layering)
    options = render_options(options)
    _check(sharp_rgb, depth_m)
    # A GPU takes the whole batch at once; a CPU is faster on the few pixels of one image's layer.
    together = sharp_rgb.device.type != "cpu" and options.layering.from_nearest_m is None
    size = len(sharp_rgb) if together else 1
    images = [
        _render(rgb, depth[:, 0], lens, options)
        for rgb, depth in zip(sharp_rgb.split(size), depth_m.split(size), strict=True)
    ]
    return torch.cat(images)


def _check(rgb: torch.Tensor, depth_m: torch.Tensor) -> None:
    """Refuse input that would give nonsense, naming what was expected."""
    if rgb.ndim != 4 or depth_m.shape != (rgb.shape[0], 1, *rgb.shape[2:]):
        raise ValueError(
            f"expected images [N,C,H,W] and depth [N,1,H,W] of one size, "
            f"got {tuple(rgb.shape)} and {tuple(depth_m.shape)}"
        )
    if not bool((depth_m > 0).logical_and(depth_m.isfinite()).all()):
        raise ValueError(
            "expected depth that is positive and finite everywhere, got zero, negative, "
            "infinite or NaN values; fill the gaps first"
        )


def _render(
    rgb: torch.Tensor, depth_m: torch.Tensor, lens: LensConfig, options: RenderOptions
) -> torch.Tensor:
    """Images ``[N, C, H, W]`` with depth ``[N, H, W]``."""
    layers = cut(depth_m, lens, options.layering)
    spreads = [
        render_kernel(
            abs(blur_px),
            options.kernel,
            options.sigma_per_diameter,
            options.gaussian_share,
            options.sharp_below_px,
            options.largest_kernel_px,
        )
        for blur_px in layers.blur_px
    ]
    margin = max(spread.shape[-1] for spread in spreads) // 2
    if margin == 0:
        return rgb.clone()
    # Beyond the border the scene goes on as it is at the border.
    rgb = _pad(rgb, margin)
    position = _pad(layers.position[:, None].to(rgb.dtype), margin)
    own_px = _pad(layers.own_px[:, None].to(rgb.dtype), margin)
    reach = _reaches(layers, spreads) if len(rgb) > 1 else margin
    origin, hidden = extend_behind(own_px, reach if options.extend else 0)
    behind = rgb.flatten(2).gather(2, origin.flatten(2).expand(-1, rgb.shape[1], -1))
    behind_position = position.flatten(2).gather(2, origin.flatten(2)).reshape(position.shape)
    surfaces = (
        (rgb, position, torch.ones_like(hidden)),
        (behind.reshape(rgb.shape), behind_position, hidden),
    )
    out = _composite(surfaces, spreads, soft=options.layering.soft)
    return out[..., margin:-margin, margin:-margin]


def _reaches(layers: Layers, spreads: list[torch.Tensor]) -> torch.Tensor:
    """Half the width of each image's own largest kernel, ``[N, 1, 1, 1]``.

    What is continued behind an edge must not depend on the other images of a batch.
    """
    half = torch.tensor([s.shape[-1] // 2 for s in spreads], device=layers.position.device)
    # A soft position lies between two layers; kernels are widest at the ends.
    ends = (layers.position.detach().floor().long(), layers.position.detach().ceil().long())
    widest = torch.maximum(half[ends[0]], half[ends[1]])
    return widest.amax(dim=(1, 2))[:, None, None, None]


def _pad(tensor: torch.Tensor, margin: int) -> torch.Tensor:
    return F.pad(tensor, (margin,) * 4, mode="replicate")


def extend_behind(
    blur_px: torch.Tensor, reach: int | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Continue each surface behind its nearer neighbour, ring by ring.

    A pixel beside a surface farther away (by more than ``JUMP_PX`` of blur) gets that neighbour
    as what lies hidden behind it; the next ring takes it from there.

    Args:
        blur_px: ``[N, 1, H, W]``, signed blur of the visible surface, rising with distance.
        reach: How many pixels to go behind the occluder, for all images or ``[N, 1, 1, 1]``.

    Returns:
        For each pixel, the place (row times width plus column, int64 ``[N, 1, H, W]``) of the
        visible pixel that continues behind it, and where there is one (boolean).
    """
    height, width = blur_px.shape[-2:]
    place = torch.arange(height * width, device=blur_px.device).view(1, 1, height, width)
    origin = place.expand_as(blur_px)
    reached_px, hidden = blur_px.float(), torch.zeros_like(blur_px, dtype=torch.bool)
    own_px = reached_px
    for step in range(int(reach if isinstance(reach, int) else reach.max())):
        farthest_px, source = F.max_pool2d(reached_px, 3, stride=1, padding=1, return_indices=True)
        new = (~hidden) & (farthest_px - own_px > JUMP_PX)
        if not isinstance(reach, int):
            new = new & (step < reach)
        if not bool(new.any()):
            break
        reached_px = torch.where(new, farthest_px, reached_px)
        moved = origin.flatten(2).gather(2, source.flatten(2)).reshape(origin.shape)
        origin = torch.where(new, moved, origin)
        hidden = hidden | new
    return origin, hidden


Surface = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Colours ``[N, C, H, W]``, positions among the layers and where there is any ``[N, 1, H, W]``."""


def _composite(
    surfaces: tuple[Surface, Surface], spreads: list[torch.Tensor], *, soft: bool
) -> torch.Tensor:
    """Lay the blurred layers over each other, nearest first; ``[N, C, H, W]``."""
    rgb = surfaces[0][0]
    channels = rgb.shape[1]
    total = torch.zeros_like(rgb)
    weight = torch.zeros_like(rgb[:, :1])
    clear = torch.ones_like(weight)
    tiny = torch.finfo(rgb.dtype).tiny
    for k, spread in enumerate(spreads):
        masks = [_mask(position, there, k, soft=soft) for _, position, there in surfaces]
        box = _bounds(masks[0] + masks[1], spread.shape[-1] // 2)
        if box is None:
            continue
        shares = [mask[box] for mask in masks]
        colour = surfaces[0][0][box] * shares[0] + surfaces[1][0][box] * shares[1]
        blurred = _convolve(torch.cat([colour, shares[0] + shares[1]], dim=1), spread.to(rgb))
        covered = blurred[:, channels:]
        # What is still clear of nearer layers; a copy, since autograd keeps it for the way back.
        clear_box = clear[box].clone()
        if soft:
            free = (clear_box / covered.clamp_min(1e-6)).clamp(0, 1)
            clear[box] = clear_box - covered * free
        else:
            free = clear_box
            clear[box] = clear_box * (1 - covered)
        total[box] += blurred[:, :channels] * free
        weight[box] += covered * free
    return total / weight.clamp_min(tiny)


def _mask(position: torch.Tensor, there: torch.Tensor, k: int, *, soft: bool) -> torch.Tensor:
    """How much of each pixel is on layer ``k``, 0 to 1."""
    if soft:
        return (1 - (position - k).abs()).clamp_min(0) * there
    return ((position == k) & there).to(position.dtype)


Box = tuple[slice, slice, slice, slice]


def _bounds(mask: torch.Tensor, margin: int) -> Box | None:
    """The rectangle that the blurred mask ``[N, 1, H, W]`` reaches, or None where it is empty."""
    everything = slice(None)
    if mask.device.type != "cpu":  # to ask the device where the mask ends costs more than it saves
        return (everything,) * 4
    spans = []
    for axes in ((0, 1, 3), (0, 1, 2)):
        hit = torch.nonzero(mask.amax(dim=axes)).flatten()
        if hit.numel() == 0:
            return None
        low, high = int(hit[0]) - margin, int(hit[-1]) + margin + 1
        spans.append(slice(max(low, 0), high))
    return everything, everything, spans[0], spans[1]


def _convolve(layer: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Blur ``[N, C, H, W]`` with ``[k, k]``, zeros outside; the normalisation makes up for it."""
    channels, height, width = layer.shape[1:]
    size = spread.shape[-1]
    if size == 1:
        return layer
    if size >= _FFT_FROM:
        # The kernel is odd and even-symmetric, so its centre sits at size // 2.
        padded = (height + size - 1, width + size - 1)
        product = torch.fft.rfft2(layer, s=padded) * torch.fft.rfft2(spread, s=padded)
        start = size // 2
        full = torch.fft.irfft2(product, s=padded)
        return full[..., start : start + height, start : start + width]
    # Channels last: a depthwise convolution runs five times as fast there on a CPU.
    image = layer.contiguous(memory_format=torch.channels_last)
    weights = spread.expand(channels, 1, size, size).contiguous()
    return F.conv2d(image, weights, padding=size // 2, groups=channels)
