"""The torch runtime against ONNX Runtime on the same exported weights, and against the network."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.inference import open_backend

torch = pytest.importorskip("torch", reason="torch is not installed (robot environment)")
OUTPUTS = ("depth_m", "sigma_m", "sharp_rgb")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from ddfd_ros.core.metadata import ModelContract
    from ddfd_ros.model import build_network
    from ddfd_ros.model.checkpoint import save_checkpoint

    torch.manual_seed(1)
    lens = LENS_PRESETS["nyu-8m"]
    network = build_network("ddfd-lite", lens=lens).eval()
    contract = ModelContract(
        1, "ddfd-lite", {}, 1, None, None, 32, OUTPUTS, 0.5, 10.0, lens, {}, {}, ""
    )
    path = tmp_path_factory.mktemp("torch") / "lite.pt"
    save_checkpoint(path, network, "ddfd-lite", {"lens": lens}, contract)
    return path, network


def test_answers_what_the_network_answers(checkpoint):
    path, network = checkpoint
    image = np.random.default_rng(2).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        answers = network(torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None])
    with open_backend(path) as backend:
        assert backend.runtime == "torch"
        outputs = backend.infer(image)
    for name in ("depth_m", "sigma_m"):
        np.testing.assert_allclose(outputs[name], answers[name][0, 0].numpy(), rtol=1e-4)
    sharp = answers["sharp_rgb"][0].permute(1, 2, 0).numpy() * 255
    assert np.abs(outputs["sharp_rgb"] - sharp.clip(0, 255)).max() < 0.51


def test_selected_heads_run_only_their_decoder(checkpoint):
    path, _ = checkpoint
    image = np.random.default_rng(3).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    with open_backend(path) as backend:
        everything = backend.infer(image)
        for heads in (["depth_m"], ["sharp_rgb"], ["sigma_m", "sharp_rgb"]):
            part = backend.infer(image, heads)
            assert set(part) == set(heads)
            for name, values in part.items():
                assert values.shape[:2] == (40, 32)
                atol = 1 if name == "sharp_rgb" else 1e-4  # a byte may round the other way
                np.testing.assert_allclose(
                    values.astype(float), everything[name].astype(float), rtol=1e-4, atol=atol
                )
        sizes = {
            part: sum(p.numel() for p in graph.parameters())
            for part, graph in backend._graphs.items()
        }
    assert sizes["depth"] < sizes[None]
    assert sizes["sharp"] < sizes[None]


def test_damaged_checkpoint(checkpoint, tmp_path):
    path, _ = checkpoint
    cut = tmp_path / "cut.pt"
    cut.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="expected a whole checkpoint"):
        open_backend(cut)


def test_no_cuda(checkpoint):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelLoadError, match="expected a CUDA device, got none"):
        open_backend(checkpoint[0], device="cuda")
