"""How the renderer cuts a scene into layers and what its point-spread functions look like.

The papers and their public codes differ; each way is a preset by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ddfd_ros.core.thin_lens import DISK_SIGMA_PER_DIAMETER, LensConfig
from ddfd_training.psf import RENDER_KERNELS

LAYER_STEP_M = 10.0 / 255
"""Thickness of a layer in metres (Carvalho 2018)."""
SYNDOF_STEP_PX = 0.1
SOFT_STEP_PX = 0.5
_EDGE_QUANTUM_PX = 1 / 64


@dataclass(frozen=True)
class Layering:
    """How depth is cut into layers.

    Attributes:
        by: ``depth`` (layers of equal thickness in metres) or ``blur`` (of equal blur in pixels).
        step: Thickness of a layer, in metres or in pixels of blur diameter.
        from_nearest_m: For ``depth``: where the first layer begins, relative to the scene's
            nearest point, in metres. ``None`` puts the layers at the same depths in every scene,
            so that a crop looks like the same part of the whole image.
        soft: A pixel between two layers belongs to both in proportion. The picture is then
            differentiable in depth; with hard layers it is a staircase.

    Raises:
        ValueError: Unknown ``by``, a thickness that is not positive, or an offset with ``blur``.
    """

    by: str = "depth"
    step: float = LAYER_STEP_M
    from_nearest_m: float | None = None
    soft: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the field."""
        if self.by not in ("depth", "blur"):
            raise ValueError(f"layering.by: expected depth or blur, got {self.by!r}")
        if not self.step > 0:
            unit = "metres" if self.by == "depth" else "pixels"
            raise ValueError(
                f"layer step: expected a positive thickness in {unit}, got {self.step}"
            )
        if self.by == "blur" and self.from_nearest_m is not None:
            raise ValueError("layering.from_nearest_m: expected None with layers by blur")


