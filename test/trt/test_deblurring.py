"""Exported DEDDNets, told the depth or with a depth network inside, and the two-stage backend."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract, golden_image
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import BackendOptions, ParityError
from ddfd_ros.inference.deblur_stage import DeblurStage, TwoStageBackend
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ddfd_training.evaluate_deblur import with_deblurring
from ddfd_training.evaluate_items import Item
from ddfd_trt.export_onnx import export_onnx

SMALL = {"channels": 8, "depth_channels": 4, "branches": [1]}


def checkpoint(path, outputs, **options):
    torch.manual_seed(5)
    network = build_network("deddnet", **SMALL, **options).eval()
    contract = ModelContract(
        format_version=FORMAT_VERSION, network="deddnet", network_options={}, parameter_count=0,
        input_height=None, input_width=None, size_multiple=32, outputs=outputs, depth_min_m=0.5,
        depth_max_m=10.0, lens=LENS_PRESETS["nyu-8m"], training={}, metrics={}, weights_sha256="",
    )  # fmt: skip
    save_checkpoint(path, network, "deddnet", {**SMALL, **options}, contract)
    return path


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory, lite_checkpoint):
    """A depth model, a deblurring model that is given depth, and one with its own."""
    folder = tmp_path_factory.mktemp("deblurring")
    export_onnx(lite_checkpoint, folder / "first.onnx")
    export_onnx(checkpoint(folder / "given.pt", ("sharp_rgb",)), folder / "given.onnx")
    heads = ("depth_m", "sigma_m", "sharp_rgb")
    export_onnx(checkpoint(folder / "own.pt", heads, depth="own"), folder / "own.onnx")
    return folder


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_stage_answers_as_torch_does(folder, runtime):
    pytest.importorskip(runtime)
    stage = DeblurStage(folder / "given.onnx", runtime)
    assert stage.contract.inputs == ("image", "depth_m")
    image = golden_image(64, 96, 2)
    depth_m = np.linspace(0.5, 6, 64 * 96, dtype=np.float32).reshape(64, 96)
    depth_m[:5] = np.nan
    got = stage.sharpen(image, depth_m)
    network, _ = load_checkpoint(folder / "given.pt")
    planes = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.no_grad():
        told = network(planes, torch.from_numpy(depth_m)[None, None])["sharp_rgb"]
        untold = network(planes)["sharp_rgb"]
    expected = (told[0].permute(1, 2, 0) * 255).numpy()
    assert np.abs(got - expected).max() < 1.01
    assert np.abs(got - (untold[0].permute(1, 2, 0) * 255).numpy()).max() > 1.01
    assert stage.self_test()["checked"]
    assert stage.sharpen(image[:50, :70], depth_m[:50, :70]).shape == (50, 70, 3)


def test_two_models_are_one_backend(folder):
    first = open_backend(folder / "first.onnx", "onnxruntime", threads=1)
    stage = DeblurStage(folder / "given.onnx", "onnxruntime", BackendOptions(threads=1))
    image = golden_image(64, 96, 3)
    alone = first.infer(image)
    with TwoStageBackend(first, stage) as both:
        assert both.contract.outputs == first.contract.outputs
        timings: dict[str, float] = {}
        answer = both.infer(image, None, timings)
        assert set(answer) == set(both.contract.outputs)
        np.testing.assert_array_equal(answer["depth_m"], alone["depth_m"])
        expected = stage.sharpen(image, alone["depth_m"])
        np.testing.assert_array_equal(answer["sharp_rgb"], expected)
        assert timings["deblur"] > 0
        assert timings["infer"] > 0
        timings.clear()
        assert set(both.infer(image, ["sigma_m"], timings)) == {"sigma_m"}
        assert "deblur" not in timings
        assert set(both.infer(image, ["sharp_rgb"])) == {"sharp_rgb"}
        assert both.self_test()["checked"]
        assert both.takes(64, 96)
        assert both.warm_up(64, 96) > 0


def test_evaluation_tells_whose_depth_is_asked_for(folder):
    first = open_backend(folder / "first.onnx", "onnxruntime", threads=1)
    options = BackendOptions(threads=1)
    path = str(folder / "given.onnx")
    stage = DeblurStage(path, options=options)
    image = golden_image(64, 96, 3)
    depth_m = np.full((64, 96), 0.6, np.float32)
    own = first.infer(image)["depth_m"]
    for depth, told in (("model", own), ("data", depth_m), ("none", depth_m * np.nan)):
        model, items = with_deblurring(first, path, depth, [Item("a", image, depth_m)], options)
        answers = [model.infer(item.image_rgb) for item in items]
        assert len(answers) == 1
        np.testing.assert_array_equal(answers[0]["sharp_rgb"], stage.sharpen(image, told))
        np.testing.assert_array_equal(answers[0]["depth_m"], own)
    assert with_deblurring(first, "", "model", [], options) == (first, [])
    model, _ = with_deblurring(first, path, "data", [], options)
    with pytest.raises(ContractError, match="depth from the data set: expected"):
        model.infer(image)


def test_own_depth_is_one_graph_like_any_other(folder):
    with open_backend(folder / "own.onnx", "onnxruntime", threads=1) as backend:
        assert backend.contract.inputs == ("image",)
        assert set(backend.infer(golden_image(64, 64, 1))) == {"depth_m", "sigma_m", "sharp_rgb"}
        assert backend.self_test()["checked"]


def test_models_that_do_not_fit_are_refused(folder):
    with pytest.raises(ContractError, match=r"takes \['image', 'depth_m'\] and answers sharp_rgb"):
        DeblurStage(folder / "first.onnx")
    with pytest.raises(ModelLoadError, match="expected device 'cpu'"):
        DeblurStage(folder / "given.onnx", options=BackendOptions(device="cuda"))
    with pytest.raises(ContractError, match="graph inputs"):
        open_backend(folder / "given.onnx", "onnxruntime")
    stage = DeblurStage(folder / "given.onnx", "onnxruntime")
    golden = stage.contract.golden
    wrong = dataclasses.replace(golden, samples={"sharp_rgb": [0.0] * 64})
    stage.contract = dataclasses.replace(stage.contract, golden=wrong)
    with pytest.raises(ParityError, match="off by"):
        stage.self_test()
