"""What the node does with a model when it is configured, without a node."""

from __future__ import annotations

import math

import onnx
import pytest

from ddfd_ros.ros.model import load_model
from ddfd_ros.ros.parameters import NodeParameters


@pytest.fixture
def fixed(tmp_path, tools):
    """A model whose graph takes 96x64 pixels and no other size."""
    path = tools.write_model(tmp_path / "fixed.onnx", input_height=64, input_width=96)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        height, width = value.type.tensor_type.shape.dim[:2]
        height.dim_value, width.dim_value = 64, 96
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("size", [(480, 640), (32, 640), (0, 640)])
def test_a_model_of_a_smaller_size_is_warmed_up_at_its_own(fixed, size):
    parameters = NodeParameters(
        model_path=str(fixed),
        runtime="onnxruntime",
        threads=1,
        warm_up_height=size[0],
        warm_up_width=size[1],
    )
    model = load_model(parameters, lambda: None)
    assert math.isnan(model.warm_up_ms) == (0 in size)
    model.close()
