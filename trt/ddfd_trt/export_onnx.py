"""Checkpoint in, ONNX model with its contract out, checked against PyTorch before it is kept."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract, golden_image, make_golden
from ddfd_ros.core.sidecar import sidecar_path, write_sidecar
from ddfd_ros.model.byte_graph import ByteGraph
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_trt.graph_passes import simplify
from ddfd_trt.parity import compare_outputs
from ddfd_trt.report import contract_metrics

DEFAULT_OPSET = 17
"""The newest operator set of TensorRT 8.5, the oldest that robots still run."""

# fmt: off
TENSORRT_OPERATORS: frozenset[str] = frozenset((
    "Abs", "Add", "AveragePool", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape",
    "Conv", "ConvTranspose", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand",
    "Flatten", "Floor", "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad",
    "Pow", "PRelu", "Reciprocal", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize",
    "Shape", "Sigmoid", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Tanh", "Transpose", "Unsqueeze", "Where",
))
# fmt: on
"""Operators that the tables of TensorRT's ONNX parser list as supported in single and half
precision, in 8.5 as in 10.1; BatchNormalization is too, but none must be left."""

_RUNTIME_ERRORS = (
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.NotImplemented,
    onnxruntime_errors.RuntimeException,
)
GOLDEN_SEED = 1
# Two sizes that share no side, in multiples of the network's own: height, width.
_TRACE_SIDES = (2, 3)
_GOLDEN_SIDES = (3, 5)


def export_onnx(
    checkpoint_path: str | Path,
    output_path: str | Path,
    height: int | None = None,
    width: int | None = None,
    heads: Collection[str] | None = None,
    opset: int = DEFAULT_OPSET,
    reports: Iterable[str | Path] = (),
) -> ModelContract:
    """Export a checkpoint as ONNX with contract and golden sample, and a sidecar beside it.

    Args:
        checkpoint_path: A file of ``save_checkpoint``.
        output_path: The ``.onnx`` file to write. Nothing is written when a check fails.
        height: Fixed height in pixels, a multiple of the network's ``size_multiple``; None with
            ``width`` None for a graph that takes any such multiple.
        width: Fixed width in pixels, likewise.
        heads: Outputs to keep (names of ``HEADS``, whatever the network can give); None for
            those the checkpoint's contract names.
        opset: ONNX operator set.
        reports: Reports of ``ddfd-evaluate --json`` whose main figures go into the contract.

    Returns:
        The contract in the file.

    Raises:
        ContractError: Sizes or heads do not fit the network, the graph holds an operator that
            TensorRT does not take, or a report is about other weights.
        ModelLoadError: The checkpoint does not load, or ONNX Runtime disagrees with PyTorch.
    """
    network, contract = load_checkpoint(checkpoint_path)
    measured = contract_metrics(reports, contract.weights_sha256)
    multiple = contract.size_multiple
    _check_size(height, width, multiple)
    wrapped = ByteGraph(network, contract.outputs if heads is None else heads)
    model = trace_to_onnx(wrapped, height, width, opset)
    check_operators(model)
    if height is None or width is None:
        golden_size = (_GOLDEN_SIDES[0] * multiple, _GOLDEN_SIDES[1] * multiple)
        sizes = [golden_size, (_TRACE_SIDES[0] * multiple, _TRACE_SIDES[1] * multiple)]
    else:
        golden_size, sizes = (height, width), [(height, width)]
    answer = check_parity(wrapped, model, sizes)
    written = dataclasses.replace(
        contract,
        input_height=height,
        input_width=width,
        metrics={**contract.metrics, **measured},
        inputs=wrapped.inputs,
        outputs=wrapped.outputs,
        golden=make_golden(answer, *golden_size, seed=GOLDEN_SEED),
    )
    onnx.helper.set_model_props(model, {CONTRACT_KEY: written.to_json()})
    _write(model, Path(output_path), written)
    return written


def trace_to_onnx(
    wrapped: ByteGraph, height: int | None, width: int | None, opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """Trace a wrapped network into a simplified ONNX model (no contract yet).

    PyTorch's TorchScript exporter is used, not the newer one: it writes operator set 17 itself,
    where the newer one writes 18 and has it converted down, needs onnxscript, and took 37 s for
    2HDED:NET against 2 s here; the nodes left after simplification were the same.
    """
    dynamic = height is None or width is None
    multiple = int(getattr(wrapped.network, "size_multiple", 32))
    sides = (height or _TRACE_SIDES[0] * multiple, width or _TRACE_SIDES[1] * multiple)
    sized = [name for name in wrapped.inputs if name != "lens"]
    axes = {name: {0: "height", 1: "width"} for name in (*sized, *wrapped.outputs)}
    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "traced.onnx"
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        torch.onnx.export(
            wrapped,
            wrapped.examples(*sides),
            path,
            dynamo=False,
            input_names=list(wrapped.inputs),
            output_names=list(wrapped.outputs),
            dynamic_axes=axes if dynamic else None,
            opset_version=opset,
        )
        model = onnx.load(path)
    simplify(model)
    onnx.checker.check_model(model)
    return model


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that a TensorRT from 8.5 on might not take, by name."""
    found = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}
    found |= {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain}
    strange = sorted(found - TENSORRT_OPERATORS)
    if strange:
        raise ContractError(
            f"graph: expected only operators that TensorRT takes from 8.5 on, got {strange} too; "
            "change the network to avoid them"
        )


