"""The weights in ``models/``: whole, self-consistent, alike on every runtime, and good."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.inference import open_backend

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = {"ddfd-lite-nyu-8m": "nyu-8m", "ddfd-lite-dslr": "dslr", "ddfd-lite-any": "nyu-4m"}
RUNTIMES = [
    name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name) is not None
]


def _picture() -> np.ndarray:
    """A slanted texture, sharp on the left and blurred on the right."""
    random = np.random.default_rng(11)
    image = random.integers(0, 255, (96, 128, 3)).astype(np.float32)
    for _ in range(3):
        image[:, 64:] = (image[:, 63:-1] + image[:, 64:] + np.roll(image[:, 64:], -1, axis=0)) / 3
    return image.astype(np.uint8)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_contract_says_what_it_is(name: str) -> None:
    """Lens, heads, training and measured errors travel with the weights."""
    backend = open_backend(MODELS / f"{name}.onnx", "onnxruntime", threads=1)
    contract = backend.contract
    backend.close()
    assert contract.network == "ddfd-lite"
    assert contract.parameter_count <= 2_000_000
    assert contract.lens == LENS_PRESETS[SHIPPED[name]]
    assert {"depth_m", "sigma_m", "sharp_rgb"} <= set(contract.outputs)
    assert contract.training["command"].startswith("ddfd-train --config training/configs/")
    (measured,) = contract.metrics.values()
    assert {"rmse", "delta1", "psnr_gain"} <= set(measured)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_self_test_and_heads(name: str, runtime: str) -> None:
    """The golden sample is met, and each head answers in its type and range."""
    backend = open_backend(MODELS / f"{name}.onnx", runtime, threads=1)
    assert backend.self_test()["checked"]
    picture = _picture()
    answer = backend.infer(picture)
    low_m, high_m = backend.contract.depth_min_m, backend.contract.depth_max_m
    backend.close()
    assert answer["depth_m"].shape == answer["sigma_m"].shape == picture.shape[:2]
    assert low_m - 1e-3 <= answer["depth_m"].min() <= answer["depth_m"].max() <= high_m + 1e-3
    assert 0 < answer["sigma_m"].min() <= answer["sigma_m"].max() <= high_m
    assert answer["sharp_rgb"].dtype == np.uint8


def test_runtimes_agree() -> None:
    """ONNX Runtime and OpenVINO answer alike in single precision."""
    if len(RUNTIMES) < 2:
        pytest.skip("needs onnxruntime and openvino")
    answers = []
    for runtime in RUNTIMES:
        backend = open_backend(MODELS / "ddfd-lite-nyu-8m.onnx", runtime, threads=1)
        answers.append(backend.infer(_picture(), heads=("depth_m", "sharp_rgb")))
        backend.close()
    np.testing.assert_allclose(answers[0]["depth_m"], answers[1]["depth_m"], rtol=1e-3)
    difference = answers[0]["sharp_rgb"].astype(int) - answers[1]["sharp_rgb"]
    assert np.abs(difference).max() <= 1


def test_depth_on_unseen_photographs(data_root: Path) -> None:
    """Eight NYUv2 test frames through the lens: most pixels within 25 %, and sharper."""
    from ddfd_training.datasets.nyuv2 import Nyuv2
    from ddfd_training.defocus_cache import RenderSettings, render_sample

    if not (data_root / "nyuv2").is_dir():
        pytest.skip(f"needs NYUv2 in {data_root} (set DDFD_DATA)")
    backend = open_backend(MODELS / "ddfd-lite-nyu-8m.onnx", threads=2)
    settings = RenderSettings(LENS_PRESETS["nyu-8m"])
    good, gains = [], []
    for sample in Nyuv2(data_root / "nyuv2", "test")[10:323:40]:
        image = render_sample(sample, settings)
        answer = backend.infer(image)
        ratio = answer["depth_m"] / sample.depth_m
        good.append(((ratio < 1.25) & (ratio > 0.8)).mean())
        before, after = (
            np.square(picture.astype(float) - sample.sharp_rgb).mean()
            for picture in (image, answer["sharp_rgb"])
        )
        gains.append(10 * np.log10(before / after))
    backend.close()
    assert np.mean(good) > 0.88
    assert np.mean(gains) > 1.0
