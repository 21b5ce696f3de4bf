"""A Python out of Debian or Ubuntu packages, unpacked into a folder and not installed.

From a mirror that is named, or from whatever this machine's apt is configured with.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ddfd_trt.bundle.common import Tell, run
from ddfd_trt.bundle.plan import BundleError

Stanza = dict[str, str]
_TIMEOUT_S = 120.0
_APT = "run `apt-get update`, or name a mirror with --debian-mirror, or a Python with --python"
_NOT_TAKEN = re.compile(
    # The C library and the compiler's, which are taken from elsewhere; what programs need that a
    # library does not; headers of other libraries.
    r"libc6|libgcc-s1|libstdc\+\+6|media-types|mime-support|tzdata|debconf.*|dpkg|.*:any"
    r"|(?!libpython).*-dev"
)


class PackageSource(Protocol):
    """Where packages come from."""

    def stanza(self, name: str) -> Stanza | None:
        """What the index says about a package; None when it has none of this name."""

    def fetch(self, found: list[Stanza], folder: Path) -> None:
        """Put the packages' files into ``folder``."""


def python_packages(version: str) -> tuple[str, ...]:
    """The packages of a Python, its headers included."""
    return (f"python{version}", f"libpython{version}", f"libpython{version}-dev")


def stanzas(text: str) -> Iterator[Stanza]:
    """The records of an index."""
    for block in text.split("\n\n"):
        fields: Stanza = {}
        for line in block.splitlines():
            key, separator, value = line.partition(":")
            if separator and not line[0].isspace():
                fields[key] = value.strip()
        if fields:
            yield fields


def closure(source: PackageSource, names: tuple[str, ...]) -> list[Stanza]:
    """The packages and all that they depend on, as far as a relocated Python needs it.

    Raises:
        BundleError: The index lacks one.
    """
    found: dict[str, Stanza] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in found or _NOT_TAKEN.fullmatch(name):
            continue
        stanza = source.stanza(name)
        if stanza is None:
            raise BundleError(f"package index: expected {name}, got no such package; {_APT}")
        found[name] = stanza
        for key in ("Pre-Depends", "Depends"):
            for entry in stanza.get(key, "").split(","):
                if words := entry.split():  # "name (>= 1) | other": the first is the usual one
                    waiting.append(words[0])
    return list(found.values())


class AptPackages:
    """What this machine's apt knows."""

    def stanza(self, name: str) -> Stanza | None:
        """See ``PackageSource``."""
        try:
            text = run(["apt-cache", "show", "--no-all-versions", name], advice=_APT)
        except BundleError:
            return None
        return next((item for item in stanzas(text) if item.get("Package") == name), None)

    def fetch(self, found: list[Stanza], folder: Path) -> None:
        """See ``PackageSource``; apt compares them with its signed index."""
        names = [f"{stanza['Package']}={stanza['Version']}" for stanza in found]
        run(["apt-get", "download", *names], folder=folder, advice=_APT)


class MirrorPackages:
    """One suite's main component on a mirror."""

    def __init__(self, mirror: str, suite: str) -> None:
        self._mirror = mirror.rstrip("/")
        self._suite = suite
        self._index: dict[str, Stanza] | None = None

    def _get(self, path: str) -> bytes:
        address = f"{self._mirror}/{path}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
                data: bytes = answer.read()
        except (OSError, ValueError) as error:
            raise BundleError(
                f"mirror: expected {address}, got {error}; check --debian-mirror and --suite"
            ) from error
        return data

    def stanza(self, name: str) -> Stanza | None:
        """See ``PackageSource``."""
        if self._index is None:
            packed = self._get(f"dists/{self._suite}/main/binary-amd64/Packages.xz")
            text = lzma.decompress(packed).decode("utf-8")
            self._index = {item["Package"]: item for item in stanzas(text) if "Package" in item}
        return self._index.get(name)

    def fetch(self, found: list[Stanza], folder: Path) -> None:
        """See ``PackageSource``; compared with the index's digests."""
        for stanza in found:
            self._fetch_one(stanza, folder)

    def _fetch_one(self, stanza: Stanza, folder: Path) -> None:
        data = self._get(stanza["Filename"])
        got = hashlib.sha256(data).hexdigest()
        if got != stanza["SHA256"]:
            raise BundleError(
                f"{stanza['Package']}: expected sha256 {stanza['SHA256']}, got {got}; try again, "
                "or another mirror"
            )
        (folder / Path(stanza["Filename"]).name).write_bytes(data)


def unpack_python(source: PackageSource, version: str, folder: Path, tell: Tell) -> None:
    """Unpack a Python and what it needs into ``folder``.

    Raises:
        BundleError: A package is missing, damaged or cannot be unpacked.
    """
    found = closure(source, python_packages(version))
    tell(f"{len(found)} packages: {', '.join(stanza['Package'] for stanza in found)}")
    source.fetch(found, folder)
    for path in sorted(folder.glob("*.deb")):
        run(["dpkg-deb", "--extract", path, folder], advice="install dpkg, or use --python")
        path.unlink()
