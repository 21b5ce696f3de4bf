"""One thread's share of a GPU: what lies on the stacks of contexts, and who takes it off."""

from __future__ import annotations

import gc
import importlib
import json
import threading

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
