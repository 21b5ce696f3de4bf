"""Where engines of a model lie, and which of them fits this machine."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference.engine_manifest import (
    EngineManifest,
    GpuMachine,
    ShapeRange,
    file_sha256,
    read_manifest,
)

FOLDER_VARIABLE = "DDFD_ENGINES"
"""Environment variable that names the folder for engines which the node builds."""


@dataclass(frozen=True)
class EngineWish:
    """What an engine is wanted for.

    Attributes:
        onnx_path: The model.
        machine: GPU and TensorRT.
        precision: One of ``engine_manifest.PRECISIONS``.
        height: Height in pixels of the images, padded to what the network needs.
        width: Width, likewise.
        heads: Heads it must have.
        part: Whether it is to have no other heads, beside an engine that has them all.
    """

    onnx_path: Path
    machine: GpuMachine
    precision: str
    height: int
    width: int
    heads: tuple[str, ...]
    part: bool = False


def default_folder() -> Path:
    """The folder for engines: ``$DDFD_ENGINES``, or ``ddfd_ros/engines`` in the user's cache."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ddfd_ros" / "engines"


def engine_name(
    onnx_path: Path, shapes: ShapeRange, precision: str, heads: Collection[str], all_heads: int
) -> str:
    """File name of an engine, such as ``ddfd-lite-640x480-fp16.engine``.

    Args:
        onnx_path: The model it is built from.
        shapes: Sizes it takes.
        precision: Its precision.
        heads: Its heads; named in the file name where they are fewer than ``all_heads``.
        all_heads: How many heads the model has.
    """
    parts = [onnx_path.stem, str(shapes).replace(" ", "-"), precision]
    if len(heads) < all_heads:
        parts.append("+".join(head.partition("_")[0] for head in heads))
    return "-".join(parts) + ".engine"


def find_engine(
    wish: EngineWish, folders: Iterable[Path], refused: Collection[str] = ()
) -> tuple[Path | None, list[str]]:
    """The first engine that fits, or None, and why those passed over do not fit.

    Damaged engines and engines of another machine or model are passed over with their reason;
    those of another precision, size or without a wanted head silently.

    Args:
        wish: What it is wanted for.
        folders: Where to look, in this order.
        refused: Digests of engines that must not serve; passed over silently.
    """
    digest, reasons = file_sha256(wish.onnx_path), []
    for path in _candidates(wish.onnx_path, folders):
        try:
            manifest = read_manifest(path, verify=False)
            if manifest.engine_sha256 in refused or not _serves(manifest, wish):
                continue
            if mismatches := manifest.mismatches(wish.machine, digest):
                reasons.append(f"{path.name}: {'; '.join(mismatches)}")
                continue
            read_manifest(path)  # now its bytes too
        except (DdfdError, OSError) as error:
            reasons.append(f"{path.name}: {error}")
            continue
        return path, reasons
    return None, reasons


def _candidates(onnx_path: Path, folders: Iterable[Path]) -> Iterable[Path]:
    seen = set()
    for folder in folders:
        if not folder.is_dir() or folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        yield from sorted(folder.glob(f"{glob.escape(onnx_path.stem)}-*.engine"))


def _serves(manifest: EngineManifest, wish: EngineWish) -> bool:
    contract: ModelContract = manifest.contract
    return (
        manifest.precision == wish.precision
        and manifest.onnx_file == wish.onnx_path.name
        and set(contract.outputs) >= set(wish.heads)
        and manifest.shapes.contains(wish.height, wish.width)
    )
