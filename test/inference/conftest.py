"""Small real ONNX graphs with the exported signature, whose answers numpy can compute."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract, make_golden
from ddfd_ros.core.thin_lens import LENS_PRESETS

STANDIN = Path(__file__).resolve().parents[1] / "standin"
WEIGHTS = np.random.default_rng(3).normal(size=(1, 3, 3, 3)).astype(np.float32)


def reference(image: np.ndarray) -> dict[str, np.ndarray]:
    """What the graph below computes, by sums over shifted copies."""
    padded = np.pad(image.astype(np.float64) / 255, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    depth = np.full((height, width), 5.0)
    for channel in range(3):
        for row in range(3):
            for column in range(3):
                part = padded[row : row + height, column : column + width, channel]
                depth += WEIGHTS[0, channel, row, column] * part
    return {
        "depth_m": depth.astype(np.float32),
        "sigma_m": (np.abs(depth) * 0.1).astype(np.float32),
        "sharp_rgb": (image // 2 + 10).astype(np.uint8),
    }


def contract(**changes) -> ModelContract:
    values = {
        "format_version": 1,
        "network": "tiny",
        "network_options": {"heads": "both"},
        "parameter_count": 28,
        "input_height": None,
        "input_width": None,
        "size_multiple": 32,
        "outputs": ("depth_m", "sigma_m", "sharp_rgb"),
        "depth_min_m": 0.5,
        "depth_max_m": 10.0,
        "lens": LENS_PRESETS["nyu-8m"],
        "training": {"seed": 1},
        "metrics": {},
        "weights_sha256": "0" * 64,
    }
    return ModelContract(**(values | changes))


def graph(
    height: int | str = "height",
    width: int | str = "width",
    batched: bool = False,
    input_name: str = "image",
) -> onnx.ModelProto:
    """The sums of ``reference`` as an ONNX graph, uint8 ``[H, W, 3]`` in."""
    nodes, front = [], [1] if batched else []
    flat = input_name
    if batched:
        nodes.append(helper.make_node("Squeeze", [input_name, "first"], ["flat"]))
        flat = "flat"
    back = (
        (lambda name, source: helper.make_node("Unsqueeze", [source, "first"], [name]))
        if batched
        else (lambda name, source: helper.make_node("Identity", [source], [name]))
    )
    nodes += [
        helper.make_node("Cast", [flat], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[2, 0, 1]),
        helper.make_node("Unsqueeze", ["planes", "first"], ["batch"]),
        helper.make_node("Div", ["batch", "full"], ["unit"]),
        helper.make_node("Conv", ["unit", "weights", "bias"], ["filtered"], pads=[1] * 4),
        helper.make_node("Squeeze", ["filtered", "first_two"], ["depth"]),
        back("depth_m", "depth"),
        helper.make_node("Abs", ["depth"], ["size"]),
        helper.make_node("Mul", ["size", "tenth"], ["sigma"]),
        back("sigma_m", "sigma"),
        helper.make_node("Div", ["float", "two"], ["half"]),
        helper.make_node("Floor", ["half"], ["floored"]),
        helper.make_node("Add", ["floored", "ten"], ["brighter"]),
        helper.make_node("Cast", ["brighter"], ["sharp"], to=TensorProto.UINT8),
        back("sharp_rgb", "sharp"),
    ]
    constants = {
        "first": np.array([0]),
        "first_two": np.array([0, 1]),
        "weights": WEIGHTS,
        "bias": np.array([5.0], np.float32),
        "full": np.array(255.0, np.float32),
        "tenth": np.array(0.1, np.float32),
        "two": np.array(2.0, np.float32),
        "ten": np.array(10.0, np.float32),
    }
    sides = [*front, height, width]
    info = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [info(input_name, TensorProto.UINT8, [*sides, 3])],
            [
                info("depth_m", TensorProto.FLOAT, sides),
                info("sigma_m", TensorProto.FLOAT, sides),
                info("sharp_rgb", TensorProto.UINT8, [*sides, 3]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def heavy_sharp() -> onnx.ModelProto:
    """The same graph with ten convolutions of 64 channels in front of ``sharp_rgb``."""
    model = graph()
    nodes = {node.output[0]: node for node in model.graph.node}
    nodes["half"].input[0] = "heavy"
    wide = np.zeros((64, 64, 3, 3), np.float32)
    for name, array in (
        ("first_w", np.zeros((64, 3, 3, 3), np.float32)),
        ("wide_w", wide),
        ("last_w", np.zeros((3, 64, 3, 3), np.float32)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    chain = [helper.make_node("Conv", ["batch", "first_w"], ["wide0"], pads=[1] * 4)]
    for index in range(10):
        names = [f"wide{index}", "wide_w"], [f"wide{index + 1}"]
        chain.append(helper.make_node("Conv", *names, pads=[1] * 4))
    chain += [
        helper.make_node("Conv", ["wide10", "last_w"], ["three"], pads=[1] * 4),
        helper.make_node("Squeeze", ["three", "first"], ["three_planes"]),
        helper.make_node("Transpose", ["three_planes"], ["heavy"], perm=[1, 2, 0]),
    ]
    before = [node for node in model.graph.node if node.output[0] in ("float", "planes", "batch")]
    after = [node for node in model.graph.node if node not in before]
    del model.graph.node[:]
    model.graph.node.extend([*before, *chain, *after])
    return model


def only_64() -> onnx.ModelProto:
    """The same graph with a detour that works for 64 x 64 pixels only."""
    model = graph()
    model.graph.initializer.append(numpy_helper.from_array(np.array([64, 64]), "only"))
    for node in model.graph.node:
        if node.output[0] == "depth_m":
            node.op_type = "Reshape"
            node.input.append("only")
    return model


def write_model(
    path: Path, model: onnx.ModelProto | None = None, text: str | None = None, **changes
) -> Path:
    """Write ``model`` with a contract (``text`` instead of a well-formed one when given)."""
    model = graph() if model is None else model
    if text is None:
        text = contract(**changes).to_json()
    if text:
        helper.set_model_props(model, {CONTRACT_KEY: text})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def make():
    """The helpers above, for test modules (pytest's importlib mode shares no modules)."""
    return SimpleNamespace(
        reference=reference,
        contract=contract,
        graph=graph,
        heavy_sharp=heavy_sharp,
        only_64=only_64,
        write_model=write_model,
        make_golden=make_golden,
    )


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU with TensorRT 10.13 (stand-ins); pycuda's driver module.

    At the end nothing must have happened that would have ended the process.
    """
    monkeypatch.syspath_prepend(str(STANDIN))
    import standin_gpu

    standin_gpu.install(monkeypatch, STANDIN_FAIL=str(tmp_path / "fail"))
    import pycuda.driver

    yield pycuda.driver
    gc.collect()
    assert not pycuda.driver._faults
