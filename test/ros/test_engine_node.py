"""The node and TensorRT engines: found, built beside it, swapped in, lost, and tried again.

TensorRT and pycuda are the stand-ins of ``test/standin``, whose names are checked against the real
packages by ``test/trt/test_bindings.py``; everything else is real.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

STANDIN = Path(__file__).resolve().parents[1] / "standin"
ROOT = STANDIN.parents[1]
SIZE = {"warm_up_height": 64, "warm_up_width": 96}


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with a GPU, as far as the node can tell; returns its settings."""
    paths = [str(STANDIN), str(ROOT), str(ROOT / "trt"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("DDFD_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("STANDIN_GPU", "Stand-in;8.7")
    monkeypatch.setenv("STANDIN_FAIL", str(tmp_path / "fail"))
    return monkeypatch


def make_engine(model: Path, output: Path, **settings: str) -> None:
    command = [sys.executable, "-m", "ddfd_trt.engine_cli", str(model), str(output)]
    command += ["--size", "96x64"]
    subprocess.run(command, check=True, env=os.environ | settings, capture_output=True)


def engine_of(folder: Path) -> Path:
    return folder / "engines" / "tiny-96x64-fp16.engine"


def ask(stage, tools, seed: int) -> np.ndarray:
    """Send a picture of the engine's size; the depth that comes back, checked to be right."""
    image = tools.picture(64, 96, seed)
    stamp = stage.peer.send(tools.image_message(image))
    message = stage.peer.answer("depth", stamp)
    assert message is not None
    depth_m = np.frombuffer(message.data, np.float32).reshape(64, 96)
    np.testing.assert_allclose(depth_m, tools.reference(image)["depth_m"], rtol=1e-4)
    return depth_m


def test_an_engine_is_built_beside_the_node_and_swapped_in(gpu, stage, tools):
    gpu.setenv("STANDIN_STEPS", "8")
    gpu.setenv("STANDIN_STEP_S", "0.5")
    node = stage.start(runtime="auto", **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    ask(stage, tools, 1)
    values = stage.peer.report(degraded=lambda text: "serves instead of TensorRT" in text)
    assert values["runtime"] in ("openvino", "onnxruntime")
    values = stage.peer.report(progress=lambda text: "TensorRT" in text or "building" in text)
    ask(stage, tools, 2)  # while it is built
    values = stage.peer.report(120.0, runtime="tensorrt", degraded="")
    manifest = json.loads((engine_of(stage.folder).parent / (
        engine_of(stage.folder).name + ".manifest.json")).read_text())  # fmt: skip
    assert values["engine_sha256"] == manifest["engine_sha256"]
    assert manifest["machine"]["gpu_name"] == "Stand-in"
    ask(stage, tools, 3)
    assert "serves from now on" in node.log


@pytest.mark.parametrize("damage", ["", "truncated", "other GPU", "other TensorRT", "other ONNX"])
def test_a_matching_engine_is_taken_and_any_other_built_again(gpu, stage, tools, damage):
    model = tools.write_model(stage.folder / "tiny.onnx")
    engine = engine_of(stage.folder)
    settings = {
        "other GPU": {"STANDIN_GPU": "Older;7.2"},
        "other TensorRT": {"STANDIN_TENSORRT": "10.3.0"},
    }.get(damage, {})
    make_engine(model, engine, **settings)
    before = engine.read_bytes()
    if damage == "truncated":
        engine.write_bytes(before[:-100])
    if damage == "other ONNX":
        tools.write_model(model, training={"seed": 2})
    stage.start(runtime="auto", model_path=model, **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    if not damage:
        values = stage.peer.report(runtime="tensorrt", degraded="")
        assert engine.read_bytes() == before
    else:
        word = "bytes" if damage == "truncated" else damage.split()[1]
        stage.peer.report(degraded=lambda text: word in text)
        ask(stage, tools, 1)
        values = stage.peer.report(120.0, runtime="tensorrt", degraded="")
    assert values["engine_sha256"]
    ask(stage, tools, 2)


def test_a_gpu_that_fails_is_replaced_within_the_frame_and_tried_again(gpu, stage, tools):
    model = tools.write_model(stage.folder / "tiny.onnx")
    make_engine(model, engine_of(stage.folder))
    node = stage.start(runtime="auto", model_path=model, engine_retry_s=1.0, **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    stage.peer.report(runtime="tensorrt")
    ask(stage, tools, 1)
    (stage.folder / "fail").write_text("cuStreamSynchronize failed: an illegal memory access")
    ask(stage, tools, 2)  # this very frame, by the CPU
    values = stage.peer.report(degraded=lambda text: "illegal memory access" in text)
    assert values["runtime"] in ("openvino", "onnxruntime")
    assert not values["engine_sha256"]
    ask(stage, tools, 3)
    (stage.folder / "fail").unlink()
    stage.peer.report(120.0, runtime="tensorrt", degraded="")
    ask(stage, tools, 4)
    assert "next try in 1 s" in node.log


def test_an_engine_that_answers_wrongly_is_refused_with_the_figure(gpu, stage, tools):
    model = tools.write_model(stage.folder / "tiny.onnx")
    engine = engine_of(stage.folder)
    make_engine(model, engine)
    # The same engine as a broken TensorRT would run it: every depth a tenth too large.
    data = engine.read_bytes().replace(b'"wrong": 1.0', b'"wrong": 1.1')
    manifest_path = engine.with_name(engine.name + ".manifest.json")
    manifest = json.loads(manifest_path.read_text())
    manifest["engine_sha256"] = hashlib.sha256(data).hexdigest()
    engine.write_bytes(data)
    manifest_path.write_text(json.dumps(manifest))
    node = stage.start(runtime="auto", model_path=model, **SIZE)
    assert stage.peer.spin_until(lambda: "configure failed" in node.log, 90.0)
    assert "depth_m off by" in node.log
    assert node.process.poll() is None  # the node lives and can be corrected


def test_a_build_that_fails_parity_leaves_the_cpu_serving(gpu, stage, tools):
    gpu.setenv("STANDIN_WRONG", "1.1")
    node = stage.start(runtime="auto", **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    ask(stage, tools, 1)
    stage.peer.report(120.0, degraded=lambda text: "depth_m off by" in text)
    ask(stage, tools, 2)
    assert not engine_of(stage.folder).exists()
    assert "TensorRT: no engine for 96x64" in node.log


def test_a_folder_that_cannot_be_written_is_said_and_the_cpu_serves(gpu, stage, tools):
    (stage.folder / "file").touch()
    stage.start(runtime="auto", engine_folder=stage.folder / "file" / "engines", **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    ask(stage, tools, 1)
    values = stage.peer.report(degraded=lambda text: "set engine_folder" in text)
    assert values["progress"] == ""
    ask(stage, tools, 2)


def test_images_of_another_size_get_an_engine_of_their_own(gpu, stage, tools):
    model = tools.write_model(stage.folder / "tiny.onnx")
    make_engine(model, engine_of(stage.folder))
    stage.start(runtime="auto", model_path=model, **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    stage.peer.report(runtime="tensorrt")
    for seed in range(6):
        image = tools.picture(96, 128, seed)
        assert stage.peer.answer("depth", stage.peer.send(tools.image_message(image))) is not None
    stage.peer.report(120.0, device=lambda text: "128x96" in text, degraded="")


WORKER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from ddfd_ros.core.metadata import golden_image
from ddfd_ros.core.worker import LatestWorker
from ddfd_ros.ros import engine_parts
from ddfd_ros.ros.engine_keeper import EngineKeeper
from ddfd_ros.ros.engine_open import open_serving
from ddfd_ros.ros.engine_plan import plan_engine
from ddfd_ros.ros.parameters import NodeParameters
parameters = NodeParameters(warm_up_height=64, warm_up_width=96, threads=1)
plan = plan_engine(Path(sys.argv[1]), parameters)
assert plan.engine_path is not None, plan.reason
worker = LatestWorker(lambda: open_serving(plan, parameters, lambda: None)[0],
                      lambda *_: None, lambda *_: None, lambda *_: None)
def keep():
    worker.start()
    backend = worker.call(lambda owned: owned)
    keeper = EngineKeeper(plan, backend, worker.call, lambda level, text: print(level, text))
    keeper.start()
    return backend, keeper
"""
"""The keeper over a real worker and the stand-in; a context left behind ends the process."""


def run_worker(model: Path, script: str, **settings: str) -> str:
    command = [sys.executable, "-c", WORKER + script, str(model)]
    environ = os.environ | settings
    run = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_heads_nobody_listens_to_get_left_out(gpu, tools, tmp_path):
    script = """
engine_parts.PartWatch.__init__.__defaults__ = (0.3,)  # a shorter wait than a robot's
backend, keeper = keep()
deadline = time.monotonic() + 90
while "1 smaller" not in backend.device and time.monotonic() < deadline:
    worker.call(lambda owned: owned.infer(golden_image(64, 96, 1), ["depth_m"]))
    time.sleep(0.05)
print("device", backend.device)
keeper.ask_to_end(); worker.stop(); assert keeper.wait(10)
"""
    model = tools.write_model(tmp_path / "tiny.onnx")
    make_engine(model, engine_of(tmp_path))
    assert "1 smaller for fewer heads" in run_worker(model, script)
    part = engine_of(tmp_path).with_name("tiny-96x64-fp16-depth+sigma.engine")
    assert part.is_file()


def test_engines_that_fail_here_are_not_built_one_after_another(gpu, tools, tmp_path):
    """Two builds never give the same bytes, so that a digest does not tell a second failure."""
    script = """
from ddfd_ros.inference.base import ParityError
from ddfd_ros.inference.tensorrt_backend import TensorrtBackend
from ddfd_ros.ros import engine_keeper
def wrong(self):
    raise ParityError("wrong here")
TensorrtBackend.self_test = wrong
builds, build = [], engine_keeper.build_engine
def counted(*arguments):
    builds.append(arguments)
    return build(*arguments)
engine_keeper.build_engine = counted
plan = replace(plan, engine_path=None, reason="none yet")  # found by the keeper
backend, keeper = keep()
worker.call(lambda owned: owned.infer(golden_image(64, 96, 1)))
deadline = time.monotonic() + 90
while len(builds) < 3 and time.monotonic() < deadline:
    if "no engine for 96x64: wrong here" in keeper.status.degraded:
        break
    time.sleep(0.05)
print("builds", len(builds), keeper.status.degraded)
keeper.ask_to_end(); worker.stop(); assert keeper.wait(30)
"""
    model = tools.write_model(tmp_path / "tiny.onnx")
    make_engine(model, engine_of(tmp_path))
    said = run_worker(model, script)
    assert "builds 1 " in said
    assert "no engine for 96x64: wrong here" in said


def test_the_keeper_outlives_the_files_of_its_engine(gpu, tools, tmp_path):
    script = """
engine_parts.PartWatch.__init__.__defaults__ = (0.3,)
backend, keeper = keep()
for file in plan.engine_path.parent.glob("*.engine*"):
    file.unlink()
for _ in range(30):  # heads that nobody listens to: an engine without them is looked for
    worker.call(lambda owned: owned.infer(golden_image(64, 96, 1), ["depth_m"]))
    time.sleep(0.05)
print("alive", keeper._thread.is_alive())
keeper.ask_to_end(); worker.stop(); assert keeper.wait(10)
"""
    model = tools.write_model(tmp_path / "tiny.onnx")
    make_engine(model, engine_of(tmp_path))
    said = run_worker(model, script)
    assert "alive True" in said
    assert "no engine for depth_m, sigma_m alone" in said


def test_a_stop_while_an_engine_is_loaded_closes_it(gpu, tools, tmp_path):
    script = """
plan = replace(plan, engine_path=None, reason="none yet")  # found by the keeper
backend, keeper = keep()
worker.call(lambda owned: owned.infer(golden_image(64, 96, 1)))
while keeper.status.progress != "loading the engine":
    time.sleep(0.01)
time.sleep(0.5)
keeper.ask_to_end(); assert worker.stop(30); assert keeper.wait(10)
from pycuda import driver
print("left", driver._primary.retained, len(driver._live), backend.engine)
"""
    model = tools.write_model(tmp_path / "tiny.onnx")
    make_engine(model, engine_of(tmp_path))
    assert "left 0 0 None" in run_worker(model, script, STANDIN_OPEN_S="2")


def test_an_engine_that_fails_in_an_unknown_way_at_configure_is_closed(gpu, tools, tmp_path):
    script = """
from ddfd_ros.inference.tensorrt_backend import TensorrtBackend
TensorrtBackend.self_test = lambda self: 1 / 0
try:
    worker.start()
except ZeroDivisionError:
    print("refused")
"""
    model = tools.write_model(tmp_path / "tiny.onnx")
    make_engine(model, engine_of(tmp_path))
    assert "refused" in run_worker(model, script)


def test_the_end_of_the_node_ends_the_build(gpu, stage, tools):
    gpu.setenv("STANDIN_STEPS", "1000")
    gpu.setenv("STANDIN_STEP_S", "0.2")
    node = stage.start(runtime="auto", **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    ask(stage, tools, 1)
    stage.peer.report(progress=lambda text: "building" in text)
    status, seconds = node.stop()
    assert status == 0
    assert seconds < 15
    left = [item.name for item in engine_of(stage.folder).parent.iterdir()]
    assert [name for name in left if name != ".building"] == []


def test_a_machine_without_a_gpu_says_so_and_serves(gpu, stage, tools):
    gpu.setenv("STANDIN_GPU", "none")
    stage.start(runtime="auto", **SIZE)
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    ask(stage, tools, 1)
    values = stage.peer.report(degraded=lambda text: "no CUDA-capable device" in text)
    assert values["runtime"] in ("openvino", "onnxruntime")


def test_tensorrt_demanded_without_a_gpu_refuses(gpu, stage):
    gpu.setenv("STANDIN_GPU", "none")
    node = stage.start(runtime="tensorrt", **SIZE)
    assert stage.peer.spin_until(lambda: "configure failed" in node.log, 90.0)
    assert "no CUDA-capable device" in node.log
