"""Models that take the lens beside the image: every runtime, live between two frames."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import CONTRACT_KEY, FORMAT_VERSION, ModelContract, golden_image
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.engine_manifest import ShapeRange
from ddfd_ros.inference.lens_input import lens_values
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ddfd_trt.engine_options import EngineOptions
from ddfd_trt.export_onnx import export_onnx
from ddfd_trt.make_engine import EngineJob, make_engine
from ddfd_trt.typed_graph import half_precision

STANDIN = Path(__file__).resolve().parents[1] / "standin"
LENS = LENS_PRESETS["nyu-8m"]
OTHER = dataclasses.replace(LENS, f_number=2 * LENS.f_number, focus_distance_m=2.0)
RANGE = {"px_per_dioptre": (1.0, 1000.0), "focus_distance_m": (1.0, 10.0)}
IMAGE = golden_image(64, 96, 4)


@pytest.fixture(scope="module")
def exported():
    """The folders of what has been exported, by network: tests ask for either in turn."""
    return {}


@pytest.fixture(scope="module")
def files(tmp_path_factory, request, exported):
    """A checkpoint and its ONNX file, for lenses within a range: ddfd-lite if not asked for."""
    name = getattr(request, "param", "ddfd-lite")
    if name not in exported:
        exported[name] = export(name, tmp_path_factory.mktemp("lens"))
    return exported[name]


def export(name, folder):
    torch.manual_seed(5)
    options = {"lens": "nyu-8m", "lens_input": True}
    options |= {"answer": "blur", "width": 0.25} if name == "2hded" else {}
    network = build_network(name, **options)
    last = network.depth_decoder.last if name == "2hded" else network.depth_decoder.out
    with torch.no_grad():
        last.weight.mul_(4.0)  # blur that differs enough to tell lenses apart
    contract = ModelContract(
        format_version=FORMAT_VERSION, network=name, network_options={}, parameter_count=0,
        input_height=None, input_width=None, size_multiple=32,
        outputs=("depth_m", "sharp_rgb"), depth_min_m=0.5, depth_max_m=10.0, lens=LENS,
        training={}, metrics={}, weights_sha256="", inputs=("image", "lens"), lens_range=RANGE,
    )  # fmt: skip
    save_checkpoint(folder / "any.pt", network, name, options, contract)
    export_onnx(folder / "any.pt", folder / "any.onnx")
    return folder


@pytest.fixture(scope="module")
def expected(files):
    """Depth by torch for the model's own lens and for another."""
    network, _ = load_checkpoint(files / "any.pt")
    planes = torch.from_numpy(IMAGE.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    answers = []
    for lens in (LENS, OTHER):
        vector = torch.tensor([[lens.px_per_dioptre, lens.focus_dioptre]])
        with torch.no_grad():
            answers.append(network.eval()(planes, vector)["depth_m"][0, 0].numpy())
    assert np.abs(answers[0] - answers[1]).max() > 0.05  # else the test would see nothing
    return answers


def check_lenses(backend, expected, tolerance_m=1e-3):
    assert backend.self_test()["checked"]
    for lens, wanted in zip((None, OTHER, LENS, OTHER), (*expected, *expected), strict=True):
        backend.set_lens(lens)
        for _ in range(2):
            got = backend.infer(IMAGE, ["depth_m"])["depth_m"]
            np.testing.assert_allclose(got, wanted, atol=tolerance_m, rtol=tolerance_m)
    assert backend.self_test()["checked"]  # with the lens of its samples, whichever is set
    np.testing.assert_allclose(
        backend.infer(IMAGE)["depth_m"], expected[1], atol=tolerance_m, rtol=tolerance_m
    )
    assert backend.infer(IMAGE, ["sharp_rgb"])["sharp_rgb"].shape == IMAGE.shape


@pytest.mark.parametrize("files", ["ddfd-lite", "2hded"], indirect=True)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_runtimes_on_the_cpu(files, expected, runtime):
    path = files / ("any.pt" if runtime == "torch" else "any.onnx")
    with open_backend(path, runtime) as backend:
        if runtime == "torch":
            backend.contract = load_contract(files / "any.onnx")  # with a golden sample
        check_lenses(backend, expected)


def load_contract(path):
    values = {item.key: item.value for item in onnx.load(path).metadata_props}
    return ModelContract.from_json(values[CONTRACT_KEY])


@pytest.mark.parametrize("number", ["10.13.0.35", "11.4.0.106"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine(files, expected, monkeypatch, tmp_path, number, precision):
    monkeypatch.syspath_prepend(str(STANDIN))
    import cv2
    import standin_gpu

    standin_gpu.install(monkeypatch, STANDIN_TENSORRT=number)
    (tmp_path / "pictures").mkdir()
    for seed in range(2):
        cv2.imwrite(str(tmp_path / "pictures" / f"{seed}.png"), golden_image(64, 96, seed))
    pictures = tmp_path / "pictures" if precision == "int8" else None
    output = tmp_path / "any.engine"
    options = EngineOptions(
        precision, ShapeRange.fixed(64, 96), calibration_images=pictures, calibration_limit=2
    )
    make_engine(EngineJob(files / "any.onnx", output, options))
    rough = number.startswith("11")
    tolerance_m = {"fp32": 1e-3, "fp16": 2e-2, "int8": 1.0}[precision] if rough else 1e-3
    with open_backend(output) as backend:
        check_lenses(backend, expected, tolerance_m)
        assert backend.graph_problem == ""


@pytest.mark.parametrize("files", ["ddfd-lite", "2hded"], indirect=True)
def test_half_precision_keeps_the_lens(files, expected):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        half_precision((files / "any.onnx").read_bytes()), options,
        providers=["CPUExecutionProvider"],
    )  # fmt: skip
    for lens, wanted in zip((LENS, OTHER), expected, strict=True):
        vector = np.array([lens.px_per_dioptre, lens.focus_dioptre], np.float32)
        (got,) = session.run(["depth_m"], {"image": IMAGE, "lens": vector})
        np.testing.assert_allclose(got, wanted, atol=2e-2, rtol=2e-2)


def test_a_focus_just_beyond_the_range_is_told_as_the_range_s_end(files):
    lens_range = RANGE | {"focus_distance_m": (1.0, 100.0)}
    contract = dataclasses.replace(load_contract(files / "any.onnx"), lens_range=lens_range)
    for lens in (OTHER, LENS):  # another, and the contract's own
        infinity = dataclasses.replace(lens, focus_distance_m=math.inf)
        own = infinity if lens == LENS else LENS
        told = lens_values(dataclasses.replace(contract, lens=own), infinity)
        np.testing.assert_allclose(told, [infinity.px_per_dioptre, 0.01], rtol=1e-6)
    np.testing.assert_allclose(lens_values(contract, OTHER)[1], OTHER.focus_dioptre)


def test_lenses_beyond_the_training_are_refused(files, lite_checkpoint, tmp_path):
    words = r"focus_distance_m: expected 1 to 10, .* got 20"
    with (
        open_backend(files / "any.onnx", "onnxruntime") as backend,
        pytest.raises(ContractError, match=words),
    ):
        backend.set_lens(dataclasses.replace(LENS, focus_distance_m=20.0))
    export_onnx(lite_checkpoint, tmp_path / "fixed.onnx", heads=["depth_m"])
    with open_backend(tmp_path / "fixed.onnx", "onnxruntime") as backend:
        backend.set_lens(None)
        with pytest.raises(ContractError, match="expected a model that takes one"):
            backend.set_lens(OTHER)
