"""Makes an exported ONNX graph small and plain: no batch norms, identities or constant nodes.

The exporter leaves batch norms as they are. One that follows a convolution is folded into its
weights; one that stands before an activation (a dense block's) becomes a product and a sum, which
every runtime fuses into its neighbours. Softplus is written so that half precision holds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

_FOLD_LIMIT_BYTES = 1 << 20
"""Constants larger than this are not computed ahead: they would swell the file."""


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify a model in place and return it.

    Only graphs without subgraphs (no If, Loop, Scan) are understood; exported networks have none.
    """
    graph = model.graph
    _inline_constants(graph)
    _drop_copies(model)
    _fold_batch_norms(graph)
    _bound_softplus(graph)
    _fold_constants(model)
    _merge_equal_initializers(graph)
    remove_unused(graph)
    del graph.value_info[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output depends on."""
    needed = {item.name for item in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):  # sorted: makers before users
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    _replace(graph.node, reversed(kept))
    _replace(graph.initializer, [item for item in graph.initializer if item.name in needed])


def _replace(field: object, items: Iterable[object]) -> None:
    """Replace the content of a repeated protobuf field."""
    kept = list(items)
    del field[:]  # type: ignore[attr-defined]
    field.extend(kept)  # type: ignore[attr-defined]


def _inline_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initializers."""
    rest = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            graph.initializer.append(
                numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
            )
        else:
            rest.append(node)
    _replace(graph.node, rest)


def _drop_copies(model: onnx.ModelProto) -> None:
    """Let users read through Identity nodes and casts to the type a tensor has already.

    A node that makes a graph output stays.
    """
    graph = model.graph
    outputs = {item.name for item in graph.output}
    types = _tensor_types(model)
    source: dict[str, str] = {}
    rest = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        idle = node.op_type == "Identity" or (
            node.op_type == "Cast" and types.get(node.input[0]) == node.attribute[0].i
        )
        if idle and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
        else:
            rest.append(node)
    _replace(graph.node, rest)


def _tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of the inputs of all casts, as far as inference finds them."""
    graph = model.graph
    types = {item.name: item.type.tensor_type.elem_type for item in graph.input}
    outputs = {item.name for item in graph.output}
    casts = [node for node in graph.node if node.op_type == "Cast"]
    if all(node.input[0] in types or node.output[0] in outputs for node in casts):
        return types  # inference copies all weights: not without need
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    return types | {item.name: item.type.tensor_type.elem_type for item in inferred}


def _fold_batch_norms(graph: onnx.GraphProto) -> None:
    """Fold every batch norm into the convolution before it, or into a product and a sum."""
    weights = {item.name: item for item in graph.initializer}
    users = Counter(name for node in graph.node for name in node.input)
    users.update(item.name for item in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    rest: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            rest.append(node)
            continue
        scale, shift = _affine_of(node, weights)
        before = makers.get(node.input[0])
        if (
            before is not None
            and before.op_type in ("Conv", "ConvTranspose")
            and users[node.input[0]] == 1
            and before.input[1] in weights
        ):
            _fold_into_convolution(graph, before, weights, scale, shift)
            before.output[0] = node.output[0]
            makers[node.output[0]] = before
        else:
            rest += _product_and_sum(graph, node, scale, shift)
    _replace(graph.node, rest)


def _affine_of(
    node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift per channel in double precision: y = scale x + shift."""
    gamma, beta, mean, variance = (
        numpy_helper.to_array(weights[name]).astype(np.float64) for name in node.input[1:5]
    )
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _fold_into_convolution(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    weights: dict[str, onnx.TensorProto],
    scale: np.ndarray,
    shift: np.ndarray,
) -> None:
    kernel = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
    if node.op_type == "Conv":  # [out, in / groups, ...]
        kernel = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
    else:  # [in, out / groups, ...]: output channels are numbered group by group
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        split = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
        factors = scale.reshape(groups, 1, -1, *[1] * (kernel.ndim - 2))
        kernel = (split * factors).reshape(kernel.shape)
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(weights[node.input[2]]).astype(np.float64)
        shift = shift + bias * scale
    name = node.output[0]
    folded = [_constant(graph, f"{name}_weight", kernel), _constant(graph, f"{name}_bias", shift)]
    weights |= {item.name: item for item in graph.initializer[-2:]}  # another norm may follow
    _replace(node.input, [node.input[0], *folded])


def _product_and_sum(
    graph: onnx.GraphProto, node: onnx.NodeProto, scale: np.ndarray, shift: np.ndarray
) -> list[onnx.NodeProto]:
    """The same affine map as two nodes over ``[N, C, H, W]``."""
    output = node.output[0]
    shape = (1, -1, 1, 1)
    factor = _constant(graph, f"{output}_scale", scale.reshape(shape))
    summand = _constant(graph, f"{output}_shift", shift.reshape(shape))
    product = f"{output}_scaled"
    return [
        onnx.helper.make_node("Mul", [node.input[0], factor], [product], name=f"{output}_Mul"),
        onnx.helper.make_node("Add", [product, summand], [output], name=f"{output}_Add"),
    ]


def _bound_softplus(graph: onnx.GraphProto) -> None:
    """Write softplus as max(x, 0) + log(1 + exp(-|x|)), which is the same.

    Its definition log(1 + exp(x)) leaves the range of half precision at x = 11.09: a builder that
    may choose half precision by itself (TensorRT before 11) could answer infinity.
    """
    rest: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Softplus":
            rest.append(node)
            continue
        source, target = node.input[0], node.output[0]
        linear, size, negative, smooth = (
            f"{target}_{part}" for part in ("linear", "size", "negative", "smooth")
        )
        for kind, inputs, output in (
            ("Relu", [source], linear),
            ("Abs", [source], size),
            ("Neg", [size], negative),
            ("Softplus", [negative], smooth),
            ("Add", [linear, smooth], target),
        ):
            rest.append(onnx.helper.make_node(kind, inputs, [output], name=f"{output}_{kind}"))
    _replace(graph.node, rest)


def _constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return name


def _fold_constants(model: onnx.ModelProto) -> None:
    """Compute ahead every node whose inputs are all constant."""
    graph = model.graph
    known = {item.name: item for item in graph.initializer}
    outputs = {item.name for item in graph.output}
    rest = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if not inputs or not known.keys() >= set(inputs) or outputs.intersection(node.output):
            rest.append(node)
            continue
        values = _evaluate(node, [known[name] for name in inputs], model.opset_import)
        if sum(value.nbytes for value in values) > _FOLD_LIMIT_BYTES:
            rest.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            known[name] = numpy_helper.from_array(value, name)
            graph.initializer.append(known[name])
    _replace(graph.node, rest)


def _evaluate(
    node: onnx.NodeProto,
    inputs: list[onnx.TensorProto],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> list[np.ndarray]:
    """Run one node with ONNX's reference implementation."""
    from onnx.reference import ReferenceEvaluator

    ports = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    small = onnx.helper.make_graph([node], "constant", [], ports, initializer=inputs)
    single = onnx.helper.make_model(small, opset_imports=list(opsets))
    return [np.asarray(value) for value in ReferenceEvaluator(single).run(None, {})]


def _merge_equal_initializers(graph: onnx.GraphProto) -> None:
    """Keep one of several equal constants."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for item in graph.initializer:
        value = numpy_helper.to_array(item)
        key = (item.data_type, tuple(item.dims), value.tobytes())
        same[item.name] = first.setdefault(key, item.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
