"""The same images through two runtimes: do they answer alike?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import ContractError, DatasetError
from ddfd_ros.core.metadata import golden_image
from ddfd_ros.core.preprocessing import Crop, crop_outputs, pad_to_size
from ddfd_ros.inference.base import Backend
from ddfd_trt.parity import ErrorCollector, HeadError
from ddfd_trt.truth import TruthCollector, TruthError

IMAGE_SUFFIXES: tuple[str, ...] = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff")
GOLDEN_NAME = "golden"

NamedImage = tuple[str, np.ndarray]
"""A name for messages and a uint8 ``[H, W, 3]`` RGB image."""


@dataclass(frozen=True)
class VerifyReport:
    """What came out of a comparison.

    Attributes:
        reference: Runtime and device that counts as right.
        candidate: Runtime and device under test.
        images: Number of images compared.
        heads: One entry per head.
        truth: What the differences do to the depth error; None where no truth was given.
    """

    reference: str
    candidate: str
    images: int
    heads: tuple[HeadError, ...]
    truth: TruthError | None = None

    @property
    def passed(self) -> bool:
        """Whether every head passed, and the depth error against truth."""
        return all(item.passed for item in self.heads) and (
            self.truth is None or self.truth.passed
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values (an infinite difference becomes the text ``inf``)."""
        heads = {}
        for item in self.heads:
            values = asdict(item) | {"unit": item.unit, "passed": item.passed}
            values["tolerance"] = list(item.tolerance)  # as JSON gives it back
            del values["head"]
            heads[item.head] = {
                key: "inf" if value == float("inf") else value for key, value in values.items()
            }
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "images": self.images,
            "heads": heads,
            "truth": None
            if self.truth is None
            else asdict(self.truth) | {"change": self.truth.change, "passed": self.truth.passed},
            "passed": self.passed,
        }


def verify(
    reference: Backend,
    candidate: Backend,
    images: Iterable[NamedImage],
    *,
    tolerance_scale: float = 1.0,
    allowed: float = 0.0,
    truth: TruthCollector | None = None,
    on_image: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Run images through two backends and compare every head both have.

    Args:
        reference: The backend that counts as right.
        candidate: The backend under test.
        images: Images of any size the models take.
        tolerance_scale: Factor on ``parity.TOLERANCES``, above 1 for reduced precision.
        allowed: Fraction of values that may be beyond the tolerance.
        truth: Gathers the depth errors of images whose true depth is known.
        on_image: Called with the name of each image when it is done.

    Raises:
        ContractError: The two are different weights or share no head.
        DatasetError: There is no image.
        InferenceError: A runtime failed on an image.
    """
    heads = shared_heads(reference, candidate)
    collector = ErrorCollector(tolerance_scale, allowed)
    count = 0
    for name, image in images:
        padded, crop = _as_both_see_it(image, reference, candidate)
        expected = crop_outputs(reference.infer(padded, heads), crop)
        got = crop_outputs(candidate.infer(padded, heads), crop)
        collector.add(expected, got)
        if truth is not None and "depth_m" in heads:
            truth.add(name, expected["depth_m"], got["depth_m"])
        count += 1
        if on_image is not None:
            on_image(name)
    if not count:
        raise DatasetError("images: expected at least one, got none; name a folder with images")
    return VerifyReport(
        reference=f"{reference.runtime}: {reference.device}",
        candidate=f"{candidate.runtime}: {candidate.device}",
        images=count,
        heads=tuple(collector.results()),
        truth=None if truth is None else truth.result(),
    )


def _as_both_see_it(
    image: np.ndarray, reference: Backend, candidate: Backend
) -> tuple[np.ndarray, Crop]:
    """The image with the padding of both, and the crop that undoes it.

    A graph of one size sees a smaller image padded to that size, one of any size sees less around
    it: they would answer otherwise with nothing wrong.
    """
    height, width = reference.padded_size(*image.shape[:2])
    return pad_to_size(image, *candidate.padded_size(height, width))


def shared_heads(reference: Backend, candidate: Backend) -> tuple[str, ...]:
    """The heads both models have; ContractError when they are not the same weights."""
    digests = [item.contract.weights_sha256 for item in (reference, candidate)]
    if digests[0] != digests[1]:
        raise ContractError(
            f"models: expected the same weights on both sides, got sha256 {digests[0][:16]}... "
            f"and {digests[1][:16]}...; export both from one checkpoint (to compare two "
            "trainings, use ddfd-evaluate)"
        )
    heads = tuple(h for h in reference.contract.outputs if h in candidate.contract.outputs)
    if not heads:
        raise ContractError(
            f"models: expected a head in common, got {list(reference.contract.outputs)} and "
            f"{list(candidate.contract.outputs)}; export one of them with more heads"
        )
    return heads


def golden_images(backend: Backend) -> Iterator[NamedImage]:
    """The golden input of a model, or one like it where the contract has none."""
    golden = backend.contract.golden
    if golden is not None:
        yield GOLDEN_NAME, golden.image()
    else:
        contract = backend.contract
        size = (contract.input_height or 96, contract.input_width or 160)
        yield GOLDEN_NAME, golden_image(*size, seed=1)


def find_images(path: str | Path) -> Sequence[Path]:
    """Image files of a folder (its subfolders included), sorted, or the one file named.

    Raises:
        DatasetError: There is no such file or folder, or no image in it.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    found = sorted(item for item in root.rglob("*") if item.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        what = "a folder without any" if root.is_dir() else "no such file or folder"
        raise DatasetError(
            f"{root}: expected images ({', '.join(IMAGE_SUFFIXES)}), got {what}; check the path"
        )
    return found


def load_images(paths: Iterable[Path]) -> Iterator[NamedImage]:
    """Read image files one by one as uint8 ``[H, W, 3]`` RGB.

    Raises:
        DatasetError: A file is not a readable image, or OpenCV is not installed.
    """
    for path in paths:
        try:
            import cv2  # here, since without images none is needed
        except ImportError as error:
            raise DatasetError(
                f"{path}: expected OpenCV to read it, got {error}; install "
                "opencv-python-headless (into a bundle: ddfd-bundle --add)"
            ) from error
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise DatasetError(
                f"{path}: expected an image OpenCV reads, got a file of {path.stat().st_size} "
                "bytes that it does not; remove or replace it"
            )
        yield path.name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
