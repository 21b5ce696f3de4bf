"""Finds how one camera's picture lies in another's: a depth camera beside a photo camera.

Size, field of view and direction of the two differ, so that a search by gradients would not find
its way: local features (SIFT, Lowe 2004) are matched, a projective or affine map is voted for by
random samples (RANSAC), and then refined on local contrast by maximising the enhanced correlation
coefficient (Evangelidis and Psarakis 2008). One map for the whole picture is right for a scene far
away in comparison with the distance between the cameras; what is left is measured, not assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ddfd_training.registration import local_contrast, patch_shifts_px, smoothed_gray

MODELS = ("homography", "affine")
MATCH_RATIO = 0.75
RANSAC_PX = 3.0
MIN_INLIERS = 12
MAX_FEATURES = 4000
ECC_STEPS = 60
ECC_EPS = 1e-6


@dataclass(frozen=True)
class Alignment:
    """How to lay one camera's picture over another's.

    Attributes:
        matrix: float64 ``[3, 3]``; maps (x, y, 1) of the reference to the moving picture.
        inliers: Matched features that agree with it.
        residual_px: Median shift in pixels of the reference that is left in textured patches, NaN
            where there are none.
        residual_p90_px: What nine tenths of these patches stay below: things nearer than the rest
            lie off by more than the median tells.
        converged: Whether a map was found; if not, ``matrix`` scales one picture to the other.
    """

    matrix: np.ndarray
    inliers: int
    residual_px: float
    residual_p90_px: float
    converged: bool

    def warp(self, moving: np.ndarray, height: int, width: int) -> np.ndarray:
        """A picture ``[h, w]`` or ``[h, w, C]`` of the moving camera as the reference sees it."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(moving, self.matrix, (width, height), flags=flags)

    def warp_map(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """A float map ``[h, w]`` by nearest neighbour, NaN where that camera sees nothing."""
        return cv2.warpPerspective(
            values.astype(np.float32),
            self.matrix,
            (width, height),
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=float("nan"),
        )


def scaling(moving: tuple[int, ...], reference: tuple[int, ...]) -> np.ndarray:
    """The map between two sizes of one view: centre of pixel to centre of pixel, ``[3, 3]``."""
    down, right = moving[0] / reference[0], moving[1] / reference[1]
    return np.array([[right, 0, (right - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1.0]])


def align(moving: np.ndarray, reference: np.ndarray, model: str = "homography") -> Alignment:
    """Find how ``moving`` lies in ``reference``; they may have different sizes.

    Args:
        moving: uint8 ``[h, w, 3]``, the depth camera's colour picture.
        reference: uint8 ``[H, W, 3]``, the photograph, the sharper one if there are two.
        model: ``homography`` or ``affine``.

    Raises:
        ValueError: No such model.
    """
    if model not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {model!r}")
    found = _by_features(moving, reference, model)
    if found is None:
        return Alignment(scaling(moving.shape, reference.shape), 0, math.nan, math.nan, False)
    matrix, inliers = _refined(moving, reference, found[0], model), found[1]
    height, width = reference.shape[:2]
    result = Alignment(matrix, inliers, math.nan, math.nan, True)
    view = result.warp(np.full(moving.shape[:2], 255, np.uint8), height, width)
    seen = cv2.erode((view > 0).astype(np.uint8), np.ones((9, 9), np.uint8))
    rows, columns = _box(seen)
    laid_over = result.warp(moving, height, width)[rows, columns]
    shifts = patch_shifts_px(smoothed_gray(reference[rows, columns]), smoothed_gray(laid_over))
    if not shifts.size:
        return result
    median, most = np.percentile(shifts, (50, 90))
    return replace(result, residual_px=float(median), residual_p90_px=float(most))


def _by_features(
    moving: np.ndarray, reference: np.ndarray, model: str
) -> tuple[np.ndarray, int] | None:
    """The map that most matched features agree with and how many do; none if too few do."""
    sift = cv2.SIFT_create(nfeatures=MAX_FEATURES)  # type: ignore[attr-defined]
    (at_moving, of_moving), (at_reference, of_reference) = (
        sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        for image in (moving, reference)
    )
    if of_moving is None or of_reference is None or min(len(of_moving), len(of_reference)) < 2:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(of_reference, of_moving, k=2)
    both = [pair for pair in pairs if len(pair) == 2]
    good = [first for first, other in both if first.distance < MATCH_RATIO * other.distance]
    if len(good) < MIN_INLIERS:
        return None
    start = np.array([at_reference[match.queryIdx].pt for match in good])
    end = np.array([at_moving[match.trainIdx].pt for match in good])
    matrix = np.eye(3)
    cv2.setRNGSeed(0)  # the same pictures give the same map
    if model == "affine":
        part, votes = cv2.estimateAffine2D(start, end, ransacReprojThreshold=RANSAC_PX)
        if part is None:
            return None
        matrix[:2] = part
    else:
        whole, votes = cv2.findHomography(start, end, cv2.RANSAC, RANSAC_PX)
        if whole is None:
            return None
        matrix = np.asarray(whole, dtype=np.float64)
    inliers = int(np.count_nonzero(votes))
    return (matrix, inliers) if inliers >= MIN_INLIERS else None


def _refined(
    moving: np.ndarray, reference: np.ndarray, matrix: np.ndarray, model: str
) -> np.ndarray:
    """The map after a search on local contrast, where that ends near where it began."""
    height, width = reference.shape[:2]
    target = local_contrast(smoothed_gray(reference))
    # Both at the reference's scale, or their local contrast is not the same thing.
    near = Alignment(matrix, 0, math.nan, math.nan, True).warp(moving, height, width)
    source = local_contrast(smoothed_gray(near))
    seen = Alignment(matrix, 0, math.nan, math.nan, True).warp(
        np.full(moving.shape[:2], 255, np.uint8), height, width
    )
    mask = cv2.erode((seen > 250).astype(np.uint8) * 255, np.ones((25, 25), np.uint8))
    kind = cv2.MOTION_AFFINE if model == "affine" else cv2.MOTION_HOMOGRAPHY
    start = np.eye(2 if model == "affine" else 3, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_EPS)
    try:
        _, step = cv2.findTransformECC(target, source, start, kind, criteria, mask, 1)
    except cv2.error:  # raised where the pictures do not correlate
        return matrix
    change = np.eye(3)
    change[: step.shape[0]] = step
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1.0]]).T
    moved = change @ corners
    if np.abs(moved[:2] / moved[2] - corners[:2]).max() > 4 * RANSAC_PX:
        return matrix
    refined: np.ndarray = matrix @ change
    return refined


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that the mask reaches; all of them if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(None), slice(None)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
