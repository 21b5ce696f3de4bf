"""Natural pairs: the sharp companion in the defocused image's geometry and exposure."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.model.blur_space import lens_vector
from ddfd_training.datasets.base import ReadSequence, RgbdDataset
from ddfd_training.datasets.sample import RgbdSample, eight_bit
from ddfd_training.image_set import ImageSet
from ddfd_training.registration import Registration, match_exposure, register

_VERSION = 1  # raise when registration changes


def stack_pairs(samples: Sequence[RgbdSample], weight: float) -> ImageSet:
    """Natural photographs, held in memory, with their sharp companions laid over them.

    Companions of which it is known already where they can be believed are taken as they are.
    """
    loaded = [samples[i] for i in range(len(samples))]
    images = [sample.defocused_rgb for sample in loaded if sample.defocused_rgb is not None]
    if len(images) != len(loaded):
        raise DatasetError("expected a defocused image for each depth map, got some without")
    pairs = [
        (sample.sharp_rgb, sample.sharp_known)
        if sample.sharp_rgb is not None and sample.sharp_known is not None
        else _lay_over(sample.sharp_rgb, image)
        for sample, image in zip(loaded, images, strict=True)
    ]
    lenses = [lens_vector(sample.lens) for sample in loaded if sample.lens is not None]
    if len(lenses) < len(loaded):
        lenses = []
    return ImageSet(
        np.stack(images),
        np.stack([sharp for sharp, _ in pairs]),
        np.stack([sample.depth_m for sample in loaded]),
        np.stack([known for _, known in pairs]),
        tuple(range(len(loaded))),
        weight,
        lenses=np.array(lenses, np.float32).reshape(-1, 2),
    )


def _lay_over(
    sharp: np.ndarray | None, image: np.ndarray, found: Registration | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The sharp companion in the image's geometry and exposure, and where it is known."""
    known = np.zeros(image.shape[:2], dtype=bool)
    if sharp is None:
        return image, known
    found = found or register(eight_bit(sharp), eight_bit(image))
    if not found.trusted:  # a companion that lies off teaches the wrong thing
        return image, known
    warped = found.warp(sharp)
    known[found.overlap(*image.shape[:2])] = True
    return match_exposure(eight_bit(warped), eight_bit(image)).apply(warped), known


class LaidOver(ReadSequence[RgbdSample]):
    """A data set's pairs, each registered when it is first read, and remembered.

    What is found is kept in a small file, so that every pair is registered once on a machine and
    not once in every epoch: a registration takes some tenths of a second, reading the pair a
    hundredth.

    Args:
        dataset: Pairs that lie a little off each other.
        folder: Where the file is kept.
    """

    def __init__(self, dataset: RgbdDataset, folder: str | Path) -> None:
        self._dataset = dataset
        key = hashlib.sha256(f"{_VERSION} {dataset.key}".encode()).hexdigest()[:12]
        self._file = Path(folder) / f"{dataset.name}-{key}.registrations.jsonl"
        self._found: dict[str, Registration] = {}

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._dataset)

    def read(self, index: int) -> RgbdSample:
        """Pair ``index``, the sharp image laid over the other; ``sharp_known`` says where."""
        sample = self._dataset[index]
        if sample.sharp_rgb is None or sample.defocused_rgb is None:
            return sample
        found = self._registration(sample)
        sharp, known = _lay_over(sample.sharp_rgb, sample.defocused_rgb, found)
        return replace(sample, sharp_rgb=sharp, sharp_known=known)

    def _registration(self, sample: RgbdSample) -> Registration:
        """The sample's registration, remembered or made."""
        if not self._found and self._file.is_file():
            self._found = _load(self._file)
        if sample.name not in self._found:
            assert sample.sharp_rgb is not None  # the caller has looked
            assert sample.defocused_rgb is not None
            found = register(eight_bit(sample.sharp_rgb), eight_bit(sample.defocused_rgb))
            self._found[sample.name] = found
            _append(self._file, sample.name, found)
        return self._found[sample.name]


def _append(path: Path, name: str, found: Registration) -> None:
    """Add one line; a short line is written whole, also when processes write at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [found.matrix.tolist(), found.correlation, found.residual_px, found.converged]
    line = (json.dumps([name, *values]) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def _load(path: Path) -> dict[str, Registration]:
    """All registrations of a file; a line that a crash cut short is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            name, matrix, correlation, residual_px, converged = json.loads(line)
        except ValueError:
            continue
        found[name] = Registration(np.array(matrix), correlation, residual_px, converged)
    return found
