"""``make bench-gpu`` runs to its end over the stand-in; its figures mean nothing there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import gpu, gpu_engine
from benchmarks.gpu_count import count_work
from benchmarks.gpu_engine import clocks_under, resident_bytes, warm_up
from benchmarks.gpu_others import TorchRun, allow_tf32, torch_network
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.core.types import HEADS
from ddfd_ros.inference.engine_manifest import GpuMachine, manifest_path, read_manifest
from ddfd_ros.model.byte_graph import ByteGraph
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_trt.export_onnx import export_onnx, trace_to_onnx

ROOT = Path(__file__).resolve().parents[2]


def test_operations_are_counted_as_by_hand():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.b = torch.nn.Conv2d(8, 8, 3, padding=1, groups=4)
            self.c = torch.nn.ConvTranspose2d(8, 1, 2, stride=2)

        def forward(self, image):
            return {"depth_m": self.c(self.b(self.a(image)))}

    model = trace_to_onnx(ByteGraph(Net()), None, None)
    work = count_work(model, 64, 96)
    inside = 32 * 48  # pixels of the inner layers
    assert work.operations == 2 * inside * (3 * 8 * 9 + 8 * 2 * 9 + 8 * 1 * 4)
    moved = 3 * 64 * 96 + 8 * inside, 8 * inside + 8 * inside, 8 * inside + 64 * 96
    assert work.tensor_bytes == 2 * sum(map(sum, zip(moved, strict=True)))
    assert work.floor_ms(1e12, 1e30) == pytest.approx(work.operations / 1e9)


@pytest.fixture
def bench(repository, tmp_path):
    """Runs the benchmark over the stand-in."""
    paths = [str(ROOT / "test" / "standin"), str(ROOT), *(str(ROOT / p) for p in
             ("trt", "training", "demo"))]  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.gpu", "--size", "96x64", "--repeats", "5"]
    command += ["--warm-up-s", "0.2", "--growth-frames", "20", "--out", str(tmp_path / "out")]

    def run(*arguments, **settings):
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | settings
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environ,
                              cwd=repository, check=False)  # fmt: skip
        found = tmp_path / "out" / "gpu.json"
        return done, json.loads(found.read_text()) if found.is_file() else None

    return run


@pytest.fixture(scope="session")
def shipped(repository):
    models = sorted((repository / "models").glob("*nyu*.onnx"))
    if not models:
        pytest.skip("no shipped model")
    return models[0].stem


def test_the_whole_benchmark_over_the_stand_in(bench, shipped, tmp_path):
    done, found = bench("--models", shipped, "--precisions", "fp16", "--keep", str(tmp_path / "k"))
    assert done.returncode == 0, done.stdout + done.stderr
    engines = found["models"][shipped]["engines"]
    assert set(engines) == {"fp16 both", "fp16 depth", "fp16 sharp"}
    for values in engines.values():
        assert 0 < values["p50_ms"] <= values["p95_ms"] <= values["p99_ms"]
        # What the engine took, not what others have: image and heads of 96x64.
        assert 0 < values["engine_gpu_bytes"] < 1 << 20
    assert engines["fp16 both"]["growth"]["frames"] == 20
    assert (found["repeats"], found["warm_up_s"]) == (5, 0.2)
    assert found["models"][shipped]["moved_bytes"] > 0
    assert engines["fp16 depth"]["heads"] == ["depth_m"]
    others = found["models"][shipped]["others"]
    assert "sees no CUDA device" in others["torch"]
    for kind in ("fp32", "tf32"):
        assert "CUDAExecutionProvider" in others[f"onnxruntime cuda {kind}"]
    assert f"{shipped} │ TensorRT fp16 both" in done.stdout  # not cut, though it is no terminal
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gpu.json", "gpu.png"]
    # Again: nothing is built, and only what is asked for.
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "k").rglob("*.engine")}
    done, found = bench("--models", shipped, "--precisions", "fp16", "--head-sets", "depth",
                        "--engines-only", "--keep", str(tmp_path / "k"),
                        STANDIN_WRONG="2")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["models"][shipped]["others"] == {}
    assert set(found["models"][shipped]["engines"]) == {"fp16 depth"}
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_an_engine_that_was_kept_is_not_taken_for_another(bench, shipped, tmp_path):
    keep, level = tmp_path / "k", ["--optimization-level", "2"]
    for size, options in (("96x64", []), ("64x32", []), ("96x64", level)):
        done, found = bench("--models", shipped, "--precisions", "fp16", "--head-sets", "depth",
                            "--engines-only", "--keep", str(keep), "--size", size,
                            *(["--engine-options", *options] if options else []))  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert found["models"][shipped]["engines"]["fp16 depth"]["p50_ms"] > 0
        assert found["engine_options"] == options
    plain, other = sorted(folder for folder in keep.iterdir() if folder.is_dir())
    assert plain.name == f"{shipped}-depth"
    names = [sorted(path.name for path in folder.glob("*.engine")) for folder in (plain, other)]
    assert names == [["fp16-64x32.engine", "fp16-96x64.engine"], ["fp16-96x64.engine"]]
    engine, model = other / "fp16-96x64.engine", resolve_model(shipped, ".onnx", parameter="")
    machine = read_manifest(engine).machine
    assert gpu.is_built(engine, model, machine)
    assert not gpu.is_built(engine, model, replace(machine, gpu_name="another"))
    assert not gpu.is_built(engine, manifest_path(engine), machine)
    engine.write_bytes(engine.read_bytes()[:-1])
    assert not gpu.is_built(engine, model, machine)


def test_what_fails_does_not_take_the_rest_along(bench, shipped):
    done, found = bench("--models", "no-such-network", shipped, "--precisions", "fp16", "int8",
                        "--head-sets", "depth", "--engines-only")  # fmt: skip
    assert done.returncode == 1
    assert "no-such-network" in found["models"]["no-such-network"]["error"]
    engines = found["models"][shipped]["engines"]
    assert engines["fp16 depth"]["p50_ms"] > 0
    assert "--calibrate FOLDER" in engines["int8 depth"]["error"]
    for text in (
        f"{shipped} int8 depth: int8: expected",
        "no-such-network: network: expected one of",
    ):
        assert text in done.stdout


@pytest.mark.parametrize("wrong", ["1.01", "1.05"])
def test_an_engine_that_is_refused_is_measured_all_the_same(bench, shipped, tmp_path, wrong):
    """The second one fails its self-test too."""
    keep = ["--head-sets", "depth", "--engines-only", "--keep", str(tmp_path / "k")]
    command = ["--models", shipped, "--precisions", "fp16", *keep]
    done, found = bench(*command, STANDIN_WRONG=wrong)
    assert done.returncode == 1
    values = found["models"][shipped]["engines"]["fp16 depth"]
    assert values["p50_ms"] > 0
    assert values["parity"]["depth_m"]["passed"] is False
    assert ("depth_m off by" if wrong == "1.05" else "depth_m differs by") in values["error"]
    assert "TensorRT fp16 depth (!)" in done.stdout
    assert not list((tmp_path / "k").glob("*/*.engine"))
    if wrong == "1.05":
        return
    # What was refused before is neither measured again nor in the way of one that is right.
    done, found = bench(*command, "--step-limit-s", "0.5")
    assert "not done within" in found["models"][shipped]["engines"]["fp16 depth"]["error"]
    assert "p50_ms" not in found["models"][shipped]["engines"]["fp16 depth"]
    done, found = bench(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error" not in found["models"][shipped]["engines"]["fp16 depth"]


def test_the_latency_stays_where_the_memory_is_not_read(monkeypatch, capsys):
    def figures(*_):
        yield {"p50_ms": 1.0}
        raise RuntimeError("the GPU fell off the bus")

    monkeypatch.setattr(gpu_engine, "measure", figures)
    with pytest.raises(RuntimeError, match="fell off"):
        gpu_engine.main(["x.engine"])
    assert json.loads(capsys.readouterr().out) == {"p50_ms": 1.0}


def test_of_an_engine_that_is_refused_every_figure_is_kept():
    """The message of a model with four heads is longer than a screen's line or two."""
    figures = "differs by mean 0.001, p99 0.003, max 0.004 m, 0.2% beyond 0.004 m + 0.004 relative"
    heads = "; ".join(f"{name} {figures}" for name in HEADS)
    text = f"error: engine: expected the model's answers, got {heads}; choose another TensorRT"
    assert gpu.reason(f"building\ncomparing\n{text}\n") == text.removeprefix("error: ")
    assert gpu.reason("building\nSegmentation fault") == "building Segmentation fault"
    assert gpu.reason("") == "it printed nothing"


