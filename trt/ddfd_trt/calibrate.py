"""Pictures that show TensorRT which values flow through a network, to choose ranges for int8."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.preprocessing import pad_to_size
from ddfd_ros.inference.base import DeviceError, one_line
from ddfd_ros.inference.graph import INPUT_NAME
from ddfd_ros.inference.tensorrt_api import TensorRt
from ddfd_trt.files import write_atomically
from ddfd_trt.verify import find_images, load_images

if TYPE_CHECKING:
    from ddfd_ros.inference.cuda_session import CudaSession


@dataclass(frozen=True)
class ImageBatches:
    """Pictures for calibration, one per batch.

    Attributes:
        paths: Image files.
        height: Height in pixels they are cut or padded to; never scaled, since scaling changes
            the blur that the network looks at.
        width: Width, likewise.
        cache: File that keeps what calibration found, so that it need not run again.
        beside: What the graph takes besides, by name: the same for all pictures.
    """

    paths: tuple[Path, ...]
    height: int
    width: int
    cache: Path
    beside: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        limit: int,
        size: tuple[int, int],
        cache_stem: Path,
        graph: bytes,
        beside: dict[str, np.ndarray] | None = None,
    ) -> ImageBatches:
        """At most ``limit`` pictures of a folder, spread over it.

        The cache's name holds a digest of pictures, size and graph: another network or other
        pictures never find it.

        Raises:
            DatasetError: There is no picture.
        """
        found = find_images(folder)
        step = max(1, -(-len(found) // limit))
        paths = tuple(found[::step])
        digest = hashlib.sha256(graph)
        for path in paths:
            digest.update(f"{path.name}:{path.stat().st_size};".encode())
        digest.update(str(size).encode())
        name = f"{cache_stem.name}.{digest.hexdigest()[:12]}.calibration"
        return cls(paths, size[0], size[1], cache_stem.with_name(name), beside or {})

    def __iter__(self) -> Iterator[np.ndarray]:
        """The pictures, each contiguous uint8 ``[height, width, 3]`` RGB."""
        for _, image in load_images(self.paths):
            rows, columns = image.shape[:2]
            top, left = max(0, (rows - self.height) // 2), max(0, (columns - self.width) // 2)
            part = image[top : top + self.height, left : left + self.width]
            padded, _ = pad_to_size(np.ascontiguousarray(part), self.height, self.width)
            yield np.ascontiguousarray(padded)


class _Feeder:
    """Pictures one by one into device memory, in the thread that builds."""

    def __init__(self, batches: ImageBatches) -> None:
        self._images = iter(batches)
        self._beside = batches.beside
        self._session: CudaSession | None = None
        self._memory: dict[str, tuple[np.ndarray, Any]] = {}  # on the host and on the device

    def next_addresses(self, names: list[str]) -> list[int] | None:
        """Where the next picture, and what goes with it, lie on the device; None at the end."""
        image = next(self._images, None)
        if image is None:
            self.close()
            return None
        if self._session is None:
            from ddfd_ros.inference.cuda_session import CudaSession

            self._session = CudaSession()
        values = {INPUT_NAME: image, **self._beside}
        for name in names:
            raw = values[name].view(np.uint8).ravel()
            if name not in self._memory:
                host = self._session.page_locked(raw.nbytes)
                self._memory[name] = (host, self._session.device_memory(raw.nbytes))
            host, device = self._memory[name]
            np.copyto(host, raw)
            self._session.to_device(device, host)
        self._session.synchronize()
        return [int(self._memory[name][1]) for name in names]

    def close(self) -> None:
        """Free the memory."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def make_calibrator(api: TensorRt, batches: ImageBatches) -> Any:
    """An entropy calibrator over ``batches``; its ``failure`` holds what went wrong, or None.

    Its methods are called from C++ and must not raise. ``close`` it in the thread that built: a
    CUDA context that is left current at its thread's end makes pycuda abort the process.
    """
    base = api.module.IInt8EntropyCalibrator2
    feeder = _Feeder(batches)

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            self.failure: Exception | None = None

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            try:
                return feeder.next_addresses(list(names))
            except Exception as error:  # whatever it is, C++ must not see it
                known = isinstance(error, (DdfdError, OSError))
                self.failure = error if known else _device_error(error)
                return None

        def close(self) -> None:
            feeder.close()

        def read_calibration_cache(self) -> bytes | None:
            return batches.cache.read_bytes() if batches.cache.is_file() else None

        def write_calibration_cache(self, cache: Any) -> None:
            try:
                write_atomically(batches.cache, bytes(cache))
            except OSError as error:
                self.failure = error

    return Calibrator()


def _device_error(error: Exception) -> DeviceError:
    return DeviceError(
        f"calibration: expected the GPU to take a picture, got {one_line(error)}; free GPU "
        "memory, or see dmesg"
    )
