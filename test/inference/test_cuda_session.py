"""One thread's share of a GPU: what lies on the stacks of contexts, and who takes it off."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ddfd_ros.core.errors import InferenceError
from ddfd_ros.inference import gpu_probe
from ddfd_ros.inference.base import DeviceError


@pytest.fixture
def session(gpu):
    from ddfd_ros.inference.cuda_session import CudaSession

    return CudaSession


def nothing_left(gpu) -> bool:
    return not (gpu._stacks.pycuda or gpu._stacks.driver or gpu._primary.retained or gpu._live)


def test_a_stream_that_cannot_be_made_leaves_no_context(gpu, session, monkeypatch):
    monkeypatch.setenv("STANDIN_NO_STREAM", "1")
    with pytest.raises(
        DeviceError, match="expected a usable GPU, got MemoryError: cuStreamCreate"
    ):
        session()
    assert nothing_left(gpu)
    monkeypatch.delenv("STANDIN_NO_STREAM")
    session().close()
    assert nothing_left(gpu)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_sessions_of_a_thread_share_the_context_until_the_last_ends(gpu, session, order):
    sessions = [session() for _ in range(3)]
    assert len(gpu._stacks.pycuda) == len(gpu._stacks.driver) == gpu._primary.retained == 1
    for index in order:
        for item in sessions:
            if not item._closed:
                item.page_locked(8)
                item.device_memory(8)
        sessions[index].close()
    assert nothing_left(gpu)


def test_each_thread_has_a_context_of_its_own(gpu, session):
    ours = session()
    refused = []

    def work():
        theirs = session()
        theirs.device_memory(8)
        try:
            ours.close()
        except InferenceError as error:
            refused.append(error)
        theirs.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(refused) == 1
    ours.device_memory(8)
    ours.close()
    assert nothing_left(gpu)


def test_the_stand_in_notices_a_thread_that_ends_with_a_context(gpu, session):
    thread = threading.Thread(target=session)
    thread.start()
    thread.join()
    gc.collect()
    assert gpu._faults == ["the context stack was not empty when its thread ended"]
    gpu._faults.clear()


def test_the_probe_ends_its_session_whatever_happens(gpu, monkeypatch, capsys):
    backend = importlib.import_module("ddfd_ros.inference.tensorrt_backend")  # over the stand-in

    def fail(api, session):
        raise DeviceError("lost")

    monkeypatch.setattr(backend, "machine_of", fail)
    assert gpu_probe.main() == 0
    assert json.loads(capsys.readouterr().out.partition(" ")[2]) == {"error": "lost"}
    assert nothing_left(gpu)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "ddfd_ros.inference.gpu_probe"], "ddfd-gpu"),
        (["-c", "import ddfd_ros.inference as i; i.open_backend('x.engine')"], "DeviceError"),
        (["-m", "ddfd_trt.engine_cli", "x.onnx", "--size", "96x64"], "error: "),
    ],
    ids=["probe", "engine", "build"],
)
def test_a_missing_driver_is_not_called_a_missing_package(make, tmp_path, arguments, words):
    """Pycuda is linked against it, so that its import fails."""
    make.write_model(tmp_path / "x.onnx")
    (tmp_path / "x.engine").touch()
    package = tmp_path / "pycuda"
    package.mkdir()
    (package / "__init__.py").touch()
    text = "libcuda.so.1: cannot open shared object file: No such file or directory"
    (package / "driver.py").write_text(f"raise ImportError({text!r})")
    root = Path(__file__).resolve().parents[2]
    paths = [tmp_path, root / "test" / "standin", root, root / "trt"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                         env=environ, cwd=tmp_path, check=False)  # fmt: skip
    said = run.stdout + run.stderr
    assert words in said
    assert f"CUDA: expected NVIDIA's driver, got {text}; install it" in said
