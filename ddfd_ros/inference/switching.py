"""A backend made of two: a fast one that may fail or be missing, and one that always answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import ContractError, InferenceError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.inference.base import Backend, BackendOptions

_UNFIT_IN_A_ROW = 5
"""So many images of one size that do not fit the engine call for another engine."""


class SwitchingBackend(Backend):
    """Answers with ``engine`` where there is one and it can, otherwise with ``standby``.

    A frame on which the engine fails is answered by the standby, at once; the engine is closed and
    stays out until another is installed. Like every backend it belongs to one thread, which also
    installs and closes engines; ``changed``, ``failure`` and ``unfit_size`` may be read by others.

    Args:
        standby: Answers images of every size, on the CPU.

    Attributes:
        changed: Set when the engine failed or images come that do not fit it.
        failure: Why the last engine failed; empty when it did not.
        last_size: Height and width in pixels of the last image; None before the first.
        last_heads: Heads asked for with the last image.
        unfit_size: The size of images that keep coming and do not fit the engine, else None.
    """

    def __init__(self, standby: Backend) -> None:
        super().__init__(standby.contract, standby.device)
        self.runtime = standby.runtime
        self.tolerance_scale = standby.tolerance_scale
        self.changed = threading.Event()
        self.failure = ""
        self.last_size: tuple[int, int] | None = None
        self.last_heads: tuple[str, ...] = ()
        self.unfit_size: tuple[int, int] | None = None
        self._unfit_in_a_row = 0
        self._chosen_lens: LensConfig | None = None
        self._standby = standby
        self._engine: Backend | None = None
        self._staged: Backend | None = None

    @classmethod
    def from_file(cls, path: Path, options: BackendOptions) -> SwitchingBackend:
        """Not made from one file: ContractError."""
        raise ContractError(f"{path}: expected two backends to switch between, got one file")

    @property
    def engine(self) -> Backend | None:
        """The fast backend in force."""
        return self._engine

    @property
    def standby(self) -> Backend:
        """The one that always answers."""
        return self._standby

    def stage(self, engine: Backend) -> Backend:
        """Take over an engine that is to be tried first; closed with this unless installed.

        Call it in the worker's call that opens the engine: when the worker is told to stop
        meanwhile, it makes no further call, and nobody else could close the engine.
        """
        self.unstage()
        self._staged = engine
        return engine

    def unstage(self) -> None:
        """Close the staged engine, if there is one."""
        engine, self._staged = self._staged, None
        if engine is not None:
            engine.close()

    def install(self, engine: Backend) -> None:
        """Answer with ``engine`` from the next frame on; one that was there is closed.

        Raises:
            ContractError: It is another model, or lacks a head; nothing has changed then.
        """
        ours, theirs = self.contract, engine.contract
        if ours.weights_sha256 != theirs.weights_sha256 or ours.outputs != theirs.outputs:
            raise ContractError(
                f"engine: expected the model {ours.weights_sha256[:12]} with {list(ours.outputs)},"
                f" got {theirs.weights_sha256[:12]} with {list(theirs.outputs)}; build it again"
            )
        engine.set_lens(self._chosen_lens)
        before, self._engine = self._engine, engine
        if self._staged is engine:
            self._staged = None
        self.failure, self.unfit_size = "", None
        self._describe(engine)
        if before is not None:
            before.close()

    def infer(
        self,
        image: np.ndarray,
        heads: Collection[str] | None = None,
        timings_ms: MutableMapping[str, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """Answer one image; see ``Backend.infer``."""
        self.last_heads = tuple(self.contract.outputs if heads is None else heads)
        engine = self._engine
        if engine is not None and self._fits(engine, image):
            try:
                answer = engine.infer(image, heads, timings_ms)
            except InferenceError as error:
                self._drop(error)
            else:
                self.last_size = (image.shape[0], image.shape[1])
                return answer
        answer = self._standby.infer(image, heads, timings_ms)
        self.last_size = (image.shape[0], image.shape[1])
        return answer

    def set_lens(self, lens: LensConfig | None) -> None:
        """Tell both, and every engine that comes; see ``Backend.set_lens``."""
        self._standby.set_lens(lens)
        if self._engine is not None:
            self._engine.set_lens(lens)
        self._chosen_lens = lens

    def self_test(self) -> dict[str, Any]:
        """The golden sample through the standby; an engine has its own, tested before it comes."""
        return self._standby.self_test()

    def warm_up(self, height: int, width: int, heads: Collection[str] | None = None) -> float:
        """Warm up both; the duration is that of the one in force."""
        duration_ms = self._standby.warm_up(height, width, heads)
        if self._engine is not None and self._engine.takes(height, width):
            try:
                return self._engine.warm_up(height, width, heads)
            except InferenceError as error:
                self._drop(error)
        return duration_ms

    def takes(self, height: int, width: int) -> bool:
        """Whether the standby takes this size."""
        return self._standby.takes(height, width)

    def _infer(self, image: np.ndarray, heads: tuple[str, ...]) -> dict[str, np.ndarray]:
        return self._standby.infer(image, heads)

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        with contextlib.ExitStack() as steps:  # all of them, whatever one of them raises
            steps.callback(self._standby.close)
            if engine is not None:
                steps.callback(engine.close)
            steps.callback(self.unstage)

    def _fits(self, engine: Backend, image: np.ndarray) -> bool:
        """Whether the engine takes this image; notes sizes that keep not fitting.

        One odd image among others is no reason to build another engine.
        """
        height, width = (int(side) for side in image.shape[:2])
        fits = engine.takes(height, width)
        same = self.last_size == (height, width)
        self._unfit_in_a_row = 0 if fits else (self._unfit_in_a_row + 1 if same else 1)
        if fits:
            self.unfit_size = None
        elif self._unfit_in_a_row == _UNFIT_IN_A_ROW:
            self.unfit_size = (height, width)
            self.changed.set()
        return fits

    def _drop(self, error: InferenceError) -> None:
        engine, self._engine = self._engine, None
        self.failure = str(error)
        self._describe(self._standby)
        self.changed.set()
        if engine is not None:
            engine.close()

    def _describe(self, backend: Backend) -> None:
        self.runtime, self.device = backend.runtime, backend.device
