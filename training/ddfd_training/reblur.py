"""Blur a sharp image with a map: every pixel has a point-spread function of its own.

The Defocus Simulation Module of self-supervised 2HDED:NET (thesis section 5.1), differentiable in
the map and in the image. Two ways to read "the blur of a pixel":

- ``scatter``: the pixel's own light spreads with its own blur, as behind a lens; what arrives at
  a pixel is divided by the sum of the weights that arrive there.
- ``gather``: a pixel's new colour is a mean over its surroundings, as wide as its own blur.
  Cheaper, but a blurred object in front does not spill over its edge.

Kernels are those of :mod:`ddfd_training.psf`, so a map from the lens equation blurs as the
renderer does. They are tabulated every ``STEP_PX`` pixels of diameter and interpolated, which
keeps their sum at one and gives a slope everywhere, also at zero blur.

A kernel of k x k pixels is never multiplied out to k * k images. Pixels at the same distances
(a, b), in any order and with any sign, have the same weight: the loop is over these classes (91 at
k = 25), their up to eight offsets are summed first, and the backward pass goes the same way again
instead of keeping anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddfd_training.psf import KERNELS, disk_kernel, gaussian_kernel

SPREADS = ("scatter", "gather")
STEP_PX = 0.25
"""Spacing of the tabulated diameters, in pixels."""
WINDOW_PX = 25
"""Side of the largest kernel; wider blur counts as this wide."""
SIGMA_PER_DIAMETER = 0.3


@dataclass(frozen=True)
class KernelTable:
    """Kernels of all diameters, by class of offsets.

    Attributes:
        offsets: ``(a, b)`` with ``0 <= a <= b``: all offsets (+-a, +-b) and (+-b, +-a).
        onset: Number of the first tabulated diameter at which each class weighs anything, minus
            one; sorted, so that the rest can be left out for small blur.
        weights: float64 ``[classes, diameters]``, weight of one offset of the class.
    """

    offsets: tuple[tuple[int, int], ...]
    onset: tuple[int, ...]
    weights: np.ndarray


@lru_cache(maxsize=8)
def kernel_table(kernel: str, window_px: int, sigma_per_diameter: float) -> KernelTable:
    """Tabulate the kernels of diameters 0 to ``window_px``, cut to the window, each of sum one."""
    half = window_px // 2
    count = round(window_px / STEP_PX) + 1
    square = np.zeros((count, window_px, window_px))
    for number in range(count):
        diameter_px = number * STEP_PX
        if kernel == "disk":
            full = disk_kernel(diameter_px)
        else:
            full = gaussian_kernel(sigma_per_diameter * diameter_px)
        reach = min(half, full.shape[0] // 2)
        middle = full.shape[0] // 2
        cut = full[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
        square[number, half - reach : half + reach + 1, half - reach : half + reach + 1] = cut
        square[number] /= square[number].sum()
    found = []
    for a in range(half + 1):
        for b in range(a, half + 1):
            weights = square[:, half + a, half + b]
            used = np.flatnonzero(weights)
            if used.size:
                found.append((max(int(used[0]) - 1, 0), (a, b), weights))
    found.sort(key=lambda item: item[:2])
    onset, offsets, weights_list = zip(*found, strict=True)
    return KernelTable(tuple(offsets), tuple(onset), np.stack(weights_list))


def reblur_with_map(
    sharp_rgb: Tensor,
    defocus_px: Tensor,
    *,
    kernel: str = "disk",
    spread: str = "scatter",
    sigma_per_diameter: float = SIGMA_PER_DIAMETER,
    window_px: int = WINDOW_PX,
) -> Tensor:
    """Blur every pixel as the map says.

    Differentiable once in both tensors. Beyond the border, image and map go on as at the border.

    Args:
        sharp_rgb: ``[N, C, H, W]``, any range.
        defocus_px: ``[N, 1, H, W]`` blur diameter in pixels; its sign does not matter. Diameters
            beyond ``window_px`` count as that wide and get no gradient.
        kernel: ``disk`` or ``gaussian``.
        spread: ``scatter`` or ``gather``, see the module.
        sigma_per_diameter: For ``gaussian``: standard deviation over blur diameter (0.5 in a
            public variant of the network, 0.3 in D3-Net's renderer).
        window_px: Side of the largest kernel, odd.

    Returns:
        ``[N, C, H, W]``.

    Raises:
        ValueError: Shapes or options do not fit.
    """
    _check(sharp_rgb, defocus_px, kernel, spread, window_px)
    if not sigma_per_diameter > 0:
        raise ValueError(f"sigma_per_diameter: expected more than 0, got {sigma_per_diameter}")
    table = kernel_table(kernel, window_px, float(sigma_per_diameter))
    margin = (window_px // 2,) * 4
    with torch.autocast(sharp_rgb.device.type, enabled=False):
        dtype = torch.float64 if sharp_rgb.dtype == torch.float64 else torch.float32
        image = F.pad(sharp_rgb.to(dtype), margin, mode="replicate")
        blur = defocus_px.to(dtype).abs().clamp(max=float(window_px))
        if spread == "scatter":
            blur = F.pad(blur, margin, mode="replicate")
            return _Scatter.apply(image, blur, table, window_px // 2)
        return _Gather.apply(image, blur, table, window_px // 2)


def _check(image: Tensor, blur: Tensor, kernel: str, spread: str, window_px: int) -> None:
    if image.ndim != 4 or blur.shape != (image.shape[0], 1, *image.shape[2:]):
        raise ValueError(
            f"expected images [N,C,H,W] and a blur map [N,1,H,W] of one size, "
            f"got {tuple(image.shape)} and {tuple(blur.shape)}"
        )
    for name, value, known in (("kernel", kernel, KERNELS), ("spread", spread, SPREADS)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if window_px < 1 or window_px % 2 == 0:
        raise ValueError(f"window_px: expected an odd number of pixels, got {window_px}")


class _Lookup:
    """Weights, and their slope over the diameter, of every pixel: class after class."""

    def __init__(self, blur: Tensor, table: KernelTable) -> None:
        place = blur / STEP_PX
        self._index = place.floor().clamp_(0, table.weights.shape[1] - 2).to(torch.int64)
        self._share = place - self._index
        self._table = table
        self._weights = torch.from_numpy(table.weights).to(blur)
        self._largest = float(place.max()) if blur.numel() else 0.0

    def __iter__(self) -> Iterator[tuple[tuple[int, int], Tensor, Tensor]]:
        """``(a, b)``, weights and slopes, shaped as the map, of classes that weigh anything."""
        for number, (offsets, onset) in enumerate(
            zip(self._table.offsets, self._table.onset, strict=True)
        ):
            if number and onset >= self._largest:
                return
            column = self._weights[number]
            rise = column.diff()
            slope = rise[self._index]
            yield offsets, torch.addcmul(column[self._index], self._share, slope), slope / STEP_PX


class _Rings:
    """Sums of an image over the offsets of a class, of its inner part ``[.., H, W]``."""

    def __init__(self, image: Tensor, margin: int) -> None:
        self._image = image
        self._margin = margin
        self._height = image.shape[-2] - 2 * margin
        self._width = image.shape[-1] - 2 * margin
        self._pairs: dict[int, Tensor] = {}

    def _rows(self, a: int) -> Tensor:
        """The rows ``a`` above and ``a`` below, added; kept, for every class with ``a``."""
        if a not in self._pairs:
            low, high = self._margin - a, self._margin + a
            pair = self._image[..., low : low + self._height, :]
            self._pairs[a] = pair + self._image[..., high : high + self._height, :] if a else pair
        return self._pairs[a]

    def sum(self, a: int, b: int) -> Tensor:
        """The sum over (+-a, +-b) and (+-b, +-a)."""
        total = self._columns(self._rows(a), b)
        return total if a == b else total + self._columns(self._rows(b), a)

    def _columns(self, rows: Tensor, b: int) -> Tensor:
        low, high = self._margin - b, self._margin + b
        left = rows[..., low : low + self._width]
        return left + rows[..., high : high + self._width] if b else left


def _chunks(image: Tensor) -> Iterator[slice]:
    """One image at a time where a cache is small; all at once where launching is what costs."""
    size = 1 if image.device.type == "cpu" else image.shape[0]
    return (slice(start, start + size) for start in range(0, image.shape[0], size))


class _Gather(torch.autograd.Function):
    """sum_o w_o(c_p) I_{p+o}; the weights of a pixel sum to one by themselves."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, blur: Tensor, table: KernelTable, margin: int) -> Tensor:
        out = image.new_zeros(*image.shape[:2], *blur.shape[-2:])
        rate = torch.zeros_like(out)
        for part in _chunks(image):
            rings = _Rings(image[part], margin)
            for (a, b), weight, slope in _Lookup(blur[part], table):
                around = rings.sum(a, b)
                out[part].addcmul_(weight, around)
                rate[part].addcmul_(slope, around)
        # A pixel's colour depends on its own blur alone: its rate of change is all that is needed.
        ctx.save_for_backward(rate, blur)
        ctx.table, ctx.margin, ctx.padded = table, margin, image.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rate, blur = ctx.saved_tensors
        grad_blur = (grad * rate).sum(1, keepdim=True) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_blur, None, None
        grad_image = grad.new_zeros(ctx.padded)
        for part in _chunks(grad):
            for (a, b), weight, _ in _Lookup(blur[part], ctx.table):
                spread = F.pad(weight * grad[part], (2 * ctx.margin,) * 4)
                grad_image[part] += _Rings(spread, ctx.margin).sum(a, b)
        return grad_image, grad_blur, None, None


class _Scatter(torch.autograd.Function):
    """sum_o w_o(c_{p+o}) I_{p+o} / sum_o w_o(c_{p+o})."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, blur: Tensor, table: KernelTable, margin: int) -> Tensor:
        height, width = (side - 2 * margin for side in image.shape[-2:])
        out = image.new_empty(*image.shape[:2], height, width)
        total = image.new_empty(image.shape[0], 1, height, width)
        for part in _chunks(image):
            light = torch.cat((image[part], torch.ones_like(image[part][:, :1])), dim=1)
            arrived = light.new_zeros(*light.shape[:2], height, width)
            for (a, b), weight, _ in _Lookup(blur[part], table):
                arrived += _Rings(light * weight, margin).sum(a, b)
            total[part] = arrived[:, -1:]
            out[part] = arrived[:, :-1] / arrived[:, -1:]
        ctx.save_for_backward(image, blur, out, total)
        ctx.table, ctx.margin = table, margin
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, blur, out, total = ctx.saved_tensors
        grad_image = torch.zeros_like(image) if ctx.needs_input_grad[0] else None
        grad_blur = torch.zeros_like(blur) if ctx.needs_input_grad[1] else None
        for part in _chunks(image):
            share = grad[part] / total[part]
            lost = -(share * out[part]).sum(1, keepdim=True)
            sent = F.pad(torch.cat((share, lost), dim=1), (2 * ctx.margin,) * 4)
            rings = _Rings(sent, ctx.margin)
            for (a, b), weight, slope in _Lookup(blur[part], ctx.table):
                around = rings.sum(a, b)
                colours = around[:, :-1]
                if grad_blur is not None:
                    worth = (image[part] * colours).sum(1, keepdim=True) + around[:, -1:]
                    grad_blur[part].addcmul_(slope, worth)
                if grad_image is not None:
                    grad_image[part].addcmul_(weight, colours)
        return grad_image, grad_blur, None, None
