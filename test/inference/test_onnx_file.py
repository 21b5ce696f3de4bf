"""Pruning a graph on the wire format, checked by the ``onnx`` package."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.utils
import pytest
from onnx import TensorProto, helper, numpy_helper

from ddfd_ros.inference.onnx_file import WireError, keep_outputs, read_metadata


@pytest.mark.parametrize(
    "outputs", [["depth_m"], ["sigma_m"], ["sharp_rgb"], ["sharp_rgb", "sigma_m"]]
)
def test_same_part_as_onnx_extracts(make, outputs):
    model = make.graph()
    part = onnx.load_from_string(keep_outputs(model.SerializeToString(), outputs))
    onnx.checker.check_model(part, full_check=True)
    extractor = onnx.utils.Extractor(model)
    expected = extractor.extract_model(["image"], sorted(outputs)).graph
    assert {item.name for item in part.graph.output} == set(outputs)
    assert {n.output[0] for n in part.graph.node} == {n.output[0] for n in expected.node}
    assert {i.name for i in part.graph.initializer} == {i.name for i in expected.initializer}


def test_all_outputs_keep_everything(make):
    model = make.graph()
    part = onnx.load_from_string(
        keep_outputs(model.SerializeToString(), ["depth_m", "sigma_m", "sharp_rgb"])
    )
    assert [n.op_type for n in part.graph.node] == [n.op_type for n in model.graph.node]
    assert part.opset_import == model.opset_import


def test_what_a_subgraph_reads_from_outside_is_kept():
    info = helper.make_tensor_value_info
    branch = helper.make_graph(
        [helper.make_node("Mul", ["image", "outer"], ["inner"])],
        "branch",
        [],
        [info("inner", TensorProto.FLOAT, [2])],
    )
    nodes = [
        helper.make_node("Add", ["weight", "weight"], ["outer"]),
        helper.make_node("If", ["flag"], ["a"], then_branch=branch, else_branch=branch),
        helper.make_node("Neg", ["unused"], ["b"]),
    ]
    constants = {
        "weight": np.ones(2, np.float32),
        "unused": np.ones(2, np.float32),
        "flag": np.array(True),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [info("image", TensorProto.FLOAT, [2])],
        [info("a", TensorProto.FLOAT, [2]), info("b", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    part = onnx.load_from_string(keep_outputs(model.SerializeToString(), ["a"]))
    onnx.checker.check_model(part, full_check=True)
    assert [n.op_type for n in part.graph.node] == ["Add", "If"]
    assert {i.name for i in part.graph.initializer} == {"weight", "flag"}


@pytest.mark.parametrize(
    "data", [b"", b"\x08", b"\x3a\x7f", b"\x0b\x00", b"\x08" + b"\xff" * 11, b"\x08\x01"]
)
def test_no_model(data):
    with pytest.raises(WireError):
        read_metadata(data)
