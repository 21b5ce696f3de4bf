"""What goes into a bundle: packages, Python, the project's code, and where they come from."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ddfd_trt.bundle.check import foreign_files
from ddfd_trt.bundle.cli import main
from ddfd_trt.bundle.common import stage
from ddfd_trt.bundle.debian import MirrorPackages, closure, stanzas, unpack_python
from ddfd_trt.bundle.plan import BundleError, BundlePlan
from ddfd_trt.bundle.python_tree import PythonSource, copy_python, inspect_python
from ddfd_trt.bundle.tree import copy_project, find_python
from ddfd_trt.bundle.wheels import own_constraints, project_of, unpack

ROOT = Path(__file__).resolve().parents[2]
HERE = (sys.version_info[0], sys.version_info[1])


def write_wheel(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_wheels_are_unpacked_without_what_is_not_needed(tmp_path):
    wheel = write_wheel(tmp_path / "Some_Thing-1-py3-none-any.whl", {
        "thing/__init__.py": "x = 1", "thing/tests/test_a.py": "", "thing/a.pyi": "",
        "thing/testing/__init__.py": "", "thing/latest/b.py": "", "thing-1.dist-info/LICENSE": "l",
        "thing-1.data/scripts/run": "", "thing-1.data/purelib/thing/more.py": "",
        "thing/big.so": "z" * 100,
    })  # fmt: skip
    told = []
    unpack([wheel], tmp_path / "to", keep=lambda name: "big" not in name, on_bytes=told.append)
    found = {p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*.*")
             if p.is_file()} | {"thing-1.dist-info/LICENSE"}  # fmt: skip
    assert found == {
        "thing/__init__.py", "thing/testing/__init__.py", "thing/latest/b.py",
        "thing-1.dist-info/LICENSE", "thing/more.py",
    }  # fmt: skip
    assert (tmp_path / "to" / "thing-1.dist-info" / "LICENSE").read_text() == "l"
    assert sum(told) == len("x = 1") + len("l")
    assert project_of(wheel) == "some-thing"


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py"])
def test_a_wheel_cannot_write_outside(tmp_path, name):
    wheel = write_wheel(tmp_path / "a-1-py3-none-any.whl", {name: ""})
    with pytest.raises(BundleError, match="do not use it"):
        unpack([wheel], tmp_path / "to")


def test_a_damaged_wheel_is_named(tmp_path):
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"PK not really")
    with pytest.raises(BundleError, match=r"a-1.*delete it"):
        unpack([wheel], tmp_path / "to")


def test_a_step_is_done_once_and_anew_after_an_interruption(tmp_path):
    calls = []

    def make(folder):
        calls.append(sorted(path.name for path in folder.iterdir()))
        (folder / "result").touch()
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "step", make)
    assert not (tmp_path / "step").exists()
    for _ in range(2):
        assert (stage(tmp_path / "step", make) / "result").is_file()
    assert calls == [[], []]


def test_pins_hold_but_for_numpy_2(tmp_path):
    lines = own_constraints(ROOT, tmp_path).read_text().splitlines()
    assert any(line.startswith("onnxruntime==") for line in lines)
    assert not any(line.startswith(("numpy==", "onnx==", "opencv")) for line in lines)


def test_another_python_is_refused():
    source = PythonSource(Path(sys.executable))
    with pytest.raises(BundleError, match=rf"expected Python 3\.2 .* got {HERE[0]}\.{HERE[1]}"):
        inspect_python(source, (3, 2))
    with pytest.raises(BundleError, match="--python"):
        inspect_python(PythonSource(Path("/no/such/python")))


@pytest.mark.skipif(not shutil.which("strip"), reason="needs binutils")
def test_a_copied_python_runs_alone(tmp_path):
    folder = tmp_path / "copy"
    version = copy_python(PythonSource(Path(sys.executable)), folder, HERE)
    assert version == ".".join(map(str, sys.version_info[:3]))
    code = "import ctypes, json, lzma, os, ssl, zlib, sys; print(os.__file__, sys.prefix)"
    done = subprocess.run(
        [str(folder / "bin" / f"python{HERE[0]}.{HERE[1]}"), "-c", code],
        env={"PYTHONHOME": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, prefix = done.stdout.split()
    assert Path(where).is_relative_to(folder)
    assert prefix == str(folder)
    assert "site-packages" not in {path.name for path in folder.rglob("*")}


def test_the_project_comes_without_what_cannot_be_read_there(tmp_path):
    model = tmp_path / "more.onnx"
    model.write_bytes(b"m")
    (tmp_path / "more.onnx.contract.json").write_text("{}")
    copy_project(ROOT, tmp_path / "to", (model,))
    models = {path.name for path in (tmp_path / "to" / "models").iterdir()}
    assert {"more.onnx", "more.onnx.contract.json", "ddfd-lite-nyu-8m.onnx"} <= models
    assert not {name for name in models if name.endswith((".pt", ".csv", ".sh"))}
    assert not (tmp_path / "to" / "benchmarks" / "results").exists()


ABSENT = ["torch", "matplotlib", "cv2", "rclpy", "openvino", "yaml", "scipy", "ddfd_demo",
          "ddfd_training"]  # fmt: skip
# As sitecustomize, so that the processes that a program starts do not see them either.
HIDE = f"""
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {ABSENT!r}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""
GPU = ["-m", "benchmarks.gpu", "--size", "96x64", "--precisions", "fp16", "--repeats", "2",
       "--growth-frames", "0"]  # fmt: skip
