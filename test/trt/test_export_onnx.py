"""Export: the graph's ports, operators and answers, its contract, and refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract, golden_image
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model.byte_graph import ByteGraph
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_trt.export_onnx import check_operators, check_parity, export_onnx, trace_to_onnx

# Rows of the parsers' support tables (TensorRT 8.5 and 10) for single precision; uint8 only at a
# graph's ends, and Resize, DepthToSpace and Slice with the restrictions tested below.
TENSORRT_TAKES = {
    "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div",
    "Exp", "Floor", "HardSwish", "LeakyRelu", "Log", "Mul", "Neg", "Pow", "Reciprocal", "Relu",
    "Reshape", "Resize", "Sigmoid", "Slice", "Softplus", "Squeeze", "Sub", "Tanh", "Transpose",
    "Unsqueeze",
}  # fmt: skip
# The same for what a lens beside the image adds.
TENSORRT_TAKES |= {"Gemm", "Max", "Min"}
GRAPHS = [("2hded", False), ("ddfd-lite", False), ("ddfd-lite", True)]


@pytest.fixture(scope="session")
def exported(tmp_path_factory, lite_checkpoint, two_headed_checkpoint):
    """(network, fixed size) -> path, of models exported once."""
    paths = {}
    for name, fixed in GRAPHS:
        checkpoint = two_headed_checkpoint if name == "2hded" else lite_checkpoint
        path = tmp_path_factory.mktemp("exported") / "model.onnx"
        sides = {"height": 64, "width": 96} if fixed else {}
        export_onnx(checkpoint, path, **sides)
        paths[name, fixed] = path
    return paths


@pytest.fixture(params=GRAPHS, ids=lambda item: f"{item[0]}-{'fixed' if item[1] else 'dynamic'}")
def model_path(request, exported):
    return exported[request.param]


@pytest.fixture
def lite_path(exported):
    return exported["ddfd-lite", False]


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_only_operators_that_tensorrt_takes_and_no_batch_norm(model_path):
    model = onnx.load(model_path)
    found = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in found
    assert found <= TENSORRT_TAKES
    assert all(node.domain in ("", "ai.onnx") for node in model.graph.node)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]


def test_operators_stay_within_tensorrts_restrictions(model_path):
    graph = onnx.load(model_path).graph
    constants = {item.name for item in graph.initializer}
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Resize":
            assert attributes["mode"] in (b"nearest", b"linear")
            assert attributes["coordinate_transformation_mode"] in (b"asymmetric", b"half_pixel")
            assert node.input[2] in constants  # scales, so that no shape is computed at run time
        elif node.op_type in ("Slice", "Squeeze", "Unsqueeze", "Reshape"):
            assert set(node.input[1:]) <= constants
        elif node.op_type == "Cast":
            assert node.input[0] == "image" or node.output[0] == "sharp_rgb"


def test_ports_are_those_of_the_contract(model_path):
    graph = onnx.load(model_path).graph
    contract = ModelContract.from_json(read_metadata(model_path))
    fixed = contract.input_height is not None
    sides = [64, 96] if fixed else ["height", "width"]
    ports = {}
    for item in [*graph.input, *graph.output]:
        kind = item.type.tensor_type
        shape = [side.dim_param or side.dim_value for side in kind.shape.dim]
        ports[item.name] = (onnx.TensorProto.DataType.Name(kind.elem_type), shape)
    expected = {"image": ("UINT8", [*sides, 3]), "depth_m": ("FLOAT", sides)}
    if "sigma_m" in contract.outputs:
        expected["sigma_m"] = ("FLOAT", sides)
    expected["sharp_rgb"] = ("UINT8", [*sides, 3])
    assert ports == expected
    assert list(ports) == ["image", *contract.outputs]


def read_metadata(path):
    return {item.key: item.value for item in onnx.load(path).metadata_props}[CONTRACT_KEY]


@pytest.mark.parametrize(("name", "sizes"), [
    ("2hded", [(32, 64), (64, 64)]),
    ("ddfd-lite", [(32, 32), (64, 160), (160, 96)]),
])  # fmt: skip
def test_the_graph_answers_as_the_network(exported, request, name, sizes):
    fixture = "two_headed_checkpoint" if name == "2hded" else "lite_checkpoint"
    network, _ = load_checkpoint(request.getfixturevalue(fixture))
    session = session_of(exported[name, False])
    for height, width in sizes:
        image = golden_image(height, width, seed=5)
        got = dict(zip([o.name for o in session.get_outputs()],
                       session.run(None, {"image": image}), strict=True))  # fmt: skip
        planes = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        with torch.no_grad():
            answer = {k: v[0].numpy() for k, v in network(planes).items()}
        for head in set(got) - {"sharp_rgb"}:
            np.testing.assert_allclose(got[head], answer[head][0], rtol=1e-3, atol=1e-4)
        levels = np.floor(np.clip(answer["sharp_rgb"].astype(np.float64), 0, 1) * 255 + 0.5)
        difference = np.abs(got["sharp_rgb"] - levels.transpose(1, 2, 0))
        assert difference.max() <= 1
        assert difference.mean() < 0.01


def test_contract_golden_and_sidecar(model_path):
    contract = ModelContract.from_json(read_metadata(model_path))
    golden = contract.golden
    assert golden is not None
    image = golden.image()  # checks the digest of its own bytes
    session = session_of(model_path)
    names = [item.name for item in session.get_outputs()]
    answers = dict(zip(names, session.run(None, {"image": image}), strict=True))
    assert set(golden.samples) == set(contract.outputs)
    rows = [(2 * i + 1) * image.shape[0] // 16 for i in range(8)]
    columns = [(2 * i + 1) * image.shape[1] // 16 for i in range(8)]
    for head, samples in golden.samples.items():
        plane = answers[head][..., 1] if head == "sharp_rgb" else answers[head]
        expected = [float(plane[row, column]) for row in rows for column in columns]
        assert samples == pytest.approx(expected, abs=1e-5)
    sidecar = json.loads((model_path.parent / "model.onnx.contract.json").read_text())
    assert sidecar.pop("file_sha256") == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert sidecar.pop("file_bytes") == model_path.stat().st_size
    assert sidecar == json.loads(read_metadata(model_path))


def test_what_the_checkpoint_said_is_passed_on(lite_path, lite_checkpoint):
    _, before = load_checkpoint(lite_checkpoint)
    after = ModelContract.from_json(read_metadata(lite_path))
    for name in ("network", "network_options", "parameter_count", "lens", "training",
                 "weights_sha256", "outputs", "depth_min_m", "depth_max_m"):  # fmt: skip
        assert getattr(after, name) == getattr(before, name)


def test_files_are_small_and_reproducible(lite_path, lite_checkpoint, tmp_path):
    again = tmp_path / "again.onnx"
    contract = export_onnx(lite_checkpoint, again)
    assert again.read_bytes() == lite_path.read_bytes()
    assert again.stat().st_size < 4 * contract.parameter_count * 1.05 + 100_000
    # Nothing of the machine that exported it: no source paths of traces.
    assert str(Path(torch.__file__).parent).encode() not in again.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in again.read_bytes()


def test_any_subset_of_heads(lite_checkpoint, lite_path, tmp_path):
    image = golden_image(64, 64, seed=2)
    whole = session_of(lite_path)
    nodes = len(onnx.load(lite_path).graph.node)
    for heads in (["depth_m"], ["sharp_rgb", "sigma_m"], ["defocus_px"]):
        path = tmp_path / "part.onnx"
        contract = export_onnx(lite_checkpoint, path, heads=heads)
        assert set(contract.outputs) == set(heads)
        part = session_of(path)
        assert {item.name for item in part.get_outputs()} == set(heads)
        assert len(onnx.load(path).graph.node) < nodes
        for head in set(heads) - {"defocus_px"}:
            (got,), (wanted,) = (s.run([head], {"image": image}) for s in (part, whole))
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ContractError, match=r"heads: expected a selection of .*\['normals'\]"):
        export_onnx(lite_checkpoint, tmp_path / "none.onnx", heads=["normals"])


@pytest.mark.parametrize(("height", "width", "message"), [
    (48, 64, r"height: expected a positive multiple of 32, got 48; use 64"),
    (64, 0, r"width: expected a positive multiple of 32, got 0; use 32"),
    (64, None, r"expected height and width together"),
])  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(lite_checkpoint, tmp_path, height, width, message):
    with pytest.raises(ContractError, match=message):
        export_onnx(lite_checkpoint, tmp_path / "x.onnx", height=height, width=width)
    assert list(tmp_path.iterdir()) == []


class Toy(torch.nn.Module):
    """A network that answers what ``function`` makes of the image."""

    def __init__(self, function):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.function = function

    def forward(self, image):
        return {name: value * self.weight for name, value in self.function(image).items()}


def test_bytes_are_clamped_and_rounded_half_up():
    # Steps of a quarter level through and beyond the range of a byte.
    wrapped = ByteGraph(Toy(lambda image: {"sharp_rgb": (image * 510 - 127.5) / 255 + 0.25 / 255}))
    model = trace_to_onnx(wrapped, None, None)
    values = np.arange(256, dtype=np.uint8).reshape(32, 8).repeat(4, 1)
    image = np.stack([values] * 3, axis=2)
    (got,) = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"image": image})
    exact = 2.0 * image - 127.25  # in levels
    expected = np.clip(np.floor(exact + 0.5), 0, 255)
    np.testing.assert_array_equal(got, expected.astype(np.uint8))
    assert got.min() == 0
    assert got.max() == 255


def test_a_byte_image_passes_through_unchanged():
    wrapped = ByteGraph(Toy(lambda image: {"sharp_rgb": image}))
    image = golden_image(64, 96, seed=0)
    image[0, :, 0] = np.arange(96)
    image[1:4, :64, 1] = np.arange(192).reshape(3, 64) + 64
    model = trace_to_onnx(wrapped, None, None)
    answer = check_parity(wrapped, model, [(64, 96)])
    np.testing.assert_array_equal(answer["sharp_rgb"], golden_image(64, 96, seed=1))
    np.testing.assert_array_equal(wrapped(torch.from_numpy(image))[0].numpy(), image)


def test_a_network_that_bakes_in_its_example_is_refused():
    def spread(image):
        rows = torch.linspace(0, 1, int(image.shape[2]))[:, None]
        return {"depth_m": image[:, :1] + rows.expand(-1, int(image.shape[3]))}

    def centre(image):
        return {"depth_m": image[:, :1] + float(image.shape[2])}

    for function in (spread, centre):
        wrapped = ByteGraph(Toy(function))
        model = trace_to_onnx(wrapped, None, None)
        with pytest.raises(ModelLoadError, match="depends on its example input"):
            check_parity(wrapped, model, [(64, 96), (96, 96)])


def test_operators_tensorrt_does_not_take_are_refused_by_name():
    wrapped = ByteGraph(Toy(lambda image: {"depth_m": torch.cumsum(image[:, :1], dim=3)}))
    model = trace_to_onnx(wrapped, None, None)
    with pytest.raises(ContractError, match=r"got \['CumSum'\] too"):
        check_operators(model)


def test_an_answer_beyond_tolerance_leaves_no_file(lite_checkpoint, tmp_path, monkeypatch):
    import ddfd_trt.export_onnx as module

    def damaged(wrapped, height, width, opset):
        model = trace_to_onnx(wrapped, height, width, opset)
        for item in model.graph.initializer:
            values = onnx.numpy_helper.to_array(item)
            if values.ndim == 4:
                item.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.02), item.name))
        return model

    monkeypatch.setattr(module, "trace_to_onnx", damaged)
    with pytest.raises(ModelLoadError, match=r"expected ONNX Runtime to agree with PyTorch, got"):
        export_onnx(lite_checkpoint, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_exported_models_open_in_the_backend(lite_path):
    from ddfd_ros.inference import open_backend

    with open_backend(lite_path, "onnxruntime") as backend:
        assert backend.self_test()["checked"]
        answer = backend.infer(golden_image(50, 77, seed=3), heads=["depth_m"])
        assert answer["depth_m"].shape == (50, 77)


def test_a_lens_beside_the_image_moves_depth_as_the_optics_say(any_lens_checkpoint, tmp_path):
    heads = ("depth_m", "defocus_px")
    contract = export_onnx(any_lens_checkpoint, tmp_path / "any.onnx", heads=heads)
    assert contract.inputs == ("image", "lens")
    check_operators(onnx.load(tmp_path / "any.onnx"))
    session = session_of(tmp_path / "any.onnx")
    assert [port.name for port in session.get_inputs()] == ["image", "lens"]
    image = golden_image(96, 128, 3)
    for other in (LENS_PRESETS["nyu-8m"], LENS_PRESETS["dslr"]):
        beside = np.array([other.px_per_dioptre, other.focus_dioptre], np.float32)
        depth_m, defocus_px = session.run(None, {"image": image, "lens": beside})
        np.testing.assert_allclose(depth_m, other.depth_m(defocus_px), rtol=1e-4)
        assert depth_m.min() >= 0.5 - 1e-4
        assert depth_m.max() <= 10.0 + 1e-2