@dataclass(frozen=True)
class RenderOptions:
    """Everything about a rendering but the scene and the lens.

    Attributes:
        kernel: ``disk`` (a thin lens with a round aperture), ``gaussian``, ``blend``, or
            ``sampled-gaussian``, of published codes, which spreads too little below 0.6 px.
        sigma_per_diameter: Standard deviation of the Gaussian over blur diameter. Published codes
            use 0.25 to 0.5; a disk has 0.25.
        gaussian_share: For ``blend``: part of the Gaussian in the sum of both kernels, 0 to 1.
        sharp_below_px: Subtracted from the blur diameter before anything else; what is blurred
            less stays sharp.
        largest_kernel_px: Kernels are cut off at this width (odd); 0 leaves them whole.
        layering: How depth is cut into layers.
        extend: Continue surfaces behind what occludes them. Without, dark seams are avoided only
            by normalisation, and a blurred edge in front shows nothing behind it.

    Raises:
        ValueError: A value out of its range.
    """

    kernel: str = "disk"
    sigma_per_diameter: float = 0.3
    gaussian_share: float = 0.5
    sharp_below_px: float = 0.0
    largest_kernel_px: int = 0
    layering: Layering = Layering()
    extend: bool = True

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the field."""
        if self.kernel not in RENDER_KERNELS:
            raise ValueError(
                f"kernel: expected one of {', '.join(RENDER_KERNELS)}, got {self.kernel!r}"
            )
        if not (self.sigma_per_diameter > 0 and 0 <= self.gaussian_share <= 1):
            raise ValueError(
                "expected sigma_per_diameter above 0 and gaussian_share from 0 to 1, got "
                f"{self.sigma_per_diameter} and {self.gaussian_share}"
            )
        if self.sharp_below_px < 0 or (self.largest_kernel_px and self.largest_kernel_px % 2 == 0):
            raise ValueError(
                "expected sharp_below_px from 0 and an odd largest_kernel_px (or 0), got "
                f"{self.sharp_below_px} and {self.largest_kernel_px}"
            )

    @property
    def spread_per_diameter(self) -> float:
        """Standard deviation of the point-spread function along one axis over the diameter.

        As it is before ``sharp_below_px``, ``largest_kernel_px`` or sampling cut into it.
        """
        share = {"disk": 0.0, "blend": self.gaussian_share}.get(self.kernel, 1.0)
        return math.hypot(
            math.sqrt(1 - share) * DISK_SIGMA_PER_DIAMETER,
            math.sqrt(share) * self.sigma_per_diameter,
        )


_D3NET_LAYERS = Layering(from_nearest_m=-0.5)
RENDER_PRESETS: dict[str, RenderOptions] = {
    # This project's: the paper's disks, at depths that do not depend on the scene.
    "ddfd": RenderOptions(),
    # Carvalho 2018, section 3.2: layers of 10/255 m from 0.5 m before the nearest point.
    "d3net": RenderOptions(layering=_D3NET_LAYERS),
    # Its public code's default: a Gaussian, cut off at 21x21 pixels.
    "d3net-code": RenderOptions(
        "sampled-gaussian", 0.3, largest_kernel_px=21, layering=_D3NET_LAYERS
    ),
    # Lee et al. 2019, the generator that 2HDED:NET cites: one layer for each 0.1 px of blur,
    # sigma = (blur - 1) / 4.
    "syndof": RenderOptions(
        "sampled-gaussian", 0.25, sharp_below_px=1.0, layering=Layering("blur", SYNDOF_STEP_PX)
    ),
    # Layers a quarter of a pixel of blur apart: for rendering while training.
    "quick": RenderOptions(layering=Layering("blur", 0.25)),
    # For learning from pictures: differentiable in depth.
    "soft": RenderOptions(layering=Layering("blur", SOFT_STEP_PX, soft=True)),
    "soft-gaussian": RenderOptions(
        "gaussian", 0.5, layering=Layering("blur", SOFT_STEP_PX, soft=True)
    ),
}
"""Ways to render, by name."""


def render_options(options: RenderOptions | str) -> RenderOptions:
    """A preset by its name, or the options themselves.

    Raises:
        ValueError: No preset of that name.
    """
    if isinstance(options, RenderOptions):
        return options
    if options not in RENDER_PRESETS:
        raise ValueError(
            f"render preset: expected one of {', '.join(RENDER_PRESETS)}, got {options!r}"
        )
    return RENDER_PRESETS[options]


@dataclass(frozen=True)
class Layers:
    """A scene cut into layers.

    Attributes:
        blur_px: ``[K]``, signed blur of each layer, nearest first.
        position: ``[N, H, W]``, which layer a pixel is on; whole numbers unless layers are soft,
            then differentiable in depth.
        own_px: ``[N, H, W]``, signed blur of each pixel, for finding edges.
    """

    blur_px: list[float]
    position: torch.Tensor
    own_px: torch.Tensor


def cut(depth_m: torch.Tensor, lens: LensConfig, layering: Layering) -> Layers:
    """Cut depth maps ``[N, H, W]`` into common layers; empty ones are left out of hard layers."""
    if layering.soft:
        return _cut_soft(depth_m, lens, layering)
    if layering.by == "blur":
        # A layer holds what rounds to its blur.
        number = torch.round(lens.signed_coc_px(depth_m.detach()) / layering.step)
        used, position = torch.unique(number, return_inverse=True)
        blur_px = [k * layering.step for k in used.tolist()]
    else:
        # Layer k spans [k, k + 1) steps; its blur is that of its middle.
        begin_m = _begin_m(depth_m, layering)
        number = torch.div(depth_m.detach() - begin_m, layering.step, rounding_mode="floor")
        used, position = torch.unique(number.to(torch.int64), return_inverse=True)
        blur_px = [
            float(lens.signed_coc_px(begin_m + (k + 0.5) * layering.step)) for k in used.tolist()
        ]
    return Layers(blur_px, position, depth_m.new_tensor(blur_px)[position])


def _begin_m(depth_m: torch.Tensor, layering: Layering) -> float:
    """Where layer 0 begins."""
    if layering.from_nearest_m is None:
        return 0.0
    # Not before the lens: what lies there has no blur.
    return max(float(depth_m.min()) + layering.from_nearest_m, 1e-3)


def _cut_soft(depth_m: torch.Tensor, lens: LensConfig, layering: Layering) -> Layers:
    """Layers at equal steps, and where between them each pixel lies."""
    blur_px = lens.signed_coc_px(depth_m)
    along = depth_m if layering.by == "depth" else blur_px
    begin = 0.0
    if layering.by == "depth":
        begin = _begin_m(depth_m.detach(), layering) + layering.step / 2
    steps = (along - begin) / layering.step
    nearest, farthest = (float(end) for end in steps.detach().aminmax())
    low, high = math.floor(nearest), math.ceil(farthest)
    centres = [begin + k * layering.step for k in range(low, high + 1)]
    if layering.by == "depth":
        # The layer before the nearest point may reach to the lens itself.
        centres = [float(lens.signed_coc_px(max(c, layering.step / 4))) for c in centres]
    # Rounded, so that what continues behind an edge is not decided by a hair's breadth of depth.
    own_px = torch.round(blur_px.detach() / _EDGE_QUANTUM_PX) * _EDGE_QUANTUM_PX
    return Layers(centres, steps - low, own_px)
