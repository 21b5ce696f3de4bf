"""Building an engine beside the node: ``ddfd-engine`` in a process of its own, at low priority."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.inference.engine_manifest import ShapeRange
from ddfd_ros.inference.engine_store import EngineWish, engine_name

_POLL_S = 0.2
_STOP_S = 3.0
_KEPT_LINES = 5


class BuildStopped(Exception):
    """The node asked the build to end."""


def build_engine(
    wish: EngineWish,
    folder: Path,
    calibration: Path | None,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
) -> Path:
    """Build an engine and return its path.

    Args:
        wish: What it is wanted for.
        folder: Where it goes.
        calibration: Pictures for int8, None without.
        stopped: Asked now and then; True ends the build.
        say: Told each line the build prints.

    Raises:
        ModelLoadError: The build failed, or the engine's answers were not the model's.
        BuildStopped: ``stopped`` said so.
    """
    shapes = ShapeRange.fixed(wish.height, wish.width)
    all_heads = len(wish.heads) + wish.part
    path = folder / engine_name(wish.onnx_path, shapes, wish.precision, wish.heads, all_heads)
    command = [*_politely(), sys.executable, "-m", "ddfd_trt.engine_cli", str(wish.onnx_path)]
    command += [str(path), "--precision", wish.precision, "--size", str(shapes)]
    command += ["--stop-on-eof", *(["--heads", *wish.heads] if wish.part else [])]
    if calibration is not None and wish.precision in ("int8", "best"):
        command += ["--calibrate", str(calibration)]
    lines: list[str] = []

    def read(process: subprocess.Popen[str]) -> None:
        for line in process.stderr or ():
            lines.append(line.strip())
            del lines[:-_KEPT_LINES]
            say(lines[-1])

    # Its own session: Ctrl-C in the terminal is the node's, which then ends the build itself.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",  # names of files may be in any code
        start_new_session=True,
    ) as process:
        reader = threading.Thread(target=read, args=(process,), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                if stopped():
                    raise BuildStopped
                time.sleep(_POLL_S)
        finally:
            _end(process)
        reader.join(_STOP_S)
        if process.returncode:
            said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
            reason = said.removeprefix("error: ") or "; ".join(lines) or "nothing"
            raise ModelLoadError(f"engine build ended with {process.returncode}: {reason}")
    return path


@contextlib.contextmanager
def build_lock(folder: Path, stopped: Callable[[], bool]) -> Iterator[None]:
    """Hold the folder's lock: of several nodes that want an engine, one builds at a time.

    Raises:
        BuildStopped: ``stopped`` said so while another held it.
        ModelLoadError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".building").open("w")
    except OSError as error:
        raise ModelLoadError(
            f"{folder}: expected a folder for engines that can be written, got {error}; set "
            "engine_folder"
        ) from error
    with opened as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stopped():
                    raise BuildStopped from None
                time.sleep(_POLL_S)
        yield


def _politely() -> list[str]:
    """Low priority, so that the CPU that serves meanwhile comes first."""
    return ["nice", "-n", "10"] if shutil.which("nice") else []


def _end(process: subprocess.Popen[str]) -> None:
    """End the build if it runs: by its closed input first, then by force."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
