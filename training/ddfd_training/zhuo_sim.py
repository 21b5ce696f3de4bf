"""The classical baseline: defocus from one image's edges (Zhuo and Sim 2011), no learning.

A blurred step edge is blurred once more by a known Gaussian sigma_0. The ratio R of the gradients
before and after tells the blur that was there:

    R = |grad i| / |grad i_1| = sqrt((sigma^2 + sigma_0^2) / sigma^2)
    sigma = sigma_0 / sqrt(R^2 - 1)

That is known at edges only. A joint bilateral filter, guided by the image, takes out what the
neighbouring edges contradict, and the closed-form matting Laplacian (Levin et al. 2008) carries it
over the whole image: minimise d' L d + lambda (d - d_0)' D (d - d_0), D marking the edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse
from scipy.sparse.linalg import cg

from ddfd_ros.core.thin_lens import LensConfig


@dataclass(frozen=True)
class ZhuoSimOptions:
    """The method's constants.

    Attributes:
        reblur_px: Standard deviation sigma_0 of the second blur, pixels (theirs: 1).
        canny: Low and high threshold of the edge detector, grey levels of 255.
        largest_px: Largest standard deviation believed, pixels.
        filter_px: Spatial reach of the joint bilateral filter, pixels.
        filter_grey: Its reach in grey levels of 255.
        fidelity: lambda, how much an edge's own estimate counts (theirs: 0.005).
        epsilon: Regularisation of the matting Laplacian's windows (Levin et al.: 1e-7 to 1e-5).
        iterations: Most steps of the solver.
    """

    reblur_px: float = 1.0
    canny: tuple[float, float] = (30.0, 80.0)
    largest_px: float = 6.0
    filter_px: float = 7.0
    filter_grey: float = 25.0
    fidelity: float = 0.005
    epsilon: float = 1e-5
    iterations: int = 300


def edge_blur_px(
    image_rgb: np.ndarray, options: ZhuoSimOptions | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Blur at the edges of an image.

    Args:
        image_rgb: uint8 ``[H, W, 3]``.
        options: The method's constants.

    Returns:
        float32 ``[H, W]`` standard deviation of the blur in pixels, 0 where there is no edge, and
        where there is one, bool ``[H, W]``.
    """
    options = options or ZhuoSimOptions()
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    # Canny's own smoothing (3x3 Sobel) is too little for blurred, noisy edges.
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    edges = cv2.Canny(smooth, *options.canny, L2gradient=True) > 0
    plain = _gradient(grey.astype(np.float32))
    again = _gradient(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), options.reblur_px))
    ratio = plain / np.maximum(again, 1e-3)
    known = edges & (ratio > 1.001)
    sigma = np.zeros(grey.shape, np.float32)
    sigma[known] = options.reblur_px / np.sqrt(ratio[known] ** 2 - 1.0)
    # A ratio near one is either a very wide blur or two edges that meet.
    known &= sigma <= options.largest_px
    sigma[~known] = 0.0
    return sigma, known


def _gradient(image: np.ndarray) -> np.ndarray:
    """Magnitude of the central differences."""
    along_y, along_x = np.gradient(image)
    return np.hypot(along_x, along_y)


def joint_bilateral(
    sparse_px: np.ndarray, known: np.ndarray, image_rgb: np.ndarray, options: ZhuoSimOptions
) -> np.ndarray:
    """Each known value becomes a mean of those near it in place and colour; float32 ``[H, W]``."""
    reach = round(2 * options.filter_px)
    rows, columns = np.nonzero(known)
    colour = np.pad(image_rgb.astype(np.float32), ((reach, reach), (reach, reach), (0, 0)))
    values = np.pad(sparse_px, reach)
    there = np.pad(known, reach).astype(np.float32)
    total = np.zeros(len(rows))
    weights = np.zeros(len(rows))
    own = colour[rows + reach, columns + reach]
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            at = (rows + reach + dy, columns + reach + dx)
            near = np.exp(-(dy * dy + dx * dx) / (2 * options.filter_px**2))
            square = ((colour[at] - own) ** 2).mean(axis=1)
            weight = near * np.exp(-square / (2 * options.filter_grey**2)) * there[at]
            total += weight * values[at]
            weights += weight
    result = np.zeros_like(sparse_px)
    result[rows, columns] = total / weights  # its own weight is one
    return result


def matting_laplacian(image_rgb: np.ndarray, epsilon: float) -> scipy.sparse.csr_matrix:
    """The matting Laplacian of 3x3 windows (Levin et al. 2008).

    For each window w with mean mu and covariance S of its colours, and pixels i, j in it:
    delta_ij - (1 + (I_i - mu)' (S + epsilon / 9)^-1 (I_j - mu)) / 9.

    Args:
        image_rgb: uint8 ``[H, W, 3]``.
        epsilon: Keeps flat windows invertible.

    Returns:
        Symmetric, positive semidefinite, ``[H W, H W]``; constant maps are in its null space.
    """
    height, width = image_rgb.shape[:2]
    colours = image_rgb.reshape(-1, 3).astype(np.float64) / 255
    numbers = np.arange(height * width).reshape(height, width)
    windows = np.lib.stride_tricks.sliding_window_view(numbers, (3, 3)).reshape(-1, 9)
    members = colours[windows]
    centred = members - members.mean(axis=1, keepdims=True)
    covariance = np.einsum("wia,wib->wab", centred, centred) / 9
    inverse = np.linalg.inv(covariance + epsilon / 9 * np.eye(3))
    affinity = (1.0 + np.einsum("wia,wab,wjb->wij", centred, inverse, centred)) / 9
    rows = np.repeat(windows, 9, axis=1).ravel()
    columns = np.tile(windows, (1, 9)).ravel()
    size = height * width
    weights = scipy.sparse.csr_matrix((affinity.ravel(), (rows, columns)), shape=(size, size))
    degree = np.bincount(windows.ravel(), minlength=size).astype(np.float64)
    return (scipy.sparse.diags(degree) - weights).tocsr()