def test_the_factor_against_torch_stands_in_the_table():
    latency = {"p50_ms": 2.0, "p95_ms": 3.0, "p99_ms": 4.0}
    others = {"torch eager fp32": latency, "torch eager tf32": "out of memory"}
    fast = {key: value / 5 for key, value in latency.items()}
    console = Console(width=120, file=io.StringIO())
    results = {
        "m": {"others": others, "engines": {"fp16 both": fast, "fp32": {"error": "x" * 99}}}
    }
    console.print(gpu.table(results, "640x480"))
    rows = [line.split() for line in console.file.getvalue().splitlines() if "TensorRT" in line]
    assert rows[0][-4:] == ["│", "5.0", "│", "│"]
    assert "failed" in rows[1]


def test_no_build_begins_after_the_time_limit(bench, shipped):
    done, found = bench("--models", shipped, "--limit-s", "1e-9")
    assert done.returncode == 0
    assert len(found["left_out"]) == 7
    assert found["models"] == {}
    assert "left out for the time limit" in done.stdout


def test_what_matters_most_comes_first():
    steps = [str(step) for step in gpu.ordered_steps(["a", "b"], ["fp16", "fp32"],
                                                     ["both", "depth"])]  # fmt: skip
    assert steps == [
        "a fp16 both", "b fp16 both", "a others", "b others", "a fp16 depth", "b fp16 depth",
        "a fp32 both", "b fp32 both", "a fp32 depth", "b fp32 depth",
    ]  # fmt: skip