VERIFY = ["-c", "import sys, ddfd_trt.cli as cli; sys.exit(cli.verify_main())"]
MODEL = "models/ddfd-lite-nyu-8m.onnx"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs Python over a bundle's code, where nothing else can be found than what is in one."""
    folder = tmp_path_factory.mktemp("bare")
    copy_project(ROOT, folder)
    (folder / "hide").mkdir()
    (folder / "hide" / "sitecustomize.py").write_text(HIDE)
    (folder / "a.png").touch()
    paths = (folder / "hide", ROOT / "test" / "standin", folder, folder / "trt")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}

    def start(*arguments):
        return subprocess.run(
            [sys.executable, *arguments], env=environ, cwd=folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    for name in ABSENT:
        assert "ModuleNotFoundError" in start("-c", f"import {name}").stderr
    return start


@pytest.mark.slow
def test_engines_are_built_and_measured_with_what_a_bundle_has(bare, tmp_path):
    done = bare(*GPU, "--models", "ddfd-lite-nyu-8m", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]  # and no plot


def test_comparing_needs_what_a_bundle_has(bare):
    done = bare(*VERIFY, MODEL, MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    # Only pictures need more, and the message says what.
    done = bare(*VERIFY, MODEL, MODEL, "--images", "a.png")
    assert done.returncode == 2
    assert "a.png: expected OpenCV to read it" in done.stderr


def test_without_torch_the_others_are_left_out(bare, tmp_path):
    done = bare("-m", "benchmarks.gpu_others", "--checkpoint", "m.pt")
    assert done.returncode == 0, done.stderr
    assert "No module named 'torch'" in done.stdout
    done = bare(*GPU, "--models", "2hded", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "--only-models" in done.stdout


def test_libraries_from_outside_are_found(tmp_path):
    files = [f"{tmp_path}/lib/libssl.so.3", "/lib/x/libc.so.6", "/usr/lib/libstdc++.so.6",
             "/usr/lib/libstdc++.so.6.0.30", "/lib/libm-2.31.so", "/usr/lib/libssl.so.3",
             f"{tmp_path}2/lib/a.so"]  # fmt: skip
    assert foreign_files(files, tmp_path) == ["/usr/lib/libssl.so.3", f"{tmp_path}2/lib/a.so"]


INDEX = """Package: python3.10
Version: 3.10.9
Depends: libpython3.10 (= 3.10.9), libexpat1 (>= 2.4) | other, mime-support, libc6 (>= 2.35)
Description: an interpreter
 Depends: not-this, a line of the description

Package: libpython3.10
Depends: libfoo
Filename: pool/libpython3.10.deb

Package: libpython3.10-dev
Depends: libpython3.10, libexpat1-dev
Package-Type: deb

Package: libexpat1

Package: libfoo
Pre-Depends: libpython3.10
"""


class Listed:
    def __init__(self, text):
        self.items = {item["Package"]: item for item in stanzas(text)}

    def stanza(self, name):
        return self.items.get(name)


def test_what_a_python_depends_on_is_followed():
    names = ("python3.10", "libpython3.10", "libpython3.10-dev")
    found = [item["Package"] for item in closure(Listed(INDEX), names)]
    assert sorted(found) == ["libexpat1", "libfoo", *sorted(names)[:2], "python3.10"]
    with pytest.raises(BundleError, match="expected libfoo, got no such package"):
        closure(Listed(INDEX.partition("\n\nPackage: libfoo")[0]), names)


def make_deb(folder, name, files):
    """A package with these files."""
    root = folder / f"{name}-root"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: amd64\n"
    control += "Maintainer: nobody <nobody@example.org>\nDescription: test\n"
    (root / "DEBIAN" / "control").write_text(control)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(0o755)
    target = folder / "pool" / f"{name}.deb"
    target.parent.mkdir(exist_ok=True)
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture
def mirror(tmp_path):
    """A mirror with a Python that is a script."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    program = '#!/bin/sh\necho "$PYTHONHOME $LD_LIBRARY_PATH"\n'
    files = {"python3.10": {"usr/bin/python3.10": program}, "libpython3.10": {"usr/lib/a": "a"},
             "libpython3.10-dev": {"usr/include/b": "b"}}  # fmt: skip
    text = ""
    for name, content in files.items():
        data = make_deb(folder, name, content).read_bytes()
        text += f"Package: {name}\nVersion: 1\nFilename: pool/{name}.deb\n"
        text += f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    index = folder / "dists" / "some" / "main" / "binary-amd64"
    index.mkdir(parents=True)
    (index / "Packages.xz").write_bytes(lzma.compress(text.encode()))
    return folder


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
def test_a_python_from_a_mirror_is_unpacked_once(mirror, tmp_path):
    plan = BundlePlan(tmp_path / "out", cache=tmp_path / "cache",
                      debian_mirror=mirror.as_uri() + "/", suite="some")  # fmt: skip
    source = find_python(plan, lambda line: None)
    root = source.executable.parent
    text = subprocess.run([str(source.executable)], capture_output=True, text=True, check=True)
    home, libraries = text.stdout.split()
    assert home == str(root / "usr")
    assert libraries.startswith(str(root / "usr" / "lib"))
    assert (root / "usr" / "include" / "b").read_text() == "b"
    assert not list(root.rglob("*.deb"))
    shutil.rmtree(mirror)
    assert find_python(plan, lambda line: None) == source


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
def test_a_damaged_package_and_a_wrong_mirror_are_refused(mirror, tmp_path):
    packages = MirrorPackages(mirror.as_uri(), "some")
    with (mirror / "pool" / "libpython3.10.deb").open("ab") as file:
        file.write(b"more")
    (tmp_path / "to").mkdir()
    with pytest.raises(BundleError, match="libpython3.10: expected sha256"):
        unpack_python(packages, "3.10", tmp_path / "to", lambda line: None)
    with pytest.raises(BundleError, match="--suite"):
        MirrorPackages(mirror.as_uri(), "other").stanza("python3.10")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "some"}, "expected one of"), ({"part_mb": 0}, "at least 1 MB"),
        ({"project": Path("/nowhere")}, "--project"), ({"models": (Path("/no.onnx"),)}, "model:"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(tmp_path, values, message):
    with pytest.raises(BundleError, match=message):
        BundlePlan(tmp_path, **values)


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--python", str(tmp_path / "python")]) == 2
    assert "name a working Python 3.10" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
