"""What every runtime has in common: checks and padding in the public calls, work in private ones.

A backend belongs to one thread: the one that made it also calls and closes it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ddfd_ros.core.errors import ContractError, ImageFormatError, InferenceError, ModelLoadError
from ddfd_ros.core.metadata import ModelContract, golden_image, golden_mismatch
from ddfd_ros.core.preprocessing import crop_outputs, pad_to_size, padded_side
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.inference.lens_input import LENS_NAME, lens_values, own_lens

MIN_SIDE_PX = 32
"""Smallest height and width of an image a backend accepts."""

HEAD_DTYPES: dict[str, type[np.generic]] = {
    "depth_m": np.float32,
    "sigma_m": np.float32,
    "sharp_rgb": np.uint8,
    "defocus_px": np.float32,
}
"""Type of every head in the exported graph."""


class ParityError(ModelLoadError):
    """A runtime answers otherwise than the model it runs; the message says by how much."""


class DeviceError(InferenceError):
    """A GPU failed, was lost, or is not there; another runtime may well answer."""


@dataclass(frozen=True)
class BackendOptions:
    """What can be chosen when a model is opened; a runtime ignores what it has no use for.

    Attributes:
        threads: Threads inside one inference; 0 leaves the number to the runtime.
        spin: Whether idle threads busy-wait for the next operator: a little faster alone on a
            machine, slower and hotter beside other processes.
        device: ``cpu`` or ``cuda``; ``auto`` is ``cpu`` here (whether an engine is to serve on a
            GPU is decided by whoever opens it).
        precision: ``float32``, or ``auto``: fewer bits where runtime and machine are faster so.
    """

    threads: int = 0
    spin: bool = False
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Refuse values no runtime understands."""
        if self.threads < 0:
            raise ModelLoadError(f"threads: expected 0 (automatic) or more, got {self.threads}")
        if self.device == "auto":
            object.__setattr__(self, "device", "cpu")
        if self.device not in ("cpu", "cuda"):
            raise ModelLoadError(f"device: expected 'cpu' or 'cuda', got {self.device!r}")
        if self.precision not in ("float32", "auto"):
            raise ModelLoadError(
                f"precision: expected 'float32' or 'auto', got {self.precision!r}"
            )


