"""``run.sh``: the environment that a command gets in a bundle."""

from __future__ import annotations

import os
import platform
import subprocess

import pytest

from ddfd_trt import engine_cli
from ddfd_trt.bundle.parts import copy_scripts
from ddfd_trt.bundle.tree import SCRIPTS

# Stands for the bundle's Python: says how it was called, and whether it finds a C++ library.
PYTHON = """#!/bin/sh
if [ "$1" = -S ]; then
    exit ${FAKE_CPP:-0}
fi
echo "arguments: $*"
env
exit 5
"""
BASIC = {"PATH": os.environ["PATH"]}


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "a tree"
    copy_scripts(SCRIPTS, folder, ("run.sh",))
    (folder / "python" / "bin").mkdir(parents=True)
    program = folder / "python" / "bin" / "python3.10"
    program.write_text(PYTHON)
    program.chmod(0o755)
    (folder / "facts.txt").write_text("kind run\nglibc 2.17\n")
    return folder


def run(tree, *arguments, **environ):
    done = subprocess.run(
        ["sh", str(tree / "run.sh"), *arguments], env=BASIC | environ, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    values = dict(line.partition("=")[::2] for line in lines[1:])
    return done, lines[0] if lines else "", values


def test_the_environment_is_the_bundles(tree):
    done, _, values = run(
        tree, "python", "-V", PYTHONPATH="/elsewhere", PYTHONSTARTUP="/x.py", PYTHONHOME="/usr",
        PYTHONWARNINGS="error", LD_LIBRARY_PATH="/driver", CUDA_VISIBLE_DEVICES="1",
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert values["PYTHONHOME"] == f"{tree}/python"
    folders = values["PYTHONPATH"].split(":")
    assert folders == [f"{tree}/{name}" for name in ("packages", "project", "project/trt")]
    libraries = values["LD_LIBRARY_PATH"].split(":")
    assert libraries[-1] == "/driver"  # kept: the driver may lie there
    assert values["DDFD_OUTSIDE_LIBRARIES"] == "/driver"  # for another Python's programs
    assert libraries[:-1] == [f"{tree}/{n}" for n in ("python/lib", "lib", "packages/tensorrt")]
    assert not {"PYTHONSTARTUP", "PYTHONWARNINGS"} & set(values)
    assert values["PYTHONNOUSERSITE"] == "1"
    assert values["CUDA_VISIBLE_DEVICES"] == "1"
    assert values["DDFD_OWN_KERNELS_ONLY"] == "1"


def test_the_engine_command_leaves_the_stubs_alone(monkeypatch):
    monkeypatch.delenv("DDFD_OWN_KERNELS_ONLY", raising=False)
    assert not engine_cli._parser().parse_args(["m.onnx"]).own_kernels_only
    monkeypatch.setenv("DDFD_OWN_KERNELS_ONLY", "1")
    assert engine_cli._parser().parse_args(["m.onnx"]).own_kernels_only


def test_no_empty_folder_is_searched_for_libraries(tree):
    # An empty entry would be the current folder.
    assert "" not in run(tree, "python")[2]["LD_LIBRARY_PATH"].split(":")


def test_the_compilers_libraries_are_used_where_the_machine_has_none(tree):
    assert "fallback" not in run(tree, "python", FAKE_CPP="0")[2]["LD_LIBRARY_PATH"]
    libraries = run(tree, "python", FAKE_CPP="1")[2]["LD_LIBRARY_PATH"].split(":")
    assert libraries[-1] == f"{tree}/lib/fallback"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "-m", "benchmarks.gpu", "a b"], "-m benchmarks.gpu a b"),
        (["ddfd-engine", "m.onnx", "--size", "640x480"],
         "-m ddfd_trt.engine_cli m.onnx --size 640x480"),
        (["ddfd-bench", "m.onnx"], "-m ddfd_trt.benchmark m.onnx"),
    ],
)  # fmt: skip
def test_commands_by_their_names(tree, command, expected):
    done, called, _ = run(tree, *command)
    assert (done.returncode, called) == (5, f"arguments: {expected}")


def test_verify_by_its_name(tree):
    _, called, _ = run(tree, "ddfd-verify", "m.onnx", "m.engine")
    assert "verify_main" in called
    assert called.endswith(" m.onnx m.engine")


@pytest.mark.parametrize("arguments", [[], ["rm"]])
def test_other_commands_are_refused(tree, arguments):
    done, called, _ = run(tree, *arguments)
    assert (done.returncode, called) == (2, "")
    assert "expected ddfd-engine, ddfd-verify, ddfd-bench or python" in done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_an_older_c_library_is_refused_by_number_not_by_text(tree):
    major, minor = map(int, platform.libc_ver()[1].split("."))
    for wanted, status in (
        (f"{major}.{minor}", 5), (f"{major}.{minor + 1}", 2), (f"{major}.9", 5),
        (f"{major}.100", 2),
    ):  # fmt: skip
        (tree / "facts.txt").write_text(f"glibc {wanted}\n")
        done, _, _ = run(tree, "python")
        assert done.returncode == status, (wanted, done.stderr)
    assert f"expected glibc {major}.100 or newer, got {major}.{minor}" in done.stderr


def test_a_tree_without_python_is_refused(tree):
    (tree / "python" / "bin" / "python3.10").unlink()
    done, _, _ = run(tree, "python")
    assert done.returncode == 2
    assert "join the parts again" in done.stderr


def test_it_is_found_through_a_link(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    done = subprocess.run(
        [str(tmp_path / "link" / "run.sh"), "python"], env=BASIC, capture_output=True, text=True,
        cwd="/", check=False,
    )  # fmt: skip
    assert f"PYTHONHOME={tree}/python" in done.stdout
