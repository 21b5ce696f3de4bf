"""Every network with every subset of its heads: the exported graph answers as the network."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from benchmarks.gpu_count import count_work
from ddfd_ros.core.metadata import golden_image
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.inference.onnx_file import keep_outputs
from ddfd_ros.model import build_network
from ddfd_ros.model.blur_space import LensCondition, lens_vector
from ddfd_ros.model.byte_graph import ByteGraph
from ddfd_ros.model.networks import NETWORKS
from ddfd_trt.export_onnx import check_operators, trace_to_onnx

DEPTH_TOLERANCE_M = 1e-3
# deddnet takes a depth map beside the image and is not exported by itself.
FORMS = {name: (name, {}) for name in sorted(NETWORKS) if name != "deddnet"} | {
    "ddfd-lite": ("ddfd-lite", {"lens": "nyu-8m"}),
    "ddfd-lite-any": ("ddfd-lite", {"lens": "nyu-8m", "lens_input": True}),
    # The layers that differ from 2hded's are as many at any width, and their subsets are many.
    "2hded-selfsup": ("2hded-selfsup", {"width": 0.25}),
    "2hded-blur": ("2hded", {"lens": "nyu-8m", "answer": "blur", "width": 0.25}),
    "2hded-any": (
        "2hded",
        {"lens": "nyu-8m", "answer": "blur", "width": 0.25, "lens_input": True},
    ),
}
LENSES = (LENS_PRESETS["nyu-8m"], LENS_PRESETS["dslr"])  # its own, and a live one


@pytest.fixture(scope="module", params=list(FORMS))
def network(request):
    torch.manual_seed(11)
    name, options = FORMS[request.param]
    try:
        made = build_network(name, **options)
    except TypeError as error:
        pytest.skip(f"{request.param}: {error}")
    with torch.no_grad():
        for _ in range(2):
            made(torch.rand(2, 3, 64, 64))  # so that batch norms are not the identity
        for item in made.modules():
            if isinstance(item, torch.nn.BatchNorm2d):
                item.weight.uniform_(0.7, 1.3)
                item.bias.uniform_(-0.2, 0.2)
            elif isinstance(item, LensCondition):
                item.outer.weight.normal_(0.0, 0.2)
        if options.get("answer") == "blur":
            made.depth_decoder.last.weight.mul_(10.0)  # so that depth spreads over metres
    wrapped = ByteGraph(made)
    image = golden_image(64, 96, 3)
    questions = [{"image": image}]
    if "lens" in wrapped.inputs:
        vectors = [np.array(lens_vector(lens), np.float32) for lens in LENSES]
        questions = [{"image": image, "lens": vector} for vector in vectors]
    with torch.no_grad():
        answers = [wrapped(*map(torch.from_numpy, asked.values())) for asked in questions]
    expected = [
        dict(zip(wrapped.outputs, [value.numpy() for value in values], strict=True))
        for values in answers
    ]
    return SimpleNamespace(
        name=request.param, module=made, questions=questions, expected=expected,
        heads=wrapped.outputs,
    )  # fmt: skip


def compare(graph: bytes, network: SimpleNamespace, heads: tuple[str, ...]) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # As written: what the runtime would make of it is slower to begin and hides the graph itself.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    assert tuple(item.name for item in session.get_outputs()) == heads
    taken = {item.name for item in session.get_inputs()}
    for asked, expected in zip(network.questions, network.expected, strict=True):
        feed = {name: value for name, value in asked.items() if name in taken}
        for head, got in zip(heads, session.run(None, feed), strict=True):
            compare_head(network.name, head, got, expected[head])


def compare_head(name: str, head: str, got: np.ndarray, wanted: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    assert np.isfinite(difference).all()
    limit = {"depth_m": DEPTH_TOLERANCE_M, "sigma_m": 2e-3, "sharp_rgb": 1.0}.get(head, 1e-2)
    assert difference.max() <= limit, f"{name} {head}: {difference.max()}"


def test_every_subset_of_heads(network):
    """Each subset, as ``ddfd-engine`` and the robot cut it out of the whole."""
    whole = trace_to_onnx(ByteGraph(network.module), None, None).SerializeToString()
    sizes = {}
    for count in range(1, len(network.heads) + 1):
        for heads in itertools.combinations(network.heads, count):
            part = keep_outputs(whole, heads)
            model = onnx.load_model_from_string(part)
            check_operators(model)
            compare(part, network, heads)
            sizes[heads] = len(model.graph.node)
    if network.name == "2hded":  # counted by hand from the layers of the paper
        work = count_work(onnx.load_model_from_string(whole), 480, 640)
        assert work.operations == pytest.approx(239e9, rel=0.02)
    for heads, nodes in sizes.items():  # less is computed for fewer heads
        more = [n for other, n in sizes.items() if set(other) > set(heads)]
        assert all(nodes < other for other in more)


def test_single_heads_traced_on_their_own(network):
    """As ``ddfd-export --heads`` does it."""
    alone = {"ddfd-lite": network.heads, "2hded": ("depth_m",), "2hded-any": ("depth_m",)}
    for head in alone.get(network.name, ()):
        model = trace_to_onnx(ByteGraph(network.module, [head]), None, None)
        check_operators(model)
        compare(model.SerializeToString(), network, (head,))


def test_the_shipped_models_hold_only_operators_tensorrt_takes(repository: Path):
    found = sorted((repository / "models").glob("*.onnx"))
    assert found
    for path in found:
        check_operators(onnx.load(path))