class Backend(ABC):
    """A loaded model on one runtime.

    Attributes:
        runtime: Name of the runtime, as ``open_backend`` takes it.
        contract: What the model promises.
        device: Where and how it runs, for people and diagnostics.
    """

    runtime: str
    tolerance_scale: float = 1.0
    """Factor on the golden tolerances; above 1 where the runtime computes with fewer bits."""

    def __init__(self, contract: ModelContract, device: str) -> None:
        self.contract = contract
        self.device = device
        self._closed = False
        self._own_lens = own_lens(contract)
        self._lens = self._own_lens

    @classmethod
    @abstractmethod
    def from_file(cls, path: Path, options: BackendOptions) -> Backend:
        """Load a model file; ModelLoadError or ContractError when it cannot serve."""

    @abstractmethod
    def _infer(self, image: np.ndarray, heads: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Run one padded, contiguous uint8 ``[H, W, 3]`` image; a new array for each head."""

    def _close(self) -> None:  # noqa: B027 - most runtimes free everything with their objects
        """Release what garbage collection does not."""

    def set_lens(self, lens: LensConfig | None) -> None:
        """Answer for a camera with this lens from the next image on; None: the contract's lens.

        Args:
            lens: The lens at the resolution of the images, for models that take one beside them
                (``"lens"`` among the contract's inputs).

        Raises:
            ContractError: The model takes no lens, or not one like this.
        """
        self._lens = self._own_lens if lens is None else lens_values(self.contract, lens)

    def _beside(self) -> dict[str, np.ndarray]:
        """What the graph takes beside the image, by name."""
        return {} if self._lens is None else {LENS_NAME: self._lens}

    def infer(
        self,
        image: np.ndarray,
        heads: Collection[str] | None = None,
        timings_ms: MutableMapping[str, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """Answer one image.

        Args:
            image: uint8 ``[H, W, 3]``, RGB; sides of at least 32 pixels, padded where needed.
            heads: Outputs wanted, None for all. What is not asked for is not computed where the
                runtime allows. No head at all gives an empty answer without running anything.
            timings_ms: Receives the durations ``pad`` and ``infer`` in milliseconds.

        Returns:
            Per head an array of the image's size (possibly a view of the padded answer):
            ``depth_m``, ``sigma_m``, ``defocus_px`` float32 ``[H, W]``, ``sharp_rgb`` uint8
            ``[H, W, 3]``.

        Raises:
            ImageFormatError: The image is not uint8 ``[H, W, 3]`` or too small.
            ContractError: A head the model has not, or an image larger than its fixed size.
            InferenceError: The runtime failed.
        """
        if self._closed:
            raise InferenceError("backend: expected an open backend, got a closed one; open again")
        wanted = self._check_heads(heads)
        _check_image(image)
        if not wanted:
            return {}
        start = time.perf_counter()
        height, width = self._graph_size(*image.shape[:2])
        padded, crop = pad_to_size(image, height, width)
        padded = np.ascontiguousarray(padded)
        ready = time.perf_counter()
        try:
            outputs = self._infer(padded, wanted)
        except (InferenceError, MemoryError):
            raise
        except Exception as error:  # runtimes raise types of their own without a common base
            raise InferenceError(
                f"{self.runtime}: expected an answer for an image of {width}x{height}, got "
                f"{one_line(error)}; warm up with this size and run the self-test"
            ) from error
        if timings_ms is not None:
            timings_ms["pad"] = (ready - start) * 1e3
            timings_ms["infer"] = (time.perf_counter() - ready) * 1e3
        self._check_outputs(outputs, wanted, height, width)
        return crop_outputs(outputs, crop)

    def takes(self, height: int, width: int) -> bool:
        """Whether images of this size in pixels can be answered."""
        try:
            self._graph_size(height, width)
        except ContractError:
            return False
        return min(height, width) >= MIN_SIDE_PX

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels that an image of this size is padded to.

        Raises:
            ContractError: The image is larger than the graph's fixed size.
        """
        return self._graph_size(height, width)

    def warm_up(self, height: int, width: int, heads: Collection[str] | None = None) -> float:
        """Run a textured image of this size until everything lazy is done.

        Returns:
            The duration of the last of three inferences in milliseconds: what a frame will take.
        """
        image = golden_image(height, width, seed=0)
        elapsed_ms = 0.0
        for _ in range(3):
            start = time.perf_counter()
            self.infer(image, heads)
            elapsed_ms = (time.perf_counter() - start) * 1e3
        return elapsed_ms

    def self_test(self) -> dict[str, Any]:
        """Compare this runtime's answer with the contract's golden sample.

        Returns:
            ``{"checked": bool, "mismatch": {head: error in units of the tolerance}}``; not
            checked when the contract holds no golden sample.

        Raises:
            ParityError: An answer is beyond the tolerance (``golden.GOLDEN_TOLERANCE`` times
                ``tolerance_scale``).
            ContractError: The contract's golden input cannot be made.
        """
        golden = self.contract.golden
        if golden is None:
            return {"checked": False, "mismatch": {}}
        mismatch = golden_mismatch(golden, self._golden_answer(), self.tolerance_scale)
        bad = {name: value for name, value in mismatch.items() if value > 1.0}
        missing = sorted(set(golden.samples) - set(mismatch))
        if bad or missing:
            found = ", ".join(f"{name} off by {value:.3g} times it" for name, value in bad.items())
            found += f" no answer for {missing}" if missing else ""
            raise ParityError(
                f"{self.runtime} self-test: expected the contract's golden answers within their "
                f"tolerance, got {found}; the runtime or the file is damaged: try another runtime "
                "or export the model again"
            )
        return {"checked": True, "mismatch": mismatch}

    def _golden_answer(self, heads: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """The answer to the golden input, with the lens that its samples were made with."""
        golden, lens = self.contract.golden, self._lens
        if golden is None:
            return {}
        self._lens = self._own_lens
        try:
            return self.infer(golden.image(), heads)
        finally:
            self._lens = lens

    def close(self) -> None:
        """Release the model; calling it twice does no harm."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Backend:
        """Use as a context manager."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close at the end of the block."""
        self.close()

    def _check_heads(self, heads: Collection[str] | None) -> tuple[str, ...]:
        """The heads asked for, in the contract's order."""
        if heads is None:
            return self.contract.outputs
        unknown = sorted(set(heads) - set(self.contract.outputs))
        if unknown:
            raise ContractError(
                f"heads: expected a selection of {list(self.contract.outputs)}, got {unknown}; "
                "use a model that has them"
            )
        return tuple(name for name in self.contract.outputs if name in heads)

    def _graph_size(self, height: int, width: int) -> tuple[int, int]:
        """The size the graph is run at for an image of ``height`` x ``width``."""
        contract = self.contract
        sides = []
        for name, side, fixed in (
            ("height", height, contract.input_height),
            ("width", width, contract.input_width),
        ):
            if fixed is not None and side > fixed:
                raise ContractError(
                    f"image {name}: expected at most {fixed} pixels (the model's graph is fixed "
                    f"to {contract.input_width}x{contract.input_height}), got {side}; scale the "
                    "image or export the model for this size"
                )
            sides.append(fixed or padded_side(side, contract.size_multiple))
        return sides[0], sides[1]

    def _check_outputs(
        self, outputs: dict[str, np.ndarray], heads: tuple[str, ...], height: int, width: int
    ) -> None:
        """A runtime that answers in another shape or type must not reach consumers."""
        for name in heads:
            shape = (height, width, 3) if name == "sharp_rgb" else (height, width)
            array = outputs[name]
            if array.shape != shape or array.dtype != HEAD_DTYPES[name]:
                raise InferenceError(
                    f"{self.runtime} output {name}: expected {HEAD_DTYPES[name].__name__} {shape},"
                    f" got {array.dtype} {array.shape}; the graph does not fit its contract: "
                    "export the model again"
                )


def one_line(error: BaseException) -> str:
    """Kind and message of a runtime's error, its line breaks taken out."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check_image(image: np.ndarray) -> None:
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if dtype != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3:
        raise ImageFormatError(
            f"image: expected a uint8 array [H, W, 3] in RGB, got {dtype} {shape}; decode the "
            "message with ddfd_ros.core.image_codec first"
        )
    if min(shape[:2]) < MIN_SIDE_PX:
        raise ImageFormatError(
            f"image: expected sides of at least {MIN_SIDE_PX} pixels, got {shape[1]}x{shape[0]}; "
            "use a larger image"
        )
