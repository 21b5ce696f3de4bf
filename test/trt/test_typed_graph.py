"""Graphs that carry their precision themselves, run by ONNX Runtime: it takes no mixed types."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from ddfd_ros.core.metadata import golden_image
from ddfd_ros.inference.lens_input import LENS_NAME, own_lens
from ddfd_ros.inference.onnx_file import load_onnx
from ddfd_trt.calibrate import ImageBatches
from ddfd_trt.export_onnx import export_onnx
from ddfd_trt.typed_graph import half_precision, quantised

MODELS = sorted((Path(__file__).resolve().parents[2] / "models").glob("*.onnx"))
NAMES = [*(path.stem for path in MODELS), "2hded"]
HEIGHT, WIDTH = 64, 96
HALF, INT8 = TensorProto.FLOAT16, TensorProto.INT8


@pytest.fixture(scope="module")
def two_headed(two_headed_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("typed") / "2hded.onnx"
    export_onnx(two_headed_checkpoint, path)
    return path


@pytest.fixture(params=NAMES)
def model(request):
    """Graph, and what it takes beside the image."""
    shipped = {path.stem: path for path in MODELS}
    path = shipped.get(request.param) or request.getfixturevalue("two_headed")
    graph, contract = load_onnx(path)
    lens = own_lens(contract)
    return graph, {} if lens is None else {LENS_NAME: lens}


def batches_of(folder, graph, beside, count=3):
    import cv2

    for seed in range(count):
        picture = cv2.GaussianBlur(golden_image(HEIGHT, WIDTH, seed), (0, 0), 1 + seed)
        cv2.imwrite(str(folder / f"{seed}.png"), picture)
    size = (HEIGHT, WIDTH)
    return ImageBatches.from_folder(folder, count, size, folder / "cache", graph, beside)


@pytest.fixture(scope="module")
def calibrated(request, tmp_path_factory, two_headed):
    """A graph, what it takes beside the image, its int8 form, and how many answers were held."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    shipped = {path.stem: path for path in MODELS}
    graph, contract = load_onnx(shipped.get(request.param, two_headed))
    lens = own_lens(contract)
    beside = {} if lens is None else {LENS_NAME: lens}
    held, collect = [], HistogramCollector.collect

    def note(self, arrays):
        held.append(max(len(values) for values in arrays.values()))
        return collect(self, arrays)

    batches = batches_of(tmp_path_factory.mktemp("pictures"), graph, beside)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(HistogramCollector, "collect", note)
        text = quantised(graph, batches)
    return SimpleNamespace(graph=graph, beside=beside, int8=text, held=held, said=said.getvalue())


def run(graph, beside):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(
        zip(names, session.run(names, {"image": golden_image(HEIGHT, WIDTH, 1), **beside}),
            strict=True)
    )  # fmt: skip


def nodes_and_types(text):
    """The nodes, who makes each tensor, and the type of each."""
    model = onnx.load_model_from_string(text)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    infos = [*graph.value_info, *graph.input, *graph.output]
    types = {item.name: item.type.tensor_type.elem_type for item in infos}
    types |= {item.name: item.data_type for item in graph.initializer}
    return graph.node, {name: node for node in graph.node for name in node.output}, types


def test_half_precision_computes_the_same(model):
    graph, beside = model
    half = half_precision(graph)
    expected, got = run(graph, beside), run(half, beside)
    assert {name: value.dtype for name, value in got.items()} == {
        name: value.dtype for name, value in expected.items()
    }
    np.testing.assert_allclose(got["depth_m"], expected["depth_m"], rtol=0.03, atol=0.03)
    nodes, _, types = nodes_and_types(half)
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert convolutions
    assert {types[name] for node in convolutions for name in node.input} == {HALF}


@pytest.mark.parametrize("calibrated", ["ddfd-lite-any", "2hded"], indirect=True)
def test_int8_is_half_precision_elsewhere(calibrated):
    assert calibrated.said == ""
    assert calibrated.held == [1, 1, 1]  # the answers of one picture at a time
    graph, beside = calibrated.graph, calibrated.beside
    text = half_precision(calibrated.int8)
    nodes, makers, types = nodes_and_types(text)
    for node in nodes:
        if node.op_type == "Conv":  # nothing stands between it and its ranges
            assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert {types[name] for name in node.input} == {HALF}
        elif node.op_type == "QuantizeLinear":
            assert [types[name] for name in node.input] == [HALF, HALF, INT8]
        elif node.op_type in ("Relu", "Add", "Mul", "Concat", "Resize"):
            assert types[node.output[0]] in (HALF, TensorProto.INT64)
    expected, got = run(graph, beside)["depth_m"], run(text, beside)["depth_m"]
    assert np.isfinite(got).all()
    assert np.median(np.abs(got - expected)) < 0.5


@pytest.mark.parametrize("calibrated", ["ddfd-lite-any"], indirect=True)
def test_no_scale_becomes_zero_in_half_precision(calibrated):
    single = onnx.load_model_from_string(calibrated.int8)
    weights = next(n for n in single.graph.node if n.op_type == "DequantizeLinear"
                   and "weight" in n.input[0])  # fmt: skip
    scale = next(item for item in single.graph.initializer if item.name == weights.input[1])
    values = numpy_helper.to_array(scale).copy()
    values[0] = 1e-12  # a channel without weights to speak of
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))
    half = onnx.load_model_from_string(half_precision(single.SerializeToString()))
    scales = {name for n in half.graph.node if n.op_type == "DequantizeLinear"
              for name in n.input[1:2]}  # fmt: skip
    arrays = [numpy_helper.to_array(i) for i in half.graph.initializer if i.name in scales]
    assert arrays
    assert all((array > 0).all() and array.dtype == np.float16 for array in arrays)