def check_parity(
    wrapped: ByteGraph, model: onnx.ModelProto, sizes: list[tuple[int, int]]
) -> dict[str, np.ndarray]:
    """Compare PyTorch and ONNX Runtime on textured images; return the runtime's first answer.

    Raises:
        ModelLoadError: A head differs by more than its tolerance (``parity.TOLERANCES``), or the
            runtime refuses the graph.
    """
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return [_agreeing_answer(wrapped, session, size) for size in sizes][0]
    except _RUNTIME_ERRORS as error:
        raise ModelLoadError(
            f"exported graph: expected ONNX Runtime to run it at {sizes}, got: {error}; the "
            "network does something that depends on its example input, or that ONNX cannot say"
        ) from error


def _agreeing_answer(
    wrapped: ByteGraph, session: onnxruntime.InferenceSession, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """ONNX Runtime's answer to a textured image, after comparison with PyTorch's."""
    height, width = size
    image = golden_image(height, width, GOLDEN_SEED)
    beside = wrapped.examples(height, width)[1:]
    with torch.no_grad():
        values = wrapped(torch.from_numpy(image), *beside)
    expected = {n: v.numpy() for n, v in zip(wrapped.outputs, values, strict=True)}
    feed = dict(zip(wrapped.inputs, (image, *(x.numpy() for x in beside)), strict=True))
    results = session.run(list(wrapped.outputs), feed)
    got = dict(zip(wrapped.outputs, results, strict=True))
    bad = [str(item) for item in compare_outputs(expected, got) if not item.passed]
    if bad:
        raise ModelLoadError(
            f"exported graph at {width}x{height}: expected ONNX Runtime to agree with PyTorch, "
            f"got {'; '.join(bad)}; the network does something that depends on its example "
            "input: look for sizes taken as Python numbers"
        )
    return got


def _check_size(height: int | None, width: int | None, multiple: int) -> None:
    if (height is None) != (width is None):
        raise ContractError(
            f"size: expected height and width together or neither, got height {height} and width "
            f"{width}; give both for a fixed graph, none for a dynamic one"
        )
    for name, side in (("height", height), ("width", width)):
        if side is not None and (side < multiple or side % multiple):
            raise ContractError(
                f"{name}: expected a positive multiple of {multiple}, got {side}; use "
                f"{max(1, -(-side // multiple)) * multiple} and let the backend pad"
            )


def _write(model: onnx.ModelProto, path: Path, contract: ModelContract) -> None:
    """Write model and sidecar; an interrupted write leaves no half model at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(model.SerializeToString(deterministic=True))
    # A sidecar of an older model must not stand beside the new one for a moment.
    sidecar_path(path).unlink(missing_ok=True)
    partial.replace(path)
    write_sidecar(path, contract)
