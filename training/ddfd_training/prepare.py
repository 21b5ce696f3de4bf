"""Prepares a team's own recordings, the way iDFD was made (Nazir's thesis, section 4.1).

A photo camera took each view wide open and stopped down, a depth camera beside it the depth. The
steps are the thesis': denoise, in-paint (optional), register, normalise, crop. The defocused image
is the one that nothing is done to but scaling and cropping: its blur is the cue, and every
resampling would change it. All else is laid over it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import read_color
from ddfd_training.datasets.rgbd_folder import read_depth_m
from ddfd_training.datasets.sample import eight_bit
from ddfd_training.prepare_align import Alignment, align, scaling
from ddfd_training.prepare_crop import Box, cut, largest_box
from ddfd_training.prepare_depth import denoise_depth, inpaint_depth
from ddfd_training.prepare_files import ViewFiles
from ddfd_training.registration import Registration, match_exposure, register

MAX_STRETCH = 0.02


@dataclass(frozen=True)
class PrepareOptions:
    """What is done to each view.

    Attributes:
        max_side_px: Longer side of the photographs that is worked on; larger ones are scaled down.
        size: Height and width of the result, or ``None`` for the common part as it is.
        denoise: Clean the depth maps.
        denoise_images: Strength of non-local means on the sharp photograph; 0 leaves it alone.
        inpaint: ``none``, ``nearest`` or ``smooth``.
        inpaint_reach_px: How far from a measured depth gaps are closed.
        model: How the depth camera's picture lies in the photograph: ``homography`` or ``affine``.
        max_error_px: Larger registration errors of the photographs refuse a view.
        max_depth_error_px: The same for depth against the photograph.
        depth_unit_m: Metres per step of 16-bit depth maps.
    """

    max_side_px: int = 1280
    size: tuple[int, int] | None = None
    denoise: bool = True
    denoise_images: float = 0.0
    inpaint: str = "none"
    inpaint_reach_px: int = 20
    model: str = "homography"
    max_error_px: float = 1.0
    max_depth_error_px: float = 3.0
    depth_unit_m: float = 1e-3


@dataclass(frozen=True)
class ViewReport:
    """How well a view came together; errors in pixels of the result before it is resized.

    Attributes:
        name: Its name.
        sharp_shift_px: Offset (x, y) of the sharp photograph before it was registered.
        sharp_error_px: Median shift left between the photographs; NaN if it cannot be measured.
        depth_error_px: The same between the depth camera's picture and the photograph.
        depth_error_p90_px: What nine tenths of the picture stay below: what is nearer than the
            rest lies off by more, for the two cameras see it from two places.
        depth_inliers: Features that the two cameras' pictures share.
        depth_known: Share of the pixels whose depth is known.
        depth_filled: Share whose depth was in-painted.
        problem: Why the view cannot be trusted; empty if it can.
    """

    name: str
    sharp_shift_px: tuple[float, float] | None = None
    sharp_error_px: float | None = None
    depth_error_px: float | None = None
    depth_error_p90_px: float | None = None
    depth_inliers: int | None = None
    depth_known: float | None = None
    depth_filled: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Aligned:
    """A view whose images are known to lie over each other in some way.

    Attributes:
        files: Where it comes from.
        report: How well.
        box: The part that all its images show.
        scale: Size of the photographs worked on over their own.
        photo_px: Height and width of the photographs as given.
        registration: Of the sharp photograph.
        alignment: Of the depth camera's picture.
    """

    files: ViewFiles
    report: ViewReport
    box: Box
    scale: float
    photo_px: tuple[int, int]
    registration: Registration | None = None
    alignment: Alignment | None = None


@dataclass(frozen=True)
class PreparedView:
    """Images of one view, ready to be written: RGB, and depth in metres with NaN."""

    defocused_rgb: np.ndarray
    report: ViewReport
    sharp_rgb: np.ndarray | None = None
    depth_m: np.ndarray | None = field(default=None)


def shrunk(image: np.ndarray, max_side_px: int) -> tuple[np.ndarray, float]:
    """The image with its longer side at most so long, and the scale it got."""
    scale = min(1.0, max_side_px / max(image.shape[:2]))
    if scale == 1.0:
        return image, 1.0
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), scale


def align_view(files: ViewFiles, options: PrepareOptions) -> Aligned:
    """Register a view's images and measure how well; nothing is written.

    Raises:
        DatasetError: A file is broken, the photographs differ in size, or the depth map that lies
            over them differs in shape.
    """
    photo = read_color(files.defocused)
    photo_px = photo.shape[0], photo.shape[1]
    fixed, scale = shrunk(photo, options.max_side_px)
    height, width = fixed.shape[:2]
    valid = np.ones((height, width), dtype=bool)
    report, reference = ViewReport(files.name), eight_bit(fixed)
    registration = alignment = None
    if files.sharp is not None:
        moving, _ = shrunk(read_color(files.sharp), options.max_side_px)
        if moving.shape != fixed.shape:
            raise DatasetError(
                f"{files.name}: expected both photographs of one size, got {fixed.shape[:2]} and "
                f"{moving.shape[:2]}; turn and scale them alike"
            )
        registration = register(eight_bit(moving), eight_bit(fixed))
        report = replace(
            report,
            sharp_shift_px=registration.shift_px,
            sharp_error_px=registration.residual_px,
            problem=_photo_problem(registration, options.max_error_px),
        )
        inner = np.zeros_like(valid)
        inner[registration.overlap(height, width)] = True
        valid &= inner
        if registration.converged:
            reference = eight_bit(registration.warp(moving))
    if files.depth is not None:
        alignment = _align_depth(files, reference, options)
        if files.color is not None:
            report = replace(
                report,
                depth_error_px=alignment.residual_px,
                depth_error_p90_px=alignment.residual_p90_px,
                depth_inliers=alignment.inliers,
            )
        # Not where depth is known, which has holes, but where the depth camera looks.
        shape = read_depth_m(files.depth, options.depth_unit_m).shape
        seen = alignment.warp(np.full(shape, 255, np.uint8), height, width)
        valid &= seen > 250
        if not report.problem:
            report = replace(report, problem=_depth_problem(report, options.max_depth_error_px))
    box = largest_box(valid)
    if not report.problem and box.height * box.width == 0:
        report = replace(report, problem="the images share no part")
    return Aligned(files, report, box, scale, photo_px, registration, alignment)


def _align_depth(files: ViewFiles, reference: np.ndarray, options: PrepareOptions) -> Alignment:
    """How the depth map lies in the photograph."""
    assert files.depth is not None  # the caller has looked
    shape = read_depth_m(files.depth, options.depth_unit_m).shape
    if files.color is None:  # taken to be registered already
        aspect = shape[1] / shape[0] / (reference.shape[1] / reference.shape[0])
        if abs(aspect - 1) > MAX_STRETCH:
            raise DatasetError(
                f"{files.name}: expected depth of the photograph's shape, or --color, got "
                f"{shape} over {reference.shape[:2]}; give the depth camera's colour pictures"
            )
        return Alignment(scaling(shape, reference.shape), 0, math.nan, math.nan, True)
    color, _ = shrunk(eight_bit(read_color(files.color)), options.max_side_px)
    found = align(color, reference, options.model)
    return replace(found, matrix=scaling(shape, color.shape) @ found.matrix)


def _photo_problem(found: Registration, limit_px: float) -> str:
    if not found.converged:
        return "the photographs do not show the same, or have too little texture"
    if not found.residual_px <= limit_px:  # NaN too
        return f"the photographs lie {found.residual_px:.2f} px apart, more than {limit_px}"
    return ""


def _depth_problem(report: ViewReport, limit_px: float) -> str:
    if report.depth_inliers is None or report.depth_error_px is None:
        return ""
    if report.depth_inliers == 0:
        return "the depth camera's picture was not found in the photograph"
    if not report.depth_error_px <= limit_px:
        return f"depth lies {report.depth_error_px:.2f} px off, more than {limit_px}"
    return ""


def finish_view(aligned: Aligned, box: Box, options: PrepareOptions) -> PreparedView:
    """Make a view's images: warped, normalised, cleaned, and cut to ``box``.

    Raises:
        DatasetError: A file is broken, or an option does not fit.
    """
    files, report = aligned.files, aligned.report
    fixed, _ = shrunk(read_color(files.defocused), options.max_side_px)
    height, width = fixed.shape[:2]
    if options.size is not None:
        part, box = box, box.shaped(*options.size)
        if box.height * box.width == 0:
            raise DatasetError(
                f"size: expected one that {part.height}x{part.width} can be cut to, got "
                f"{options.size[0]}x{options.size[1]}; give one closer to its shape"
            )
    sharp = depth_m = None
    if files.sharp is not None and aligned.registration is not None:
        moving, _ = shrunk(read_color(files.sharp), options.max_side_px)
        warped = _calmed(aligned.registration.warp(moving), options.denoise_images)
        match = match_exposure(eight_bit(warped[box.slices]), eight_bit(fixed[box.slices]))
        sharp = cut(match.apply(warped), box, options.size)
    if files.depth is not None and aligned.alignment is not None:
        measured = read_depth_m(files.depth, options.depth_unit_m)
        if options.denoise:
            measured = denoise_depth(measured)
        laid_over = aligned.alignment.warp_map(measured, height, width)
        whole, filled = inpaint_depth(laid_over, options.inpaint, options.inpaint_reach_px)
        depth_m = cut(whole, box, options.size)
        known = float(np.isfinite(depth_m).mean())
        report = replace(report, depth_known=known, depth_filled=filled)
    return PreparedView(cut(fixed, box, options.size), report, sharp, depth_m)


def _calmed(image: np.ndarray, strength: float) -> np.ndarray:
    """The image with its noise reduced by non-local means (Buades et al. 2005)."""
    if strength <= 0:
        return image
    if image.dtype != np.uint8:
        raise DatasetError(
            "denoise_images: expected 8-bit photographs, got 16-bit ones, which need none; leave "
            "it at 0"
        )
    return cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 5, 15)
