"""The golden sample: an input every machine can make, and what the reference runtime answered.

A backend that makes the same input and gets other numbers than the contract holds is wrong on this
machine (a broken driver, a wrong engine, a damaged file), and says so before the first frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddfd_ros.core.errors import ContractError

GOLDEN_TOLERANCE: dict[str, tuple[float, float]] = {
    "depth_m": (5e-3, 5e-3),
    "sigma_m": (5e-3, 1e-2),
    "sharp_rgb": (2.0, 0.0),
    "defocus_px": (5e-2, 5e-3),
}
"""Per head, (absolute, relative) tolerance of a sample in single precision: metres, 8-bit levels,
pixels. Runtimes sum in different orders, which moves results by about 1e-4; an image byte may
round to its neighbour."""

IMAGE_SCALE_LIMIT = 10.0
"""Largest factor on the tolerance of ``sharp_rgb``: a hundred levels would let anything pass."""

_GRID = 8


@dataclass(frozen=True)
class Golden:
    """Input recipe and expected answers.

    Attributes:
        height: Height of the input in pixels.
        width: Width of the input in pixels.
        seed: Seed of ``golden_image``.
        input_sha256: Digest of the input's bytes: tells a wrong recipe from a wrong model.
        samples: Per output 64 values on a fixed 8x8 grid, row-major; ``sharp_rgb``: green channel.
    """

    height: int
    width: int
    seed: int
    input_sha256: str
    samples: dict[str, list[float]]

    def __post_init__(self) -> None:
        """Refuse incomplete sample lists."""
        for name, values in self.samples.items():
            if len(values) != _GRID * _GRID:
                raise ContractError(
                    f"golden sample {name}: expected {_GRID * _GRID} values, got {len(values)}; "
                    "export the model again"
                )

    def to_dict(self) -> dict[str, Any]:
        """The sample as JSON values."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Golden:
        """Read from JSON values; unknown, missing or ill-typed keys raise ContractError."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(values, Mapping) or set(values) != names:
            got = sorted(values) if isinstance(values, Mapping) else type(values).__name__
            raise ContractError(
                f"golden: expected the keys {sorted(names)}, got {got}; export the model again"
            )
        try:
            samples = {str(k): [float(x) for x in v] for k, v in values["samples"].items()}
            return cls(
                height=int(values["height"]),
                width=int(values["width"]),
                seed=int(values["seed"]),
                input_sha256=str(values["input_sha256"]),
                samples=samples,
            )
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ContractError(f"golden: malformed ({error}); export the model again") from error

    def image(self) -> np.ndarray:
        """Make the input, uint8 ``[H, W, 3]``; ContractError when its digest does not fit."""
        image = golden_image(self.height, self.width, self.seed)
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        if digest != self.input_sha256:
            raise ContractError(
                f"golden input {self.height}x{self.width} seed {self.seed}: expected sha256 "
                f"{self.input_sha256[:16]}..., got {digest[:16]}...; the contract comes from "
                "another version of the recipe: export the model again"
            )
        return image


def golden_image(height: int, width: int, seed: int) -> np.ndarray:
    """A textured test image, uint8 ``[height, width, 3]``, the same bytes on every machine.

    Value noise of four octaves (lattices of 64, 16, 4 and 1 px) in integer arithmetic alone, so
    that neither the platform's floating point nor numpy's random generators matter.
    """
    rows = np.arange(height, dtype=np.int64)[:, None]
    columns = np.arange(width, dtype=np.int64)[None, :]
    image = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        total = np.zeros((height, width), np.int64)
        for octave, (cell, weight) in enumerate(((64, 8), (16, 4), (4, 3), (1, 1))):
            key = (seed * 12 + channel * 4 + octave) & 0xFFFFFFFF
            total += weight * _value_noise(rows, columns, cell, key)
        image[..., channel] = total >> 4  # the weights sum to 16
    return image


def _value_noise(rows: np.ndarray, columns: np.ndarray, cell: int, key: int) -> np.ndarray:
    """Bilinear interpolation of hashed lattice values in 0..255, in integers."""
    row, row_part = rows // cell, rows % cell
    column, column_part = columns // cell, columns % cell
    total = np.zeros(np.broadcast(rows, columns).shape, np.int64)
    for down in (0, 1):
        for right in (0, 1):
            weight = (row_part if down else cell - row_part) * (
                column_part if right else cell - column_part
            )
            total += weight * _hash_byte(row + down, column + right, key)
    return total // (cell * cell)


def _hash_byte(row: np.ndarray, column: np.ndarray, key: int) -> np.ndarray:
    """A well-mixed byte per lattice point (multiply and xor-shift on 32 bits)."""
    mask = np.uint64(0xFFFFFFFF)
    value = (row * 0x9E3779B1 + column * 0x85EBCA77 + key * 0xC2B2AE3D).astype(np.uint64) & mask
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        value ^= value >> np.uint64(shift)
        value = (value * np.uint64(factor)) & mask
    value ^= value >> np.uint64(15)
    return (value & np.uint64(0xFF)).astype(np.int64)


def golden_samples(outputs: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Sample every output on the 8x8 grid: rows and columns at (2 i + 1) / 16 of the size.

    Args:
        outputs: Per head, ``[H, W]`` or (``sharp_rgb``) ``[H, W, 3]``.
    """
    result = {}
    for name, array in outputs.items():
        plane = array[..., 1] if array.ndim == 3 else array
        rows = (2 * np.arange(_GRID) + 1) * plane.shape[0] // (2 * _GRID)
        columns = (2 * np.arange(_GRID) + 1) * plane.shape[1] // (2 * _GRID)
        result[name] = [float(x) for x in plane[np.ix_(rows, columns)].ravel()]
    return result


def make_golden(
    outputs: Mapping[str, np.ndarray], height: int, width: int, seed: int = 1
) -> Golden:
    """The golden record of ``outputs``, the reference's answer to ``golden_image(...)``."""
    digest = hashlib.sha256(golden_image(height, width, seed).tobytes()).hexdigest()
    return Golden(height, width, seed, digest, golden_samples(outputs))


def head_scale(head: str, tolerance_scale: float) -> float:
    """The factor on the tolerance of one head; images are bound by ``IMAGE_SCALE_LIMIT``."""
    return min(tolerance_scale, IMAGE_SCALE_LIMIT) if head == "sharp_rgb" else tolerance_scale


def golden_mismatch(
    golden: Golden, outputs: Mapping[str, np.ndarray], tolerance_scale: float = 1.0
) -> dict[str, float]:
    """How far ``outputs`` are from the golden samples, in units of the tolerance.

    Args:
        golden: The expected samples.
        outputs: Answers to ``golden.image()``; heads without samples are not compared.
        tolerance_scale: Factor on ``GOLDEN_TOLERANCE``, above 1 for reduced precision.

    Returns:
        Per head the largest |got - expected| / (absolute + relative |expected|): above 1 fails;
        ``inf`` where a value is not a number.
    """
    result = {}
    for name, values in golden_samples(outputs).items():
        if name not in golden.samples:
            continue
        expected, got = np.asarray(golden.samples[name]), np.asarray(values)
        absolute, relative = GOLDEN_TOLERANCE[name]
        scale = head_scale(name, tolerance_scale)
        ratio = np.abs(got - expected) / (scale * (absolute + relative * abs(expected)))
        result[name] = float(np.nan_to_num(ratio, nan=np.inf, posinf=np.inf).max())
    return result
