"""A folder as one archive in parts of limited size, with a manifest that a shell can read."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ddfd_trt.bundle.plan import COMPRESSIONS, BundleError

MANIFEST = "manifest.txt"
FORMAT = "1"
PREFIX = "bundle.tar."
XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 28}]
"""TensorRT's library holds every kernel anew for each kind of GPU, far apart: xz's usual 8 MiB see
few of the repetitions."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Part:
    """One part's file name, size and digest."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What belongs together.

    Attributes:
        parts: In the order in which they are joined.
        size: Bytes of the whole archive.
        sha256: Digest of the whole archive.
        facts: What is in it: kind, versions, bytes when unpacked; values of one line.
    """

    parts: tuple[Part, ...]
    size: int
    sha256: str
    facts: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """One line per entry, words apart by one space."""
        lines = [f"format {FORMAT}"]
        lines += [f"fact {key} {value}" for key, value in self.facts.items()]
        lines.append(f"whole {self.sha256} {self.size}")
        lines += [f"part {part.sha256} {part.size} {part.name}" for part in self.parts]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str, where: str = MANIFEST) -> Manifest:
        """Read it back.

        Raises:
            BundleError: It is not such a text.
        """
        facts: dict[str, str] = {}
        parts, whole, version = [], None, ""
        try:
            for line in text.splitlines():
                key, rest = line.split(" ", 1)
                if key == "format":
                    version = rest
                elif key == "fact":
                    name, _, facts_value = rest.partition(" ")
                    facts[name] = facts_value
                elif key == "whole":
                    digest, size = rest.split(" ")
                    whole = (digest, int(size))
                elif key == "part":
                    digest, size, name = rest.split(" ")
                    parts.append(Part(name, int(size), digest))
                else:
                    raise ValueError(f"the line {line!r}")
            if version != FORMAT or whole is None or not parts:
                raise ValueError(f"format {version or '(none)'} and {len(parts)} parts")
        except ValueError as error:
            raise BundleError(
                f"{where}: expected a manifest of format {FORMAT}, got {error}; copy it again"
            ) from error
        return cls(tuple(parts), whole[1], whole[0], facts)


class PartWriter:
    """A file to write to that goes into parts of at most ``limit`` bytes."""

    def __init__(self, folder: Path, limit: int, suffix: str) -> None:
        self._folder, self._limit, self._suffix = folder, limit, suffix
        self._whole = hashlib.sha256()
        self._parts: list[Part] = []
        self._file: IO[bytes] | None = None
        self._name, self._size, self._digest = "", 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        """Append bytes; a new part begins where one is full."""
        rest = memoryview(data).cast("B")
        count = len(rest)
        self._whole.update(rest)
        while len(rest):
            if self._file is None:
                self._name = f"{PREFIX}{self._suffix}.{len(self._parts):03d}"
                self._size = 0
                self._digest = hashlib.sha256()
                self._file = (self._folder / self._name).open("wb")
            piece = rest[: self._limit - self._size]
            self._file.write(piece)
            self._digest.update(piece)
            self._size += len(piece)
            rest = rest[len(piece) :]
            if self._size == self._limit:
                self._end_part()
        return count

    def flush(self) -> None:
        """Nothing: parts are flushed when they end."""

    def _end_part(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._parts.append(Part(self._name, self._size, self._digest.hexdigest()))

    def close(self, facts: dict[str, str]) -> Manifest:
        """End the last part."""
        self._end_part()
        size = sum(part.size for part in self._parts)
        return Manifest(tuple(self._parts), size, self._whole.hexdigest(), facts)


def pack(
    tree: Path,
    out: Path,
    limit: int,
    facts: dict[str, str],
    on_bytes: Callable[[int], None] = lambda count: None,  # noqa: ARG005
    compression: str = "gzip",
) -> Manifest:
    """Write a folder as parts and manifest; equal folders give equal parts.

    Args:
        tree: The folder; its content goes to the archive's top.
        out: Where the parts go; those of an earlier bundle there are deleted.
        limit: Largest part in bytes.
        facts: For the manifest, which gets ``archive`` besides: how it is compressed.
        on_bytes: Told how many bytes of the files were read.
        compression: ``gzip``, or ``xz`` with a dictionary of 256 MiB: smaller, and slower to make
            (about 3 GB of memory; 0.3 GB to unpack).
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)  # parts without it are no bundle
    for old in out.glob(f"{PREFIX}*"):
        old.unlink()
    writer = PartWriter(out, limit, COMPRESSIONS[compression])
    with (
        _compressor(writer, compression) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(tree.rglob("*")):
            item = archive.gettarinfo(path, path.relative_to(tree).as_posix())
            item.uid = item.gid = item.mtime = 0
            item.uname = item.gname = ""
            item.mode = 0o755 if item.isdir() or item.mode & 0o100 else 0o644
            if item.isreg():
                with path.open("rb") as file:
                    archive.addfile(item, file)
                on_bytes(item.size)
            else:
                archive.addfile(item)
    manifest = writer.close(facts | {"archive": compression})
    (out / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return manifest


def _compressor(writer: PartWriter, compression: str) -> IO[bytes]:
    if compression == "xz":
        return lzma.LZMAFile(writer, "wb", filters=XZ_FILTERS)  # type: ignore[arg-type,return-value]
    return gzip.GzipFile("", "wb", compresslevel=6, fileobj=writer, mtime=0)  # type: ignore[arg-type,return-value]


def check_parts(folder: Path) -> Manifest:
    """Compare parts with their manifest.

    Raises:
        BundleError: A part is missing, of another size or damaged; the message names it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{path}: expected the bundle's manifest, got none; copy it there")
    manifest = Manifest.from_text(path.read_text(encoding="utf-8"), str(path))
    whole = hashlib.sha256()
    for part in manifest.parts:
        file_path = folder / part.name
        size = file_path.stat().st_size if file_path.is_file() else None
        if size != part.size:
            got = "none" if size is None else f"{size} bytes"
            raise BundleError(
                f"{file_path}: expected {part.size} bytes, got {got}; copy this part again"
            )
        digest = hashlib.sha256()
        with file_path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                whole.update(chunk)
        if digest.hexdigest() != part.sha256:
            raise BundleError(
                f"{file_path}: expected sha256 {part.sha256}, got {digest.hexdigest()}; copy this "
                "part again"
            )
    if whole.hexdigest() != manifest.sha256:
        raise BundleError(
            f"{path}: expected the parts in the order of sha256 {manifest.sha256}, got "
            f"{whole.hexdigest()}; copy the manifest again"
        )
    return manifest


def folder_bytes(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy_scripts(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copy scripts, executable."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
        (target / name).chmod(0o755)
