"""Photograph a sharp image and its depth through a thin lens: layered defocus with occlusion.

The scene is cut into layers of (nearly) equal depth. Each is blurred with the lens's disk for its
distance, and the layers are laid over each other from near to far (Carvalho 2018, eqs. 1-2, after
Hasinoff and Kutulakos 2007):

    L_blurred = sum_k (A*_k L*_k) * h_k . M_k,     M_k = prod_{j nearer than k} (1 - A*_j * h_j)

A_k is the mask of layer k, h_k its point-spread function, and the star marks the layer extended
behind what occludes it, so that a blurred edge in front lets the background shine through instead
of a dark seam. The result is divided by the sum of the weights: thin slices of a slanted surface
do not cover a pixel wholly by themselves.

Blur is applied to the pixel values as they are (gamma-encoded), as in the papers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.psf import KERNELS, point_spread

LAYER_STEP_M = 10.0 / 255
"""Thickness of a layer in metres (Carvalho 2018)."""
JUMP_PX = 1.0
"""Neighbouring pixels whose blur differs by more than this many pixels lie on two surfaces."""
_FFT_FROM = 19  # kernel width from which the Fourier transform is faster than the sum


def render_defocus(
    sharp_rgb: torch.Tensor,
    depth_m: torch.Tensor,
    lens: LensConfig,
    *,
    kernel: str = "disk",
    layer_step_m: float = LAYER_STEP_M,
    sigma_per_diameter: float = 0.3,
) -> torch.Tensor:
    """Blur ``sharp_rgb`` as ``lens`` would, from its depth.

    Differentiable in ``sharp_rgb``. Runs where the tensors are.

    Args:
        sharp_rgb: ``[N, C, H, W]`` all-in-focus images, any range.
        depth_m: ``[N, 1, H, W]`` positive depth in metres, without gaps.
        lens: The lens, its pixel pitch that of this image.
        kernel: ``disk`` (a thin lens with a round aperture) or ``gaussian``.
        layer_step_m: Thickness of a depth layer in metres.
        sigma_per_diameter: For ``gaussian``: standard deviation over blur diameter
            (0.3 in D3-Net's code, 0.5 in the self-supervised variant).

    Returns:
        ``[N, C, H, W]``, of the same type and range.

    Raises:
        ValueError: Shapes do not fit, depth is not positive and finite, or an unknown kernel.
    """
    _check(sharp_rgb, depth_m, kernel, layer_step_m)
    images = [
        _render_one(rgb, depth[0], lens, kernel, layer_step_m, sigma_per_diameter)
        for rgb, depth in zip(sharp_rgb, depth_m, strict=True)
    ]
    return torch.stack(images)


def _check(rgb: torch.Tensor, depth_m: torch.Tensor, kernel: str, step_m: float) -> None:
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
    if kernel not in KERNELS:
        raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}")
    if not step_m > 0:
        raise ValueError(f"layer_step_m: expected a positive thickness in metres, got {step_m}")


def _render_one(
    rgb: torch.Tensor,
    depth_m: torch.Tensor,
    lens: LensConfig,
    kernel: str,
    step_m: float,
    sigma_ratio: float,
) -> torch.Tensor:
    """One image ``[C, H, W]`` with depth ``[H, W]``."""
    # Layer k spans [k, k + 1) steps; its blur is that of its middle.
    front = torch.div(depth_m, step_m, rounding_mode="floor").to(torch.int64)
    used, compact = torch.unique(front, return_inverse=True)
    spreads = [
        point_spread(abs(lens.signed_coc_px((k + 0.5) * step_m)), kernel, sigma_ratio)
        for k in used.tolist()
    ]
    margin = max(spread.shape[-1] for spread in spreads) // 2
    if margin == 0:
        return rgb.clone()
    # Beyond the border the scene goes on as it is at the border.
    rgb = _pad(rgb[None], margin)[0]
    compact = _pad(compact[None, None].to(rgb.dtype), margin)[0, 0].to(torch.int64)
    blur_px = torch.tensor(
        [lens.signed_coc_px((k + 0.5) * step_m) for k in used.tolist()], device=rgb.device
    )
    behind, behind_rgb = extend_behind(compact, rgb, blur_px, margin)
    out = _composite(rgb, compact, behind, behind_rgb, spreads)
    return out[:, margin:-margin, margin:-margin]


def _pad(tensor: torch.Tensor, margin: int) -> torch.Tensor:
    return F.pad(tensor, (margin,) * 4, mode="replicate")


def extend_behind(
    front: torch.Tensor, rgb: torch.Tensor, blur_px: torch.Tensor, reach: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Continue each surface behind its nearer neighbour, ring by ring.

    A pixel beside a surface farther away (by more than ``JUMP_PX`` of blur) gets, as what lies
    hidden behind it, that neighbour's layer and colour; the next ring takes it from there.

    Args:
        front: int64 ``[H, W]``, index into ``blur_px`` of the visible layer (0 is nearest).
        rgb: ``[C, H, W]``, visible colours.
        blur_px: ``[K]``, signed blur of each layer, rising with distance.
        reach: How many pixels to go behind the occluder.

    Returns:
        Layer index int64 ``[H, W]`` of the hidden surface (-1: none) and colours ``[C, H, W]``.
    """
    height, width = front.shape
    own_px = blur_px[front]
    reached_px, layer, colour = own_px, front, rgb
    hidden = torch.zeros_like(front, dtype=torch.bool)
    for _ in range(reach):
        farthest_px, source = F.max_pool2d(
            reached_px[None, None].float(), 3, stride=1, padding=1, return_indices=True
        )
        farthest_px, source = farthest_px[0, 0], source[0, 0]
        new = (~hidden) & (farthest_px - own_px > JUMP_PX)
        if not bool(new.any()):
            break
        reached_px = torch.where(new, farthest_px, reached_px)
        layer = torch.where(new, layer.reshape(-1)[source], layer)
        moved = colour.reshape(colour.shape[0], -1)[:, source.reshape(-1)]
        colour = torch.where(new, moved.reshape(-1, height, width), colour)
        hidden = hidden | new
    return torch.where(hidden, layer, torch.full_like(layer, -1)), colour


def _composite(
    rgb: torch.Tensor,
    front: torch.Tensor,
    behind: torch.Tensor,
    behind_rgb: torch.Tensor,
    spreads: list[torch.Tensor],
) -> torch.Tensor:
    """Lay the blurred layers over each other, nearest first; ``[C, H, W]``."""
    channels, height, width = rgb.shape
    total = torch.zeros_like(rgb)
    weight = rgb.new_zeros(height, width)
    clear = rgb.new_ones(height, width)
    for k, spread in enumerate(spreads):
        visible = front == k
        mask = visible | (behind == k)
        rows, columns = _bounds(mask, spread.shape[-1] // 2)
        mask_box = mask[rows, columns]
        colour = torch.where(
            visible[rows, columns], rgb[:, rows, columns], behind_rgb[:, rows, columns]
        )
        layer = torch.cat([colour * mask_box, mask_box[None].to(rgb.dtype)])
        blurred = _convolve(layer, spread.to(rgb))
        covered = blurred[channels]
        # What is still clear of nearer layers; a copy, since autograd keeps it for the way back.
        clear_box = clear[rows, columns].clone()
        total[:, rows, columns] += blurred[:channels] * clear_box
        weight[rows, columns] += covered * clear_box
        clear[rows, columns] = clear_box * (1 - covered)
    return total / weight.clamp_min(torch.finfo(rgb.dtype).tiny)


def _bounds(mask: torch.Tensor, margin: int) -> tuple[slice, slice]:
    """Rows and columns that the blurred mask reaches."""
    spans = []
    for axis in (1, 0):
        hit = torch.nonzero(mask.any(dim=axis)).flatten()
        low, high = int(hit[0]) - margin, int(hit[-1]) + margin + 1
        spans.append(slice(max(low, 0), min(high, mask.shape[1 - axis])))
    return spans[0], spans[1]


def _convolve(layer: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Blur ``[C, H, W]`` with ``[k, k]``, zeros outside: the normalisation makes up for them."""
    channels, height, width = layer.shape
    size = spread.shape[-1]
    if size == 1:
        return layer
    if size >= _FFT_FROM:
        # The kernel is odd and even-symmetric, so its centre sits at size // 2.
        padded = (height + size - 1, width + size - 1)
        product = torch.fft.rfft2(layer, s=padded) * torch.fft.rfft2(spread, s=padded)
        start = size // 2
        full = torch.fft.irfft2(product, s=padded)
        return full[:, start : start + height, start : start + width]
    # Channels last: a depthwise convolution runs five times as fast there on a CPU.
    image = layer[None].contiguous(memory_format=torch.channels_last)
    weights = spread.expand(channels, 1, size, size).contiguous()
    return F.conv2d(image, weights, padding=size // 2, groups=channels)[0]
