"""``ddfd-bench`` on a small model whose slowness is known."""

from __future__ import annotations

import json
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.machine import machine_info
from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract
from ddfd_trt import benchmark


@pytest.fixture
def model(tmp_path):
    """Depth = 1 + red / 255 as a graph."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Gather", ["float", "zero"], ["red"], axis=2),
            helper.make_node("Div", ["red", "full"], ["unit"]),
            helper.make_node("Add", ["unit", "one"], ["depth_m"]),
        ],
        "red",
        [info("image", TensorProto.UINT8, ["height", "width", 3])],
        [info("depth_m", TensorProto.FLOAT, ["height", "width"])],
        [
            numpy_helper.from_array(np.array(0), "zero"),
            numpy_helper.from_array(np.array(255.0, np.float32), "full"),
            numpy_helper.from_array(np.array(1.0, np.float32), "one"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    contract = ModelContract(
        1, "red", {}, 0, None, None, 32, ("depth_m",), 1.0, 2.0, None, {}, {}, ""
    )
    helper.set_model_props(made, {CONTRACT_KEY: contract.to_json()})
    onnx.save(made, tmp_path / "red.onnx")
    return tmp_path / "red.onnx"


def test_table_and_json(model, tmp_path, capsys):
    out = tmp_path / "results" / "bench.json"
    arguments = [str(model), "--runtime", "onnxruntime", "--size", "64x32", "--threads", "1"]
    arguments += ["--heads", "depth_m", "--warm-up", "1", "--repeats", "5", "--json", str(out)]
    assert benchmark.main(arguments) == 0
    assert "onnxruntime" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["config"]["width"] == 64
    assert record["config"]["height"] == 32
    assert record["machine"]["cores"] >= record["machine"]["cores_usable"] >= 1
    assert record["machine"]["packages"]["numpy"] == np.__version__
    (result,) = record["results"]
    assert result["min_ms"] <= result["median_ms"] <= result["p95_ms"] <= result["max_ms"]
    assert result["self_test"] == {"checked": False, "mismatch": {}}


def test_figures_are_those_of_the_backend(model, monkeypatch):
    """A backend that sleeps 20 ms per frame is measured as such."""
    real = benchmark.open_backend

    def slow(*arguments, **options):
        backend = real(*arguments, **options)
        infer = backend.infer

        def sleeping(*values, **more):
            time.sleep(0.02)
            return infer(*values, **more)

        backend.infer = sleeping
        return backend

    monkeypatch.setattr(benchmark, "open_backend", slow)
    config = benchmark.BenchConfig(str(model), height=32, width=32, warm_up=0, repeats=5)
    result = benchmark.measure(config, "onnxruntime")
    assert result.min_ms >= 20
    assert result.fps <= 50
    assert result.fps == pytest.approx(1e3 / result.mean_ms)


def test_the_progress_bar_is_not_part_of_the_rate(model):
    """On a GPU a frame takes hardly longer than the bar."""

    class SlowBar:
        def add_task(self, *_, **__):
            return 0

        def advance(self, task):
            time.sleep(0.1)

    config = benchmark.BenchConfig(str(model), height=32, width=32, warm_up=1, repeats=5)
    result = benchmark.measure(config, "onnxruntime", SlowBar())
    assert result.fps == pytest.approx(1e3 / result.mean_ms)
    assert result.fps > 10


def test_a_shipped_model_goes_by_its_name():
    config = benchmark.BenchConfig("ddfd-lite-nyu-8m", height=32, width=32, warm_up=0, repeats=1)
    assert benchmark.measure(config, "onnxruntime").self_test["checked"]


def test_a_failing_runtime_is_named_and_the_others_still_count(model, capsys):
    arguments = [str(model), "--runtime", "torch", "onnxruntime", "--size", "32x32"]
    assert benchmark.main([*arguments, "--warm-up", "0", "--repeats", "1"]) == 1
    captured = capsys.readouterr()
    assert "torch" in captured.err
    assert "onnxruntime" in captured.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.onnx"], "one of the shipped models"),
        (["no.onnx", "--repeats", "0"], "at least 1"),
        (["no.onnx", "--size", "0x32"], "positive WIDTHxHEIGHT"),
    ],
)
def test_errors_are_messages(arguments, words, capsys):
    assert benchmark.main(arguments) == 1
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("text", ["640", "ax3", "640x", "-1x5"])
def test_bad_sizes_end_the_command_line(text, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_arguments(["m.onnx", f"--size={text}"])
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


def test_bad_configuration():
    with pytest.raises(ContractError, match="repeats"):
        benchmark.BenchConfig("m.onnx", repeats=0)


def test_machine_is_named():
    info = machine_info()
    assert info["cpu"]
    assert info["python"].count(".") == 2