def propagate(
    sparse_px: np.ndarray, known: np.ndarray, image_rgb: np.ndarray, options: ZhuoSimOptions
) -> np.ndarray:
    """Carry the edges' values over the image: (L + lambda D) d = lambda D d_0; float32 ``[H, W]``.

    Raises:
        ValueError: No value is known.
    """
    if not known.any():
        raise ValueError("propagate: expected at least one known pixel, got none")
    marks = known.ravel().astype(np.float64) * options.fidelity
    matrix = matting_laplacian(image_rgb, options.epsilon) + scipy.sparse.diags(marks)
    right = marks * sparse_px.ravel()
    diagonal = matrix.diagonal()
    scale = scipy.sparse.diags(1.0 / np.maximum(diagonal, 1e-12))
    start = _smooth_start(sparse_px, known).ravel()
    found, _ = cg(matrix, right, x0=start, rtol=1e-4, maxiter=options.iterations, M=scale)
    low, high = sparse_px[known].min(), sparse_px[known].max()
    return np.clip(found, low, high).reshape(known.shape).astype(np.float32)


def _smooth_start(sparse_px: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Wide means of what is known: a start from which the solver has little left to do."""
    filled = np.full(known.shape, float(np.median(sparse_px[known])))
    for width in (64.0, 24.0, 8.0):
        count = cv2.GaussianBlur(known.astype(np.float64), (0, 0), width)
        mean = cv2.GaussianBlur(sparse_px * known.astype(np.float64), (0, 0), width)
        filled = (mean + 1e-3 * filled) / (count + 1e-3)
    return filled


def defocus_map_px(image_rgb: np.ndarray, options: ZhuoSimOptions | None = None) -> np.ndarray:
    """Blur everywhere, as a standard deviation in pixels.

    Args:
        image_rgb: uint8 ``[H, W, 3]``.
        options: The method's constants.

    Returns:
        float32 ``[H, W]``, pixels; the largest believed blur everywhere in an image without edges.
    """
    options = options or ZhuoSimOptions()
    sparse_px, known = edge_blur_px(image_rgb, options)
    if not known.any():
        return np.full(known.shape, options.largest_px, np.float32)
    filtered = joint_bilateral(sparse_px, known, image_rgb, options)
    return propagate(filtered, known, image_rgb, options)


@dataclass(frozen=True)
class BlurToDepth:
    """Calibration of the baseline for one lens: sigma^2 = rest^2 + (ratio c)^2.

    Attributes:
        lens: The lens, focused beyond the scene: blur is taken to be on the near side.
        ratio: Standard deviation over blur diameter c.
        rest_px: Blur that a sharp edge of these images still has, pixels.
        range_m: Nearest and farthest depth answered.
    """

    lens: LensConfig
    ratio: float
    rest_px: float
    range_m: tuple[float, float] = (0.5, 10.0)

    def signed_coc_px(self, sigma_px: np.ndarray) -> np.ndarray:
        """Signed blur diameter in pixels, float64, of a standard deviation in pixels."""
        clear = np.sqrt(np.maximum(sigma_px.astype(np.float64) ** 2 - self.rest_px**2, 0.0))
        return -clear / self.ratio

    def depth_m(self, sigma_px: np.ndarray) -> np.ndarray:
        """Depth in metres, float32, of a standard deviation in pixels."""
        near = self.lens.depth_m(self.signed_coc_px(sigma_px))
        return np.clip(near, *self.range_m).astype(np.float32)


def calibrate(sigma_px: np.ndarray, depth_m: np.ndarray, lens: LensConfig) -> BlurToDepth:
    """Fit ratio and rest to blur measured at edges whose depth is known.

    Least absolute error in metres over a grid: outliers are many, and metres are what is judged.

    Args:
        sigma_px: ``[n]``, pixels.
        depth_m: ``[n]``, metres.
        lens: The lens that took the images.
    """
    best, least = BlurToDepth(lens, 0.3, 0.0), np.inf
    for ratio in np.linspace(0.15, 0.6, 19):
        for rest in np.linspace(0.0, 1.5, 16):
            candidate = BlurToDepth(lens, float(ratio), float(rest))
            error = float(np.abs(candidate.depth_m(sigma_px) - depth_m).mean())
            if error < least:
                best, least = candidate, error
    return best


class ZhuoSim:
    """The baseline as a model: image in, depth out."""

    def __init__(self, calibration: BlurToDepth, options: ZhuoSimOptions | None = None) -> None:
        self._calibration = calibration
        self._options = options or ZhuoSimOptions()

    def infer(self, image: np.ndarray, heads: object = None) -> dict[str, np.ndarray]:
        """Answer a uint8 image ``[H, W, 3]`` with ``depth_m`` and ``defocus_px``, ``[H, W]``."""
        del heads
        sigma_px = defocus_map_px(image, self._options)
        return {
            "depth_m": self._calibration.depth_m(sigma_px),
            "defocus_px": self._calibration.signed_coc_px(sigma_px).astype(np.float32),
        }
