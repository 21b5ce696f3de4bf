"""Parity of whole models, and the two commands."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import onnx
import pytest

from ddfd_ros.core.errors import ContractError, DatasetError
from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract, golden_image
from ddfd_ros.inference import open_backend
from ddfd_trt.cli import export_main, verify_main
from ddfd_trt.export_onnx import export_onnx
from ddfd_trt.verify import find_images, golden_images, load_images, verify


@pytest.fixture(scope="module")
def model(tmp_path_factory, lite_checkpoint):
    path = tmp_path_factory.mktemp("verify") / "lite.onnx"
    export_onnx(lite_checkpoint, path)
    return path


@pytest.fixture
def images(tmp_path):
    """Two image files of odd sizes, one in a subfolder, and a file that is none."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    cv2.imwrite(str(folder / "b.png"), golden_image(50, 70, seed=8)[..., ::-1])
    cv2.imwrite(str(folder / "more" / "a.JPG"), golden_image(64, 33, seed=9)[..., ::-1])
    (folder / "notes.txt").write_text("no image")
    return folder


def altered(model, path, factor, contract_changes=None):
    """A copy of a model whose last depth weights are scaled, with a contract inside."""
    proto = onnx.load(model)
    contract = ModelContract.from_json(proto.metadata_props[0].value)
    for item in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(item)
        if values.ndim == 4 and item.name.startswith("network.depth_decoder.out"):
            item.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(factor), item.name))
    contract = dataclasses.replace(contract, **(contract_changes or {}))
    onnx.helper.set_model_props(proto, {CONTRACT_KEY: contract.to_json()})
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_agree_with_torch(model, lite_checkpoint, images, runtime):
    pytest.importorskip(runtime)
    seen = []
    with open_backend(lite_checkpoint) as reference, open_backend(model, runtime) as candidate:
        named = [*golden_images(candidate), *load_images(find_images(images))]
        # OpenVINO may choose half precision by itself where the processor has it.
        scale = candidate.tolerance_scale
        report = verify(reference, candidate, named, tolerance_scale=scale, on_image=seen.append)
    assert report.passed, report
    assert seen == ["golden", "b.png", "a.JPG"]
    assert {item.head for item in report.heads} == {"depth_m", "sigma_m", "sharp_rgb"}
    assert report.reference.startswith("torch: torch")
    assert report.candidate.startswith(f"{runtime}: ")


def test_a_slightly_different_model_fails_in_its_head_alone(model, tmp_path):
    other = altered(model, tmp_path / "other.onnx", 1.05)
    with open_backend(model, "onnxruntime") as a, open_backend(other, "onnxruntime") as b:
        report = verify(a, b, golden_images(a))
    verdicts = {item.head: item.passed for item in report.heads}
    assert verdicts == {"depth_m": False, "sigma_m": False, "sharp_rgb": True}
    assert not report.passed
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"] is False


def test_images_smaller_than_a_fixed_size_are_padded_alike_on_both_sides(
    model, lite_checkpoint, tmp_path
):
    fixed = tmp_path / "fixed.onnx"
    export_onnx(lite_checkpoint, fixed, height=64, width=96)
    for path in (model, fixed):  # weights that answer to what is around, as trained ones do
        altered(path, tmp_path / f"lively-{path.name}", 30.0)
    model, fixed = (tmp_path / f"lively-{path.name}" for path in (model, fixed))
    small = [("small", golden_image(33, 50, seed=2)), ("whole", golden_image(64, 96, seed=3))]
    with open_backend(model, "onnxruntime") as a, open_backend(fixed, "onnxruntime") as b:
        for reference, candidate in ((a, b), (b, a)):
            report = verify(reference, candidate, small)
            assert report.passed, report
        assert report.images == 2


def test_models_that_cannot_be_compared_are_refused(model, lite_checkpoint, tmp_path):
    retrained = altered(model, tmp_path / "r.onnx", 1.0, {"weights_sha256": "0" * 64})
    with (
        open_backend(model, "onnxruntime") as a,
        open_backend(retrained, "onnxruntime") as b,
        pytest.raises(ContractError, match=r"expected the same weights on both sides, got"),
    ):
        verify(a, b, golden_images(a))
    export_onnx(lite_checkpoint, tmp_path / "depth.onnx", heads=["depth_m"])
    export_onnx(lite_checkpoint, tmp_path / "sharp.onnx", heads=["sharp_rgb"])
    with (
        open_backend(tmp_path / "depth.onnx", "onnxruntime") as a,
        open_backend(tmp_path / "sharp.onnx", "onnxruntime") as b,
        pytest.raises(ContractError, match="expected a head in common"),
    ):
        verify(a, b, golden_images(a))
    with (
        open_backend(model, "onnxruntime") as a,
        pytest.raises(DatasetError, match="at least one"),
    ):
        verify(a, a, [])


def test_images_are_found_and_read_as_rgb(images):
    paths = find_images(images)
    assert [path.name for path in paths] == ["b.png", "a.JPG"]
    (name, image), _ = load_images(paths)
    assert name == "b.png"
    np.testing.assert_array_equal(image, golden_image(50, 70, seed=8))
    assert find_images(paths[0]) == [paths[0]]
    with pytest.raises(DatasetError, match="no such file or folder"):
        find_images(images / "none")
    (images / "empty").mkdir()
    with pytest.raises(DatasetError, match="a folder without any"):
        find_images(images / "empty")
    broken = images / "broken.png"
    broken.write_bytes(b"\x89PNG broken")
    with pytest.raises(DatasetError, match="got a file of 11 bytes"):
        list(load_images([broken]))


