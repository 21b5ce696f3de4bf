"""Sees to it that a TensorRT engine serves: builds, swaps in, and tries again after failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfd_ros.core.errors import DdfdError, InferenceError, ModelLoadError
from ddfd_ros.core.worker import LatestWorker
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import Backend
from ddfd_ros.inference.engine_manifest import read_manifest
from ddfd_ros.inference.engine_store import EngineWish, find_engine
from ddfd_ros.inference.switching import SwitchingBackend
from ddfd_ros.ros.engine_build import BuildStopped, build_engine, build_lock
from ddfd_ros.ros.engine_parts import PartWatch
from ddfd_ros.ros.engine_plan import EnginePlan, sized

if TYPE_CHECKING:
    from ddfd_ros.ros.model import LoadedModel

_LONGEST_RETRY_S = 600.0
_POLL_S = 0.2
_GRACE_S = 5.0


@dataclass(frozen=True)
class EngineStatus:
    """What the diagnostics say about the engine.

    Attributes:
        degraded: What serves instead of an engine, and why; empty when an engine serves.
        progress: What is being done about it.
        sha256: Digest of the engine file in force.
    """

    degraded: str = ""
    progress: str = ""
    sha256: str = ""


class EngineKeeper:
    """A thread beside the worker; it touches the backend only through calls into the worker.

    Args:
        plan: What is to serve.
        backend: Where engines are installed.
        call: Runs a function in the worker's thread, between two frames, and returns its result.
        say: Writes a line to the node's log: level (``info`` or ``error``) and text.
    """

    def __init__(
        self,
        plan: EnginePlan,
        backend: SwitchingBackend,
        call: Callable[[Callable[[Any], Any]], Any],
        say: Callable[[str, str], None],
    ) -> None:
        self.status = EngineStatus()
        self._plan, self._backend, self._call, self._say = plan, backend, call, say
        self._pause_s = plan.retry_s
        self._next_try = 0.0
        self._given_up: set[tuple[int, int]] = set()
        self._bad: set[str] = set()  # digests of engines that load but must not serve
        self._built: set[tuple[int, int]] = set()  # sizes built for, no engine of which served yet
        self._since = self._served_since = time.monotonic()
        self._path = plan.engine_path
        self._parts = PartWatch()
        self._sha256 = "" if plan.engine_path is None else self._digest(plan.engine_path)
        self._reason = plan.reason
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ddfd-engine", daemon=True)
        self._tell("")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_end(self) -> None:
        """End soon, and with it a build that runs; calls into the worker may still come."""
        self._stop.set()
        self._backend.changed.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether the thread has ended within ``timeout_s``; call it after ``ask_to_end``."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._backend.changed.wait(_POLL_S)
            self._backend.changed.clear()
            if self._stop.is_set():
                return
            try:
                self._look()
            except BuildStopped:
                return
            except InferenceError:  # the worker has ended, and with it the node's work
                self._stop.wait(_POLL_S)

    def _look(self) -> None:
        """Do what there is to do now."""
        wish = self._plan.wish
        if wish is None:
            return
        if self._backend.failure:
            self._failed(self._backend.failure)
        size = self._backend.unfit_size
        if size is None and self._backend.engine is not None:
            if self.status.degraded:  # images come that fit the engine again
                self._tell("")
            self._provide_part()
            return
        size = size or self._backend.last_size
        if size is not None:
            wish = sized(wish, size, self._backend.contract)
        elif time.monotonic() - self._since < _GRACE_S:
            return  # the camera's first image tells the size
        if (wish.height, wish.width) in self._given_up or time.monotonic() < self._next_try:
            return
        self._provide(wish)

    def _provide(self, wish: EngineWish) -> None:
        """Find or build an engine for ``wish`` and swap it in."""
        try:
            path = self._find_or_build(wish)
        except (DdfdError, OSError) as error:  # also a folder that cannot be written
            self._give_up(wish, error)
            return
        try:
            self._swap_in(path, wish)
        except ModelLoadError as error:  # wrong or refused: build one, but not one after another
            self._bad.add(self._digest(path))
            self._reason = str(error)
            if (wish.height, wish.width) in self._built or not self._plan.build:
                self._give_up(wish, error)
        except (DdfdError, OSError) as error:
            if not self._stop.is_set():
                self._failed(str(error))

    def _provide_part(self) -> None:
        """Where some heads have had no subscriber for a while, build an engine without them."""
        part, path = self._parts.wanted(self._backend), self._path
        if part is None or path is None or not self._plan.build:
            return
        try:
            manifest = read_manifest(path, verify=False)  # its files may be gone by now
            height, width = manifest.shapes.optimum
            if self._plan.wish is None or not manifest.shapes.is_fixed:
                return
            wish = replace(self._plan.wish, height=height, width=width, heads=part, part=True)
            self._tell(f"building an engine for {', '.join(part)} alone")
            with build_lock(path.parent, self._stop.is_set):
                build_engine(
                    wish, path.parent, self._plan.calibration, self._stop.is_set, lambda line: None
                )
            self._swap_in(path, wish)  # opens the smaller one beside it
        except (DdfdError, OSError) as error:
            self._say("error", f"TensorRT: no engine for {', '.join(part)} alone: {error}")
            self._tell("")

    def _give_up(self, wish: EngineWish, error: Exception) -> None:
        """Not again for this size, until the node is configured anew."""
        self._given_up.add((wish.height, wish.width))
        self._reason = f"no engine for {wish.width}x{wish.height}: {error}"
        self._say("error", f"TensorRT: {self._reason}")
        self._tell("")

    def _find(self, wish: EngineWish) -> tuple[Path | None, list[str]]:
        return find_engine(wish, self._plan.folders, self._bad)

    def _find_or_build(self, wish: EngineWish) -> Path:
        plan = self._plan
        path, reasons = self._find(wish)
        if path is not None:
            return path
        if reasons:
            self._reason = "; ".join(reasons)
        elif wish != plan.wish:
            self._reason = f"no engine for images of {wish.width}x{wish.height} yet"
        if not plan.build:
            raise ModelLoadError(self._reason or "expected an engine, and none may be built")
        self._say(
            "info", f"TensorRT: building an engine, {self._backend.runtime} serves meanwhile"
        )
        start = time.monotonic()
        self._tell("building the engine")
        with build_lock(plan.folders[-1], self._stop.is_set):
            path, _ = self._find(wish)  # another node may have been faster
            if path is None:
                path = build_engine(
                    wish,
                    plan.folders[-1],
                    plan.calibration,
                    self._stop.is_set,
                    lambda line: self._tell(f"{line} ({time.monotonic() - start:.0f} s)"),
                )
                self._built.add((wish.height, wish.width))
        self._say("info", f"TensorRT: {path.name} ready after {time.monotonic() - start:.0f} s")
        return path

    def _swap_in(self, path: Path, wish: EngineWish) -> None:
        """Open, check and warm up an engine, step by step so that frames pass in between."""
        self._tell("loading the engine")
        backend = self._backend
        engine: Backend = self._call(lambda _: backend.stage(open_backend(path, "tensorrt")))
        try:
            self._call(lambda _: engine.self_test())
            heads = engine.contract.outputs
            if "depth_m" in heads:
                self._call(lambda _: engine.warm_up(wish.height, wish.width, ("depth_m",)))
            self._call(lambda _: engine.warm_up(wish.height, wish.width, heads))
            self._call(lambda _: backend.install(engine))
        except BaseException:
            self._call(lambda _: backend.unstage())
            raise
        self._built.discard((wish.height, wish.width))
        self._path, self._served_since = path, time.monotonic()
        self._sha256, self._reason = self._digest(path), ""
        self._say("info", f"TensorRT: {path.name} serves from now on ({engine.device})")
        self._tell("")

    def _failed(self, reason: str) -> None:
        """The GPU failed: wait before the next try, longer each time, unless it served long."""
        if self._backend.failure and time.monotonic() - self._served_since > _LONGEST_RETRY_S:
            self._pause_s = self._plan.retry_s
        self._backend.failure = ""
        if self._backend.engine is None:  # not where one for another size could not be loaded
            self._sha256 = ""
        self._next_try = time.monotonic() + self._pause_s
        self._reason = f"{reason} (next try in {self._pause_s:g} s)"
        self._pause_s = min(2 * self._pause_s, _LONGEST_RETRY_S)
        self._say("error", f"TensorRT: {self._reason}; {self._backend.runtime} serves meanwhile")
        self._tell("")

    def _tell(self, progress: str) -> None:
        serves = self._backend.engine is not None and self._backend.unfit_size is None
        degraded = (
            ""
            if serves or not self._reason
            else (f"{self._backend.standby.runtime} serves instead of TensorRT: {self._reason}")
        )
        self.status = EngineStatus(degraded, progress, self._sha256 if serves else "")

    def _digest(self, path: Path) -> str:
        try:
            return read_manifest(path, verify=False).engine_sha256
        except DdfdError:
            return ""


def keep_engine(
    model: LoadedModel, worker: LatestWorker[Any, Any, Any], log: Any
) -> EngineKeeper | None:
    """A started keeper for a model whose plan wants an engine or says why there is none.

    Args:
        model: The loaded model.
        worker: The worker that owns it.
        log: The node's logger.
    """
    if model.switch is None:
        return None

    def say(level: str, text: str) -> None:
        # rclpy wants one place in the code for each severity.
        if level == "error":
            log.error(text)
        else:
            log.info(text)

    keeper = EngineKeeper(model.plan, model.switch, worker.call, say)
    keeper.start()
    return keeper
