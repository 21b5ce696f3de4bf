"""Running programs, and steps whose results are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ddfd_trt.bundle.plan import BundleError

_DONE = ".complete"
_TAIL = 12
Tell = Callable[[str], None]
"""Receives one line about what is being done."""


def run(
    command: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    advice: str,
) -> str:
    """The standard output of a program.

    Args:
        command: Program and arguments.
        environ: Variables on top of this process's.
        folder: Where it runs.
        advice: What to do when it fails, for the message.

    Raises:
        BundleError: It is not installed or ended with an error.
    """
    words = [str(word) for word in command]
    name = Path(words[0]).name
    if shutil.which(words[0]) is None:
        raise BundleError(f"{name}: expected this program, got none; {advice}")
    done = subprocess.run(
        words, env=os.environ | dict(environ or {}), cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        lines = [line for line in said if not line.startswith("WARNING")][-_TAIL:]
        raise BundleError(
            f"{' '.join(words)[:300]}: expected exit status 0, got {done.returncode}; {advice}\n"
            + "\n".join(lines)
        )
    return done.stdout


def stage(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that ``make`` fills once; what an interrupted run left is made anew.

    Args:
        folder: Kept result; its name says everything that it depends on.
        make: Called with an empty folder that becomes ``folder`` when it returns.
    """
    if (folder / _DONE).is_file():
        return folder
    partial = folder.with_name(folder.name + ".partial")
    for rest in (folder, partial):
        if rest.exists():
            shutil.rmtree(rest)
    partial.mkdir(parents=True)
    make(partial)
    (partial / _DONE).touch()
    partial.rename(folder)
    return folder


def digest(*values: object) -> str:
    """A short name for everything that a step depends on."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]
