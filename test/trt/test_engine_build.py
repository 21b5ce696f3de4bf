"""``ddfd-engine`` over the stand-in: options, precisions, versions, refusals, being stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from ddfd_ros.core.errors import ContractError, DatasetError, ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import DeviceError, ParityError
from ddfd_ros.inference.engine_manifest import ShapeRange, file_sha256, read_manifest
from ddfd_trt.build_engine import BuildCancelled, BuildJob, Watch, _build
from ddfd_trt.calibrate import ImageBatches
from ddfd_trt.engine_cli import main
from ddfd_trt.engine_options import EngineOptions
from ddfd_trt.export_onnx import export_onnx
from ddfd_trt.files import write_atomically
from ddfd_trt.make_engine import EngineJob, make_engine, refused_path

ROOT = Path(__file__).resolve().parents[2]
STANDIN = ROOT / "test" / "standin"
VERSIONS = ("8.5.2", "8.6.1", "10.13.0.35", "11.4.0.106")
SIZE = ShapeRange.fixed(64, 96)


@pytest.fixture(scope="session")
def model(lite_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "lite.onnx"
    export_onnx(lite_checkpoint, path, heads=["depth_m", "sigma_m", "sharp_rgb"])
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    import cv2

    folder = tmp_path_factory.mktemp("pictures")
    for index in range(5):
        noise = np.random.default_rng(index).integers(0, 255, (80, 120, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.GaussianBlur(noise, (0, 0), 3))
    return folder


@pytest.fixture
def version(monkeypatch):
    """Installs the stand-in in a version."""
    monkeypatch.syspath_prepend(str(STANDIN))
    import standin_gpu

    def install(number="10.13.0.35", **settings):
        standin_gpu.install(monkeypatch, STANDIN_TENSORRT=number, **settings)

    return install


def plan_head(path):
    """What the stand-in wrote in front of the graph: flags, workspace, shapes."""
    return json.loads(path.read_bytes().split(b"\n")[1])


def plan_graph(path):
    """The graph that the stand-in's engine computes."""
    return onnx.load_model_from_string(path.read_bytes().split(b"\n", 2)[2]).graph


def input_sides(path):
    """The image's sides in that graph, 0 where it takes any."""
    shape = plan_graph(path).input[0].type.tensor_type.shape
    return [side.dim_value for side in shape.dim]


def build(model, folder, watch=None, **options):
    output = folder / "lite.engine"
    options = EngineOptions(**({"shapes": SIZE} | options))
    return output, make_engine(EngineJob(model, output, options, watch=watch or Watch()))


@pytest.mark.parametrize("number", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "best"])
def test_every_version_and_precision(version, model, tmp_path, number, precision):
    version(number)
    output, manifest = build(model, tmp_path, precision=precision)
    flags = set(plan_head(output)["flags"])
    weakly = number < "11" or number.startswith("8")
    assert ("FP16" in flags) == (weakly and precision != "fp32")
    assert ("TF32" in flags) == (precision != "fp32")
    assert "INT8" not in flags  # no ranges are known
    halves = [item for item in plan_graph(output).initializer if item.data_type == 10]
    assert bool(halves) == (not weakly and precision != "fp32")
    assert manifest == read_manifest(output)
    assert manifest.machine.tensorrt_version == number
    assert manifest.onnx_sha256 == file_sha256(model)
    assert manifest.parity["passed"]
    contract = manifest.contract
    assert (contract.input_height, contract.input_width) == (64, 96)
    assert (contract.golden.height, contract.golden.width) == (64, 96)
    assert input_sides(output) == [64, 96, 3]  # one size is fixed in the network itself
    with open_backend(output) as backend:
        assert backend.self_test()["checked"]
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