def test_commands_from_checkpoint_to_verdict(lite_checkpoint, images, tmp_path, capsys):
    model = tmp_path / "model.onnx"
    assert export_main([str(lite_checkpoint), str(model), "--heads", "depth_m", "sigma_m"]) == 0
    assert "any multiple of 32, outputs depth_m, sigma_m" in capsys.readouterr().out
    report = tmp_path / "reports" / "parity.json"
    arguments = [str(lite_checkpoint), str(model), "--runtime", "onnxruntime"]
    arguments += ["--images", str(images), "--limit", "1", "--json", str(report)]
    assert verify_main(arguments) == 0
    output = capsys.readouterr().out
    assert "depth_m (m)" in output
    assert "alike" in output
    values = json.loads(report.read_text())
    assert values["images"] == 2  # the golden input and one of the folder
    assert values["passed"] is True
    other = altered(model, tmp_path / "other.onnx", 1.05)
    runtimes = ["--runtime", "onnxruntime", "--reference-runtime", "onnxruntime"]
    assert verify_main([str(model), str(other), *runtimes]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_the_default_output_lies_beside_the_checkpoint(lite_checkpoint, tmp_path):
    copy = tmp_path / "copy.pt"
    copy.write_bytes(lite_checkpoint.read_bytes())
    assert export_main([str(copy), "--height", "64", "--width", "96"]) == 0
    names = {item.name for item in tmp_path.iterdir()}
    assert names == {"copy.pt", "copy.onnx", "copy.onnx.contract.json"}


def test_errors_are_one_clear_line(tmp_path, capsys, model):
    assert export_main([str(tmp_path / "none.pt"), str(tmp_path / "x.onnx")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert verify_main([str(model), str(tmp_path / "none.onnx")]) == 2
    error = capsys.readouterr().err
    assert "candidate: expected a model file or one of the shipped models" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--tolerance-scale", "0", "a positive number, got 0"),
        ("--allowed", "5", "a fraction from 0 to 1, got 5"),  # per cent: all would pass
        ("--limit", "-5", "a whole number from 1, got -5"),  # all but the last five
        ("--limit", "0", "a whole number from 1, got 0"),
    ],
)
def test_a_number_that_would_pass_anything_is_refused(model, capsys, option, value, said):
    with pytest.raises(SystemExit) as caught:
        verify_main([str(model), str(model), option, value])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_the_depth_error_against_truth(model, tmp_path, capsys):
    folder, depths = tmp_path / "rgb", tmp_path / "depth"
    folder.mkdir()
    depths.mkdir()
    errors = {"reference": [], "candidate": []}
    other = altered(model, tmp_path / "other.onnx", 1.3)
    with open_backend(model, "onnxruntime") as right, open_backend(other, "onnxruntime") as wrong:
        for index in range(3):
            image = golden_image(64, 64, seed=index)
            cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
            truth = right.infer(image)["depth_m"] * (1 + 0.1 * (index - 1))
            units = np.round(truth / 2e-3).astype(np.uint16)
            units[:10] = 0  # unknown
            cv2.imwrite(str(depths / f"{index}.png"), units)
            for name, backend in (("reference", right), ("candidate", wrong)):
                error = backend.infer(image)["depth_m"][10:] - units[10:] * 2e-3
                errors[name].append(np.mean(error.astype(np.float64) ** 2))
    expected = {name: np.sqrt(np.mean(values)) for name, values in errors.items()}
    report = tmp_path / "report.json"
    arguments = [str(model), str(other), "--runtime", "onnxruntime", "--images", str(folder)]
    arguments += ["--truth", str(depths), "--truth-unit", "0.002", "--json", str(report)]
    loose = ["--tolerance-scale", "1e6", "--reference-runtime", "onnxruntime"]
    assert verify_main([*arguments, *loose]) == 1
    assert "WORSE" in capsys.readouterr().out
    truth = json.loads(report.read_text())["truth"]
    assert truth["images"] == 3
    assert truth["reference_m"] == pytest.approx(expected["reference"], rel=1e-5)
    assert truth["candidate_m"] == pytest.approx(expected["candidate"], rel=1e-5)
    assert truth["change"] == pytest.approx(expected["candidate"] / expected["reference"] - 1)
    arguments[1] = str(model)
    assert verify_main([*arguments, *loose]) == 0
    assert "+0.000%" in capsys.readouterr().out
    assert verify_main([*arguments[:-4], "--truth", str(tmp_path / "none")]) == 2


def test_tolerances_follow_the_precision(model, tmp_path, capsys):
    from ddfd_trt.typed_graph import half_precision

    half = tmp_path / "half.onnx"
    half.write_bytes(half_precision(model.read_bytes()))
    runtimes = ["--runtime", "onnxruntime", "--reference-runtime", "onnxruntime"]
    assert verify_main([str(model), str(half), *runtimes, "--precision", "fp16"]) == 0
    said = capsys.readouterr().out
    assert "0.004 + 0.004 rel." in said
    assert verify_main([str(model), str(half), *runtimes, "--tolerance-scale", "0.2"]) == 1
