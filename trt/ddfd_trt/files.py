"""Writing files that others may be reading."""

from __future__ import annotations

import uuid
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old content or the new one, never a part.

    Where several write it at once, one of them stays. A write that fails leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two nodes that build share a folder, containers even process numbers.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