def test_each_step_is_on_the_disk_when_it_is_done(tmp_path, monkeypatch):
    options = gpu._parser().parse_args(["--out", str(tmp_path)])
    bench = gpu.Bench(options, GpuMachine("x", "9.0", "12.6", "8.6.0", True), tmp_path)

    def do(step, result):
        if step.head_set == "depth":
            raise KeyboardInterrupt
        result["engines"][step.head_set] = {"p50_ms": 1.0}

    monkeypatch.setattr(bench, "_do", do)
    with pytest.raises(KeyboardInterrupt):
        bench.run([gpu.Step("m", "fp16", "both"), gpu.Step("m", "fp16", "depth")], Console())
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["models"]["m"]["engines"] == {"both": {"p50_ms": 1.0}}


def test_what_was_measured_stays_where_the_work_cannot_be_counted(tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("expected a known size")

    options = gpu._parser().parse_args(["--out", str(tmp_path)])
    bench = gpu.Bench(options, GpuMachine("x", "9.0", "12.6", "8.6.0", True), tmp_path)
    monkeypatch.setattr(gpu, "model_files", lambda *_: (tmp_path / "m.onnx", None))
    monkeypatch.setattr(gpu, "run_json", lambda *_, **__: {"torch eager fp32": {"p50_ms": 1.0}})
    monkeypatch.setattr(gpu.onnx, "load", lambda _: None)
    monkeypatch.setattr(gpu, "count_work", refuse)
    bench.run([gpu.Step("m")], Console(quiet=True))
    found = json.loads((tmp_path / "gpu.json").read_text())["models"]["m"]
    assert found["others"] == {"torch eager fp32": {"p50_ms": 1.0}}
    assert bench.failures == ["m: expected a known size"]


def test_a_program_that_fails_half_way_keeps_what_it_found(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text(
        "import sys, time\nprint('{\"a\": 1}', flush=True)\nprint('noise', flush=True)\n"
        "time.sleep(float(sys.argv[1]))\nsys.exit('out of memory')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert gpu.run_json("half", "0") == {"a": 1, "error": "out of memory"}
    assert gpu.run_json("half", "60", timeout_s=3.0) == {"a": 1, "error": "not done within 3 s"}


def test_another_python_gets_the_projects_code_and_nothing_of_this_one(tmp_path, monkeypatch):
    told = tmp_path / "told.py"
    told.write_text("import json, os, sys; print(json.dumps({'a': sys.argv[1:], **os.environ}))")
    other = tmp_path / "python"
    other.write_text(
        '#!/bin/sh\nexport LIBRARIES="$LD_LIBRARY_PATH"\nunset LD_LIBRARY_PATH\n'
        f'exec "{sys.executable}" "{told}" "$@"\n'
    )
    other.chmod(0o755)
    for name, text in {
        "PYTHONHOME": "/bundle/python", "PYTHONPATH": "/bundle/packages",
        "LD_LIBRARY_PATH": "/bundle/lib:/driver", "DDFD_OUTSIDE_LIBRARIES": "/driver",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, text)
    found = gpu.run_json("a.module", "--size", "8x8", python=other)
    assert found["a"] == ["-m", "a.module", "--size", "8x8"]
    assert found["LIBRARIES"] == "/driver"
    assert "PYTHONHOME" not in found
    assert found["PYTHONPATH"].split(os.pathsep) == [str(ROOT), str(ROOT / "trt")]


def test_the_other_runtimes_run_by_the_python_that_is_named(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(gpu, "run_json", lambda *_, **named: called.append(named) or {"a": 1})
    monkeypatch.setattr(gpu, "model_files", lambda *_: (tmp_path / "m.onnx", None))
    monkeypatch.setattr(gpu.onnx, "load", lambda _: None)
    monkeypatch.setattr(gpu, "count_work", lambda *_: SimpleNamespace(operations=1, moved_bytes=1))
    options = gpu._parser().parse_args(["--out", str(tmp_path), "--others-python", "/opt/python"])
    bench = gpu.Bench(options, GpuMachine("x", "9.0", "12.6", "8.6.0", True), tmp_path)
    bench.run([gpu.Step("m")], Console(quiet=True))
    assert called[0]["python"] == Path("/opt/python")


def test_torch_answers_through_page_locked_memory(lite_checkpoint, monkeypatch):
    network, contract = load_checkpoint(lite_checkpoint)
    graph = ByteGraph(network, contract.outputs)
    pinned, waits = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(True))
    empty = torch.empty

    def note(*shape, pin_memory=False, **options):
        pinned.append(pin_memory)
        return empty(*shape, **options)

    with torch.inference_mode():
        expected = graph(*graph.examples(64, 96))
        monkeypatch.setattr(torch, "empty", note)
        run = TorchRun(torch, graph, (64, 96), device="cpu")
        got = run()
    assert pinned[-len(expected) :] == [True] * len(expected)
    assert len(waits) == 1
    for answer, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(answer, wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_torch_needs_no_checkpoint(two_headed_checkpoint, tmp_path):
    """A bundle has the ONNX file alone."""
    path = tmp_path / "m.onnx"
    export_onnx(two_headed_checkpoint, path)
    (network, outputs), (same, _) = (
        torch_network(*files) for files in ((None, str(path)), (str(two_headed_checkpoint), None))
    )
    assert outputs == ("depth_m", "sharp_rgb")
    shapes = [{name: v.shape for name, v in net.state_dict().items()} for net in (network, same)]
    assert shapes[0] == shapes[1]
    assert len(ByteGraph(network, outputs)(torch.zeros(64, 96, 3, dtype=torch.uint8))) == 2


@pytest.mark.parametrize("allowed", [False, True])
def test_single_precision_is_told_from_tf32(allowed):
    before = [owner.allow_tf32 for owner in (torch.backends.cudnn, torch.backends.cuda.matmul)]
    try:
        allow_tf32(torch, allowed)
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_clocks_are_read_while_the_work_goes_on(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nsleep 0.3\necho 1980 MHz\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = []
    assert clocks_under(lambda: done.append(time.sleep(0.01))) == "1980 MHz"
    assert len(done) > 3
    monkeypatch.setattr(gpu_engine, "_SMI_LIMIT_S", 0.3)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    start = time.perf_counter()
    assert clocks_under(lambda: None) == ""
    assert time.perf_counter() - start < 10
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert clocks_under(lambda: None) == ""


def test_resident_memory_is_counted_in_the_systems_pages(monkeypatch):
    at_4_kib = resident_bytes() * 4096 / os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(os, "sysconf", lambda name: 65536)  # as on some ARM systems
    assert resident_bytes() == pytest.approx(16 * at_4_kib, rel=0.1)


def test_work_goes_on_for_the_warm_up():
    start, done = time.perf_counter(), []
    warm_up(lambda: done.append(time.sleep(0.01)), 0.2)
    assert time.perf_counter() - start >= 0.2
    assert len(done) > 3
