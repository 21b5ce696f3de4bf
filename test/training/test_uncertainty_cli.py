"""``ddfd-uncertainty`` from the command line to its report and plots."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.blur_space import LensNetwork, lens_vector
from ddfd_ros.model.checkpoint import save_checkpoint
from ddfd_training import uncertainty_cli
from ddfd_training.synthetic import SyntheticScene

LENS = LENS_PRESETS["nyu-8m"]
SMALL = {"widths": [8, 8, 8, 8, 8], "depths": [1, 1, 1, 1, 1], "heads": "depth"}


def save(path: Path, **more) -> Path:
    """An untrained small network: its answers are poor, but they are answers."""
    torch.manual_seed(0)
    options = {"lens": LENS, "depth_range_m": [0.5, 10.0], **SMALL, **more}
    network = build_network("ddfd-lite", **options)
    contract = ModelContract(
        format_version=FORMAT_VERSION,
        network="ddfd-lite",
        network_options={},
        parameter_count=1,
        input_height=None,
        input_width=None,
        size_multiple=32,
        outputs=("depth_m", "sigma_m"),
        depth_min_m=0.5,
        depth_max_m=10.0,
        lens=LENS,
        training={},
        metrics={},
        weights_sha256="",
    )
    save_checkpoint(path, network, "ddfd-lite", options, contract)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Two small synthetic frames as an RGB-D folder."""
    root = tmp_path_factory.mktemp("recording")
    for kind in ("rgb", "depth"):
        (root / kind).mkdir()
    scene = SyntheticScene(4)
    for index in range(2):
        rgb, depth_m = scene.render(index, 64, 96)
        millimetres = np.rint(depth_m * 1000).astype(np.uint16)
        assert cv2.imwrite(str(root / "rgb" / f"{index:03d}.png"), rgb[..., ::-1])
        assert cv2.imwrite(str(root / "depth" / f"{index:03d}.png"), millimetres)
    return root


def arguments(recording: Path, out: Path, *more: str) -> list[str]:
    common = ["--data", "folder", "--root", str(recording), "--rgb-is", "sharp"]
    cache = ["--cache", str(out / "cache"), "--out", str(out), "--samples", "5", "--maps", "1"]
    return [*common, *cache, *more]


def test_both_deviations_are_judged_on_the_same_frames(recording, tmp_path, capsys) -> None:
    weights = save(tmp_path / "lite.pt", dropout=0.3)
    code = uncertainty_cli.main(
        arguments(recording, tmp_path / "out", "--checkpoint", str(weights))
    )
    assert code == 0
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert set(report["result"]) == {"Monte-Carlo dropout", "sigma_m, one pass", "both together"}
    assert report["samples"] == 5
    for result in report["result"].values():
        assert result["images"] == 2
        assert 0 <= result["mean_over_images"]["coverage_68"] <= 1
    means = {name: r["mean_over_images"]["mean_sigma_m"] for name, r in report["result"].items()}
    assert means["both together"] > means["Monte-Carlo dropout"] > 0
    for name in ("calibration.png", "maps_00.png"):
        assert cv2.imread(str(tmp_path / "out" / name)) is not None
    assert not (tmp_path / "out/maps_01.png").exists()
    assert "Monte-Carlo dropout" in capsys.readouterr().out


def test_one_network_samples_and_another_states(recording, tmp_path) -> None:
    sampled = save(tmp_path / "sampled.pt", dropout=0.3)
    stated = save(tmp_path / "stated.pt")
    code = uncertainty_cli.main(
        arguments(recording, tmp_path, "--checkpoint", str(sampled), "--beside", str(stated))
    )
    assert code == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["beside"] == "stated.pt"
    assert {"Monte-Carlo dropout", "sigma_m, one pass"} <= set(report["result"])


def _save_for_any_lens(path: Path) -> Path:
    return save(path, lens_input=True, dropout=0.3)


def test_a_network_for_any_lens_is_told_the_lens_of_the_pictures(
    recording, tmp_path, monkeypatch
) -> None:
    """Whether it samples or states, as ``ddfd-evaluate`` tells it."""
    told: list[list[float]] = []
    forward = LensNetwork.forward

    def heard(self, image, lens=None):
        told.append([] if lens is None else lens[0].tolist())
        return forward(self, image, lens)

    weights = _save_for_any_lens(tmp_path / "any.pt")
    monkeypatch.setattr(LensNetwork, "forward", heard)
    words = ["--checkpoint", str(weights), "--beside", str(weights), "--lens", "nyu-2m"]
    code = uncertainty_cli.main(
        arguments(recording, tmp_path / "out", *words, "--kernel", "gaussian")
    )
    assert code == 0
    expected = LENS_PRESETS["nyu-2m"].spread_as(0.3)
    assert len(told) == 4  # two frames, samples and statement
    for each in told:
        assert each == pytest.approx(lens_vector(expected))
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert report["told_lens"]["f_number"] == pytest.approx(expected.f_number, rel=1e-4)


def test_photographs_through_an_unnamed_lens_are_refused(recording, tmp_path, capsys) -> None:
    weights = _save_for_any_lens(tmp_path / "any.pt")
    words = arguments(recording, tmp_path / "out", "--checkpoint", str(weights))
    words[words.index("sharp")] = "defocused"
    assert uncertainty_cli.main(words) == 2
    assert "expected the lens of these photographs" in capsys.readouterr().err


@pytest.mark.parametrize("lens", [(), ("--lens", "nyu-2m")])
def test_sharp_images_are_none_by_a_lens_that_a_network_knows(
    recording, tmp_path, capsys, lens
) -> None:
    weights = _save_for_any_lens(tmp_path / "any.pt")
    words = ["--checkpoint", str(weights), "--input", "sharp", *lens]
    assert uncertainty_cli.main(arguments(recording, tmp_path / "out", *words)) == 2
    assert "--input: expected auto with a model that is told" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--size", "32", "48"), ("--soften", "0.5")])
def test_what_would_be_ignored_is_no_option(recording, tmp_path, words) -> None:
    with pytest.raises(SystemExit):
        uncertainty_cli.main(arguments(recording, tmp_path, "--checkpoint", "m.pt", *words))


def test_what_data_would_ignore_is_refused_before_the_weights_are_read(
    recording, tmp_path, capsys
) -> None:
    for words, message in (
        (("--preset", "quick", "--kernel", "disk"), "--kernel: expected none beside --preset"),
        (("--aperture", "N8"), "--aperture: expected with dfd_dslr, dfd_outdoor only"),
    ):
        command = arguments(recording, tmp_path, "--checkpoint", "none.pt", *words)
        assert uncertainty_cli.main(command) == 2
        assert message in capsys.readouterr().err


def test_a_network_without_dropout_is_one_line_and_code_2(recording, tmp_path, capsys) -> None:
    weights = save(tmp_path / "plain.pt")
    words = ["--checkpoint", str(weights)]
    out = tmp_path / "out"
    assert uncertainty_cli.main(arguments(recording, out, *words)) == 2
    assert "expected a network with dropout" in capsys.readouterr().err
    assert uncertainty_cli.main(arguments(recording, out, *words, "--samples", "1")) == 2
    assert "--samples" in capsys.readouterr().err
    assert not out.exists()  # said before anything is rendered


def test_a_device_that_is_not_there_is_one_line(recording, tmp_path, capsys) -> None:
    weights = save(tmp_path / "lite.pt", dropout=0.3)
    words = ["--checkpoint", str(weights), "--device", "foo"]
    assert uncertainty_cli.main(arguments(recording, tmp_path, *words)) == 2
    assert "--device: expected one that torch has here" in capsys.readouterr().err
