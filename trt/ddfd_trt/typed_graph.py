"""Graphs whose own types say how they are computed, for a TensorRT without precision flags (11).

Half precision is written into the graph by casts, int8 by pairs of QuantizeLinear and
DequantizeLinear before the convolutions, with half precision between them.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ddfd_ros.inference.graph import INPUT_NAME
from ddfd_trt.files import write_atomically

if TYPE_CHECKING:
    from ddfd_trt.calibrate import ImageBatches

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
# Their values or slopes leave the range of half precision, or their type is an attribute's; they
# are a sliver of the work.
_KEPT = frozenset(
    ("ConstantOfShape", "Exp", "Log", "Pow", "Reciprocal", "ReduceMean", "ReduceSum", "Softplus")
)
# Inputs that ONNX wants in single precision whatever the data's type is.
_SINGLE_INPUTS = {"Resize": (1, 2)}
_QUANTISING = ("QuantizeLinear", "DequantizeLinear")
# The first opset in which these two take half precision, and its file format.
_HALF_SCALES_OPSET, _HALF_SCALES_IR = 19, 9


def half_precision(graph: bytes) -> bytes:
    """The same model computing in half precision; inputs and outputs keep their types.

    Args:
        graph: A serialised ONNX model without subgraphs, its float tensors in single precision.
    """
    model = onnx.load_model_from_string(graph)
    if any(node.op_type in _QUANTISING for node in model.graph.node):
        model = onnx.version_converter.convert_version(model, _HALF_SCALES_OPSET)
        model.ir_version = max(model.ir_version, _HALF_SCALES_IR)
        _raise_scales(model.graph)
    _Halver(model).run()
    onnx.checker.check_model(model, full_check=True)  # also that no node mixes types
    text: bytes = model.SerializeToString()
    return text


def _raise_scales(graph: onnx.GraphProto) -> None:
    """Leave no scale that half precision would make zero, which TensorRT refuses."""
    scales = {node.input[1] for node in graph.node if node.op_type in _QUANTISING}
    for item in graph.initializer:
        if item.name in scales:
            values = np.maximum(numpy_helper.to_array(item), np.float32(_SMALLEST))
            item.CopyFrom(numpy_helper.from_array(values, item.name))


class _Halver:
    """Changes one model in place, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph
        self._weights = {
            item.name: item
            for item in self._graph.initializer
            if item.data_type == TensorProto.FLOAT
        }
        self._float = self._float_tensors()
        self._outputs = {item.name for item in self._graph.output}
        self._inputs = {
            item.name
            for item in self._graph.input
            if item.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._half_weights: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Rewrite nodes and weights."""
        for name in self._inputs:
            self._cast(name, f"{name}_half", TensorProto.FLOAT16)
        for node in self._graph.node:
            self._rewrite(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [item for item in self._graph.initializer if item.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        del self._graph.value_info[:]

    def _float_tensors(self) -> set[str]:
        """Names of all tensors in single precision."""
        inferred = onnx.shape_inference.infer_shapes(self._model).graph
        infos = [*inferred.value_info, *inferred.output, *inferred.input]
        names = {
            item.name for item in infos if item.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        return names | set(self._weights)

    def _rewrite(self, node: onnx.NodeProto) -> None:
        if node.op_type in _KEPT:
            self._keep_single(node)
            return
        if node.op_type == "Cast":
            self._rewrite_cast(node)
            return
        for index, name in enumerate(node.input):
            if index in _SINGLE_INPUTS.get(node.op_type, ()):
                continue
            if name in self._weights:
                node.input[index] = self._half_weight(name)
            elif name in self._inputs:
                node.input[index] = f"{name}_half"
        self._nodes.append(node)
        self._restore_outputs(node)

    def _rewrite_cast(self, node: onnx.NodeProto) -> None:
        """Bytes become single, then half; half becomes single, then bytes: all parsers take it."""
        to = next(item for item in node.attribute if item.name == "to")
        name = node.output[0]
        if to.i == TensorProto.FLOAT:
            node.output[0] = f"{name}_single"
            self._nodes.append(node)
            self._cast(node.output[0], name, TensorProto.FLOAT16)
        elif node.input[0] in self._float:
            single = f"{node.input[0]}_to_{name}"
            self._cast(node.input[0], single, TensorProto.FLOAT)
            node.input[0] = single
            self._nodes.append(node)
        else:
            self._nodes.append(node)

    def _keep_single(self, node: onnx.NodeProto) -> None:
        """Compute one node in single precision between casts."""
        for index, name in enumerate(node.input):
            if name in self._float and name not in self._weights and name not in self._inputs:
                single = f"{node.output[0]}_in{index}"
                self._cast(name, single, TensorProto.FLOAT)
                node.input[index] = single
        name = node.output[0]
        if name in self._outputs or name not in self._float:
            self._nodes.append(node)
            return
        node.output[0] = f"{name}_single"
        self._nodes.append(node)
        self._cast(node.output[0], name, TensorProto.FLOAT16)

    def _restore_outputs(self, node: onnx.NodeProto) -> None:
        """A head of the model stays in single precision."""
        for index, name in enumerate(node.output):
            if name in self._outputs and name in self._float:
                node.output[index] = f"{name}_half"
                self._cast(node.output[index], name, TensorProto.FLOAT)

    def _half_weight(self, name: str) -> str:
        if name not in self._half_weights:
            values = numpy_helper.to_array(self._weights[name])
            halved = np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)
            self._half_weights[name] = f"{name}_half"
            self._graph.initializer.append(
                numpy_helper.from_array(halved, self._half_weights[name])
            )
        return self._half_weights[name]

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], to=kind))


def quantised(graph: bytes, batches: ImageBatches) -> bytes:
    """The same model with its convolutions in int8, ranges chosen by entropy over pictures.

    Symmetric, weights by channel, as TensorRT wants it; what is not int8 is in single precision.
    The result is kept in ``batches.cache``.
    """
    cache = batches.cache.with_suffix(".inputs-qdq.onnx")
    if cache.is_file():
        return cache.read_bytes()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(batches)
            self._left = len(self)

        def __len__(self) -> int:
            return len(batches.paths)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = end_index - start_index

        def get_next(self) -> dict[str, Any] | None:
            self._left -= 1
            image = next(self._images, None) if self._left >= 0 else None
            return None if image is None else {INPUT_NAME: image, **batches.beside}

    # ONNX Runtime prints a line per picture and more.
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        source, target = Path(folder) / "model.onnx", Path(folder) / "quantised.onnx"
        source.write_bytes(graph)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Entropy,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Conv"],  # as NVIDIA advises
                # Whatever the method, so many pictures at once: all outputs of all convolutions
                # are kept for each, hundreds of megabytes.
                "CalibStridedMinMax": 1,
            },
        )
        text = target.read_bytes()
    write_atomically(cache, text)
    return text