@pytest.mark.parametrize("number", VERSIONS)
def test_int8_is_calibrated_once(version, model, pictures, tmp_path, number):
    version(number)
    output, manifest = build(
        model, tmp_path, precision="int8", calibration_images=pictures, calibration_limit=3
    )
    assert manifest.calibrated
    assert manifest.options["calibration_images"] == pictures.name
    kept = sorted(item for item in tmp_path.iterdir() if "calibration" in item.name
                  or "qdq" in item.name)  # fmt: skip
    assert len(kept) == 1
    if number.startswith("11"):
        kinds = {n.op_type for n in onnx.load(kept[0]).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    else:
        assert "INT8" in plan_head(output)["flags"]
        assert b"of 3" in kept[0].read_bytes()  # pictures 0, 2 and 4
    stamp = kept[0].stat().st_mtime_ns
    build(model, tmp_path, precision="int8", calibration_images=pictures, calibration_limit=3)
    assert kept[0].stat().st_mtime_ns == stamp


@pytest.mark.parametrize("number", ["8.6.1", "10.13.0.35"])
def test_calibration_at_one_size_leaves_the_engine_its_range(
    version, model, pictures, tmp_path, number
):
    version(number)
    shapes = ShapeRange((32, 64), (64, 96), (96, 128))
    output, _ = build(
        model, tmp_path, shapes=shapes, precision="int8", calibration_images=pictures,
        calibration_limit=3,
    )  # fmt: skip
    assert plan_head(output)["shapes"] == [[32, 64, 3], [64, 96, 3], [96, 128, 3]]


def test_int8_without_pictures_is_refused(version, model, tmp_path):
    version()
    with pytest.raises(ContractError, match="--calibrate FOLDER"):
        build(model, tmp_path, precision="int8")
    with pytest.raises(DatasetError, match="no such file or folder"):
        build(model, tmp_path, precision="int8", calibration_images=tmp_path / "nowhere")


def test_options_reach_the_builder_and_the_manifest(version, model, tmp_path):
    version()
    shapes = ShapeRange((32, 64), (64, 96), (96, 128))
    output, manifest = build(
        model, tmp_path, shapes=shapes, workspace_mb=64, version_compatible=True,
        optimization_level=2, own_kernels_only=True, heads=("depth_m",),
    )  # fmt: skip
    head = plan_head(output)
    assert head["workspace"] == 64 << 20
    assert head["shapes"] == [[32, 64, 3], [64, 96, 3], [96, 128, 3]]
    assert "VERSION_COMPATIBLE" in head["flags"]
    assert manifest.options["optimization_level"] == 2
    assert manifest.contract.outputs == ("depth_m",)
    assert manifest.contract.input_height is None
    assert [item.name for item in plan_graph(output).output] == ["depth_m"]
    assert (tmp_path / "timing.cache").read_bytes() == b"timing;"
    build(model, tmp_path)
    assert (tmp_path / "timing.cache").read_bytes() == b"timing;timing;"


@pytest.mark.parametrize("number", VERSIONS)
def test_a_range_of_sizes_stays_open_in_the_network(version, model, tmp_path, number):
    version(number)
    output, _ = build(model, tmp_path, shapes=ShapeRange((32, 64), (64, 96), (96, 128)))
    assert input_sides(output) == [0, 0, 3]


def test_the_timing_cache_of_another_version_is_replaced(version, model, tmp_path):
    version()
    (tmp_path / "timing.cache").write_bytes(b"of 8.6")
    build(model, tmp_path)
    assert (tmp_path / "timing.cache").read_bytes() == b"timing;"


def test_an_engine_is_not_lost_where_its_timings_cannot_be_kept(version, model, tmp_path):
    version()
    (tmp_path / "file").touch()
    said, cache = [], tmp_path / "file" / "timing.cache"
    options = EngineOptions(shapes=SIZE)
    job = EngineJob(model, tmp_path / "lite.engine", options, timing_cache=cache,
                    watch=Watch(on_phase=said.append))  # fmt: skip
    assert make_engine(job) == read_manifest(job.output)
    assert [text for text in said if "timing cache: expected to write it" in text]


def test_what_a_killed_build_left_goes_with_the_next_one(version, model, tmp_path):
    version()
    killed, running = tmp_path / ".ddfd-engine-killed", tmp_path / ".ddfd-engine-running"
    for folder in (killed, running):
        folder.mkdir()
        (folder / "lite.engine").write_bytes(b"most of an engine")
    handle = os.open(running, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    build(model, tmp_path)
    assert not killed.exists()
    assert (running / "lite.engine").exists()
    os.close(handle)  # as the end of its process does
    build(model, tmp_path)
    assert not running.exists()


def test_two_builds_may_write_their_timings_at_once(tmp_path, monkeypatch):
    path, replace = tmp_path / "timing.cache", Path.replace

    def interrupted(partial, target):
        monkeypatch.setattr(Path, "replace", replace)
        write_atomically(path, b"of another node")
        return replace(partial, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    write_atomically(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(partial, target):
        raise OSError(28, "No space left on device")

    path = tmp_path / "timing.cache"
    write_atomically(path, b"old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_driver_older_than_tensorrt_is_named_as_the_reason(version, model, tmp_path):
    version(STANDIN_OLD_DRIVER="1")
    with pytest.raises(DeviceError, match=r"error: 35\.; where nvidia-smi names an older CUDA"):
        build(model, tmp_path)


def test_calibration_that_fails_leaves_no_context_in_the_thread(
    version, model, pictures, tmp_path, monkeypatch
):
    version("8.6.1")
    import tensorrt
    from pycuda import driver

    def calibrate(self, network, config):
        assert config.int8_calibrator.get_batch([network.get_input(0).name])
        self._logger.log(tensorrt.ILogger.Severity.ERROR, "no scaling factors")
        return False

    monkeypatch.setattr(tensorrt.Builder, "_calibrate", calibrate)
    graph = model.read_bytes()
    batches = ImageBatches.from_folder(pictures, 3, (64, 96), tmp_path / "lite", graph)
    job = BuildJob(graph, SIZE, EngineOptions("int8"), batches)
    with pytest.raises(ModelLoadError, match="no scaling factors"):
        _build(job, lambda *news: None)
    assert driver.Context.get_current() is None
    assert not driver._live


@pytest.mark.parametrize(
    ("number", "options", "words"),
    [
        ("8.5.2", {"version_compatible": True}, r"expected TensorRT 8\.6 or newer, got 8\.5\.2"),
        ("8.5.2", {"optimization_level": 3}, r"expected TensorRT 8\.6 or newer"),
        ("10.13.0", {"shapes": None}, "--size WIDTHxHEIGHT"),
        ("10.13.0", {"shapes": ShapeRange.fixed(60, 96)}, r"multiples of 32, got \[60\]"),
        ("10.13.0", {"heads": ("normals",)}, r"got \['normals'\]"),
    ],
)
def test_what_cannot_be_had_is_refused(version, model, tmp_path, number, options, words):
    version(number)
    with pytest.raises(ContractError, match=words):
        build(model, tmp_path, **options)
    assert not (tmp_path / "lite.engine").exists()


def test_a_wrong_engine_never_replaces_the_old_one(version, model, tmp_path):
    version()
    output, _ = build(model, tmp_path)
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    for wrong in ("1.05", "nan"):
        version(STANDIN_WRONG=wrong)
        with pytest.raises(ParityError, match=r"depth_m off by"):
            build(model, tmp_path)
        before["timing.cache"] += b"timing;"
        assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before
    version(STANDIN_WRONG="1")
    with open_backend(output) as backend:
        backend.self_test()


def test_a_refused_engine_is_kept_apart_where_that_is_asked_for(version, model, tmp_path, capsys):
    version(STANDIN_WRONG="1.01")
    output = tmp_path / "x.engine"
    command = [str(model), str(output), "--size", "96x64"]
    assert main(command) == 2
    assert [item.name for item in tmp_path.iterdir()] == ["timing.cache"]
    assert main([*command, "--keep-refused"]) == 2
    assert "got depth_m differs by" in capsys.readouterr().err
    assert not output.exists()
    kept = read_manifest(refused_path(output))
    assert not kept.parity["passed"]
    assert set(kept.parity["heads"]) == set(kept.contract.outputs)


def test_what_is_closed_is_the_calibrator_that_was_made(
    version, model, pictures, tmp_path, monkeypatch
):
    version("8.6.1")
    import tensorrt

    class Config(tensorrt.IBuilderConfig):
        @property
        def int8_calibrator(self):
            return SimpleNamespace()  # a wrapper of the base class, as bindings may give

        @int8_calibrator.setter
        def int8_calibrator(self, calibrator):
            assert calibrator.get_batch(["image"])

    monkeypatch.setattr(tensorrt, "IBuilderConfig", Config)
    graph = model.read_bytes()
    batches = ImageBatches.from_folder(pictures, 3, (64, 96), tmp_path / "lite", graph)
    monkeypatch.setattr(tensorrt.Builder, "_calibrate", lambda *_: True)
    _build(BuildJob(graph, SIZE, EngineOptions("int8"), batches), lambda *news: None)
    assert not sys.modules["pycuda.driver"]._live


def test_a_graph_that_does_not_parse_says_why(version, model, tmp_path):
    version()
    broken = onnx.load(model)
    broken.graph.node[3].op_type = "Teleport"
    path = tmp_path / "broken.onnx"
    path.write_bytes(broken.SerializeToString())
    with pytest.raises(ModelLoadError, match=r"expected to parse the ONNX graph, got .*Teleport"):
        build(path, tmp_path)


def test_the_lean_runtime_cannot_build_and_no_gpu_is_said(version, model, tmp_path):
    version(STANDIN_GPU="none")
    with pytest.raises(DeviceError, match="no CUDA-capable device"):
        build(model, tmp_path)
    version(STANDIN_GPU="Stand-in;8.7", STANDIN_LEAN="1")
    with pytest.raises(ModelLoadError, match="the full TensorRT package"):
        build(model, tmp_path)


def test_the_lean_runtime_runs_what_was_built_compatible(version, model, tmp_path):
    version("10.3.0")
    output, _ = build(model, tmp_path, version_compatible=True)
    version("10.13.0.35", STANDIN_LEAN="1")
    with open_backend(output) as backend:
        assert backend.self_test()["checked"]


def test_command_line(version, model, tmp_path, capsys):
    version()
    output = tmp_path / "x.engine"
    arguments = [str(model), str(output), "--size", "96x64", "--precision", "fp32"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "96x64" in said.out
    assert "depth_m: mean " in said.out
    assert "building fp32 for 96x64" in said.err
    assert main([str(model)]) == 2
    assert "--size WIDTHxHEIGHT" in capsys.readouterr().err
    assert main([str(tmp_path / "none.onnx"), "--size", "96x64"]) == 2
    assert main([str(model), "--size", "96x64"]) == 0
    assert (model.parent / "lite-96x64-fp16.engine").is_file()


@pytest.mark.parametrize("number", ["8.6.1", "10.13.0.35"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "input closed"])
def test_stopping_a_build_leaves_the_old_engine_and_nothing_else(
    version, model, tmp_path, number, how
):
    version(number)
    output, _ = build(model, tmp_path)
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    paths = [str(STANDIN), str(ROOT), str(ROOT / "trt")]
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths), "STANDIN_STEPS": "200", "STANDIN_STEP_S": "0.1",
    }  # fmt: skip
    command = [sys.executable, "-m", "ddfd_trt.engine_cli", str(model), str(output)]
    command += ["--size", "96x64", "--stop-on-eof"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert "building" in process.stderr.readline()
        time.sleep(0.3)
        start = time.monotonic()
        if how == "input closed":
            process.stdin.close()
        else:
            process.send_signal(how)
        assert process.wait(20) == 130
        assert time.monotonic() - start < 10
        assert "nothing was written" in process.stderr.read()
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before
    with open_backend(output) as backend:
        assert isinstance(backend.contract, ModelContract)


def test_a_build_is_cancelled_at_once_and_this_process_goes_on(version, model, tmp_path):
    version("8.6.1", STANDIN_STEPS="200", STANDIN_STEP_S="0.1")
    watch = Watch()
    timer = threading.Timer(2.5, watch.cancel.set)
    timer.start()
    with pytest.raises(BuildCancelled):
        build(model, tmp_path, watch)
    timer.join()
    assert not multiprocessing.active_children()
    assert not list(tmp_path.iterdir())
    version("8.6.1", STANDIN_STEPS="1", STANDIN_STEP_S="0")
    build(model, tmp_path)


def test_a_builder_that_crashes_is_an_error_with_a_reason(version, model, tmp_path):
    def crash(*_):
        for child in multiprocessing.active_children():
            child.kill()

    version(STANDIN_STEPS="50", STANDIN_STEP_S="0.1")
    with pytest.raises(ModelLoadError, match=r"ended with exit status -9"):
        build(model, tmp_path, Watch(on_progress=crash))
    assert not list(tmp_path.iterdir())


def test_a_build_ends_with_who_started_it(model, tmp_path):
    paths = [str(STANDIN), str(ROOT), str(ROOT / "trt")]
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths), "STANDIN_STEPS": "300", "STANDIN_STEP_S": "0.1",
    }  # fmt: skip
    command = [sys.executable, "-m", "ddfd_trt.engine_cli", str(model), str(tmp_path / "x.engine")]
    with subprocess.Popen(
        [*command, "--size", "96x64"], stderr=subprocess.DEVNULL, env=environ
    ) as process:
        child = until(lambda: builders(process.pid))[0]
        time.sleep(1.5)  # into the build
        process.kill()
    assert until(lambda: not Path(f"/proc/{child}").exists() or None)


def builders(parent: int) -> list[int]:
    """Processes that a build runs in."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = f"\nPPid:\t{parent}\n" in (folder / "status").read_text()
            if mine and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def until(asked, limit_s=20.0):
    """The first answer that is one."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if answer := asked():
            return answer
        time.sleep(0.05)
    raise AssertionError("not in time")
