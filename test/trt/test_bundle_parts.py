"""Parts of a bundle: written, joined by the shell, and refused when they are not whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from ddfd_trt.bundle import parts as parts_module
from ddfd_trt.bundle.cli import main, refuse_foreign_folder
from ddfd_trt.bundle.parts import MANIFEST, XZ_FILTERS, Manifest, check_parts, copy_scripts, pack
from ddfd_trt.bundle.plan import BundleError
from ddfd_trt.bundle.tree import SCRIPTS

LIMIT = 1000


def make_tree(folder):
    """A tree that compression does not make small, with a link and a program."""
    (folder / "lib" / "deep").mkdir(parents=True)
    noise = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(150))
    (folder / "lib" / "noise.bin").write_bytes(noise)
    (folder / "lib" / "deep" / "empty").touch()
    (folder / "lib" / "link").symlink_to("noise.bin")
    (folder / "run.sh").write_text('#!/bin/sh\necho "inner $1"\nexit 7\n')
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture
def bundle(tmp_path):
    """A folder as it is carried to another machine."""
    out = tmp_path / "out"
    pack(make_tree(tmp_path / "tree"), out, LIMIT, {"kind": "run", "unpacked_bytes": "4800"})
    copy_scripts(SCRIPTS, out, ("join.sh", "start.sh"))
    (out / "start.sh").rename(out / "run.sh")
    return out


def join(bundle, *arguments, **environ):
    return subprocess.run(
        ["sh", str(bundle / "join.sh"), *map(str, arguments)],
        env={"PATH": os.environ["PATH"]} | environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


def parts_of(bundle):
    return sorted(bundle.glob("bundle.tar.*"))


def test_parts_are_limited_and_make_one_archive(bundle, tmp_path):
    parts = parts_of(bundle)
    assert len(parts) > 3
    assert {part.stat().st_size for part in parts[:-1]} == {LIMIT}
    assert 0 < parts[-1].stat().st_size <= LIMIT
    whole = b"".join(part.read_bytes() for part in parts)
    manifest = Manifest.from_text((bundle / MANIFEST).read_text())
    assert manifest.sha256 == hashlib.sha256(whole).hexdigest()
    assert [part.sha256 for part in manifest.parts] == [
        hashlib.sha256(part.read_bytes()).hexdigest() for part in parts
    ]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(whole))) as archive:
        noise = archive.extractfile("lib/noise.bin")
        assert noise.read() == (tmp_path / "tree" / "lib" / "noise.bin").read_bytes()
        assert archive.getmember("run.sh").mode == 0o755
        assert archive.getmember("lib/link").linkname == "noise.bin"


def test_equal_folders_give_equal_parts(bundle, tmp_path):
    again = make_tree(tmp_path / "elsewhere")
    os.utime(again / "run.sh", (1, 1))
    pack(again, tmp_path / "second", LIMIT, {})
    first, second = ([p.read_bytes() for p in parts_of(f)] for f in (bundle, tmp_path / "second"))
    assert first == second


def test_a_smaller_bundle_leaves_no_part_of_the_larger_one(bundle, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    (small / "run.sh").touch()
    pack(small, bundle, LIMIT, {})
    assert len(parts_of(bundle)) == 1
    check_parts(bundle)


def test_join_unpacks_once(bundle, tmp_path):
    target = tmp_path / "some where"
    first = join(bundle, target)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(target)
    assert (target / "lib" / "link").read_bytes() == (
        tmp_path / "tree" / "lib" / "noise.bin"
    ).read_bytes()
    assert (target / "lib" / "deep" / "empty").is_file()
    for part in parts_of(bundle):
        part.unlink()
    second = join(bundle, target)  # nothing is read again
    assert (second.returncode, second.stdout.strip()) == (0, str(target))


@pytest.fixture
def small_bundle(tmp_path, monkeypatch):
    """Compressed by xz; with a small dictionary, since memory is taken for all of it."""
    small = [XZ_FILTERS[0] | {"dict_size": 1 << 16}]
    monkeypatch.setattr(parts_module, "XZ_FILTERS", small)
    out = tmp_path / "out"
    facts = {"kind": "run", "unpacked_bytes": "4800"}
    pack(make_tree(tmp_path / "tree"), out, LIMIT, facts, compression="xz")
    copy_scripts(SCRIPTS, out, ("join.sh",))
    return out


def programs(folder, *more):
    """A folder for PATH with what join.sh needs whatever the compression, and ``more``."""
    folder.mkdir()
    needed = "sh awk cat df dirname mkdir mv rm sha256sum tar wc"
    for name in (*needed.split(), *more):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def test_xz_is_unpacked_by_what_is_there(small_bundle, tmp_path):
    names = [part.name for part in parts_of(small_bundle)]
    assert names[0] == "bundle.tar.xz.000"
    whole = b"".join(part.read_bytes() for part in parts_of(small_bundle))
    assert lzma.decompress(whole).startswith(b"lib")  # the archive's first name
    noise = (tmp_path / "tree" / "lib" / "noise.bin").read_bytes()
    check_parts(small_bundle)

    python = programs(tmp_path / "python")
    (python / "python3").symlink_to(sys.executable)
    programs(tmp_path / "xz", "xz")
    for name in ("python", "xz"):
        run = join(small_bundle, tmp_path / f"by {name}", PATH=str(tmp_path / name))
        assert run.returncode == 0, run.stderr
        assert (tmp_path / f"by {name}" / "lib" / "noise.bin").read_bytes() == noise

    run = join(small_bundle, tmp_path / "by none", PATH=str(programs(tmp_path / "none", "gzip")))
    assert run.returncode == 2
    assert "xz or a python3 with lzma" in run.stderr
    assert not (tmp_path / "by none").exists()


def test_a_bundle_replaces_one_of_another_compression(small_bundle, tmp_path):
    pack(tmp_path / "tree", small_bundle, LIMIT, {})
    assert {part.name[:14] for part in parts_of(small_bundle)} == {"bundle.tar.gz."}
    assert join(small_bundle, tmp_path / "target").returncode == 0


def test_join_takes_a_folder_from_the_environment(bundle, tmp_path):
    assert join(bundle, DDFD_BUNDLE_DIR=str(tmp_path / "a")).stdout.strip() == str(tmp_path / "a")
    found = join(bundle, TMPDIR=str(tmp_path)).stdout.strip()
    assert found.startswith(str(tmp_path / "ddfd-bundle-"))


def test_join_does_not_touch_a_folder_that_is_not_its_own(bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    run = join(bundle, tmp_path / "mine")
    assert run.returncode == 2
    assert "is not this bundle" in run.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_join_begins_anew_after_an_interruption(bundle, tmp_path):
    (tmp_path / "t.partial").mkdir()
    (tmp_path / "t.partial" / "rest").touch()
    run = join(bundle, tmp_path / "t")
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "t" / "rest").exists()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(first, second):
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


def edit(path, change):
    path.write_text(change(path.read_text()))


def reordered(text):
    lines = text.splitlines()
    at = [number for number, line in enumerate(lines) if line.startswith("part ")][:2]
    lines[at[0]], lines[at[1]] = lines[at[1]], lines[at[0]]
    return "\n".join(lines) + "\n"


DAMAGES = {
    "missing part": (lambda b: parts_of(b)[1].unlink(), "bundle.tar.gz.001: expected 1000 bytes"),
    "short part": (
        lambda b: parts_of(b)[2].write_bytes(b"x"), "bundle.tar.gz.002: expected 1000 bytes, got 1"
    ),
    "flipped bit": (lambda b: flip(parts_of(b)[1]), "bundle.tar.gz.001: expected sha256"),
    "swapped parts": (lambda b: swap(*parts_of(b)[:2]), "bundle.tar.gz.000: expected sha256"),
    "manifest in another order": (lambda b: edit(b / MANIFEST, reordered), "in the order of"),
    "no manifest": (lambda b: (b / MANIFEST).unlink(), "manifest.txt"),
    "empty manifest": (lambda b: (b / MANIFEST).write_text(""), "format 1"),
    "cut manifest": (
        lambda b: edit(b / MANIFEST, lambda text: text[: text.index("part ")]), "copy it again"
    ),
    "other format": (
        lambda b: edit(b / MANIFEST, lambda text: text.replace("format 1", "format 2")), "format 1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_by_name_here_and_there(bundle, tmp_path, name):
    damage, message = DAMAGES[name]
    check_parts(bundle)  # whole so far
    damage(bundle)
    with pytest.raises(BundleError, match=message):
        check_parts(bundle)
    run = join(bundle, tmp_path / "target")
    assert run.returncode == 2
    assert message in run.stderr
    assert not (tmp_path / "target").exists()


def test_join_refuses_a_full_disk(bundle, tmp_path):
    edit(bundle / MANIFEST, lambda text: text.replace("bytes 4800", f"bytes {10**15}"))
    run = join(bundle, tmp_path / "target")
    assert run.returncode == 2
    assert "KiB free" in run.stderr


def test_the_outer_script_joins_and_runs(bundle, tmp_path):
    command = ["sh", str(bundle / "run.sh"), "an argument"]
    environ = {"PATH": os.environ["PATH"], "DDFD_BUNDLE_DIR": str(tmp_path / "tree here")}
    for _ in range(2):
        run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (7, "inner an argument\n"), run.stderr
    flip(parts_of(bundle)[0])
    environ["DDFD_BUNDLE_DIR"] += "2"
    run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")


def test_the_command_checks_parts(bundle, capsys):
    assert main(["--check-parts", "--out", str(bundle)]) == 0
    flip(parts_of(bundle)[0])
    assert main(["--check-parts", "--out", str(bundle)]) == 2
    assert "copy this part again" in " ".join(capsys.readouterr().err.split())


def test_nothing_is_written_between_other_files(bundle, tmp_path):
    refuse_foreign_folder(bundle)
    refuse_foreign_folder(tmp_path / "not yet there")
    (bundle / "thesis.tex").touch()
    with pytest.raises(BundleError, match=r"thesis\.tex"):
        refuse_foreign_folder(bundle)
    with pytest.raises(BundleError, match="got a file"):
        refuse_foreign_folder(bundle / "thesis.tex")
