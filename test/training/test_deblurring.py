"""The loss of DEDDNet, VGG features, depth from a file, and the depth network inside."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ddfd_training.config import TrainConfig
from ddfd_training.deblurring import given_depth_step, load_guide, main
from ddfd_training.perceptual import (
    LAYERS,
    VggFeatures,
    load_vgg,
    perceptual,
    vgg_layers,
    zhai2024,
)

SMALL = {"channels": 8, "depth_channels": 4, "branches": [1]}


def vgg_state(seed=0):
    torch.manual_seed(seed)
    return {f"features.{k}": v for k, v in vgg_layers().state_dict().items()}


@pytest.fixture(name="vgg_file")
def _vgg_file(tmp_path):
    path = tmp_path / "vgg16.pth"
    # As torchvision's: with later layers and the classifier.
    extra = {
        "features.24.weight": torch.zeros(512, 512, 3, 3),
        "classifier.0.bias": torch.zeros(1),
    }
    torch.save(vgg_state() | extra, path)
    return path


def test_features_are_vgg16s():
    """The layers' plan against the published one (Simonyan and Zisserman 2014, column D)."""
    shapes = {k: tuple(v.shape[:2]) for k, v in vgg_state().items() if k.endswith("weight")}
    assert list(shapes.items()) == [
        ("features.0.weight", (64, 3)),
        ("features.2.weight", (64, 64)),
        ("features.5.weight", (128, 64)),
        ("features.7.weight", (128, 128)),
        ("features.10.weight", (256, 128)),
        ("features.12.weight", (256, 256)),
        ("features.14.weight", (256, 256)),
        ("features.17.weight", (512, 256)),
        ("features.19.weight", (512, 512)),
        ("features.21.weight", (512, 512)),
    ]
    image = torch.rand(1, 3, 32, 32)
    for layer, (channels, side) in {
        "relu1_2": (64, 32), "relu2_2": (128, 16), "relu3_3": (256, 8), "relu4_3": (512, 4),
    }.items():  # fmt: skip
        features = VggFeatures(vgg_state(), layer)
        assert isinstance(features.features[-1], nn.ReLU)
        assert features(image).shape == (1, channels, side, side)


def test_loss_is_l1_and_the_weighted_features(vgg_file):
    torch.manual_seed(1)
    pred, target = torch.rand(2, 1, 3, 32, 32)
    pred.requires_grad_()
    plain = zhai2024({"sharp_rgb": pred}, {"sharp_rgb": target})
    assert set(plain) == {"l1", "total"}
    assert plain["total"].item() == pytest.approx((pred - target).abs().mean().item())
    terms = zhai2024({"sharp_rgb": pred}, {"sharp_rgb": target}, vgg=str(vgg_file))
    features = VggFeatures(vgg_state())
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    seen = [features.features((x - mean) / std) for x in (pred, target)]
    expected = nn.functional.mse_loss(*seen)
    assert terms["perceptual"].item() == pytest.approx(expected.item(), rel=1e-4)
    total = plain["l1"] + 0.012 * expected
    assert terms["total"].item() == pytest.approx(total.item(), rel=1e-5)
    terms["perceptual"].backward()
    assert pred.grad.abs().max() > 0
    assert perceptual(target, target, features) == 0
    with torch.autocast("cpu", torch.bfloat16):  # as in a training with bf16-mixed
        again = perceptual(pred, target, features)
    assert again.dtype == torch.float32
    assert again.item() == pytest.approx(terms["perceptual"].item(), rel=1e-5)


def test_what_cannot_be_believed_does_not_count(vgg_file):
    torch.manual_seed(1)
    pred = torch.rand(1, 3, 32, 32)
    target = pred.clone()
    target[..., :10] = 0
    known = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    known[..., :10] = False
    targets = {"sharp_rgb": target, "sharp_known": known}
    assert zhai2024({"sharp_rgb": pred}, targets, vgg=str(vgg_file))["total"] == 0


def test_missing_weights_are_named(tmp_path, vgg_file):
    with pytest.raises(ModelLoadError, match="expected VGG-16 weights .* leave the loss's option"):
        load_vgg(str(tmp_path / "none.pth"))
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, other)
    with pytest.raises(ModelLoadError, match="expected torchvision's VGG-16"):
        load_vgg(str(other))
    broken = tmp_path / "broken.pth"
    for content in (b"no weights", b"half a download"):
        broken.write_bytes(content)
        with pytest.raises(ModelLoadError, match="does not load"):
            load_vgg(str(broken))
    with pytest.raises(ModelLoadError, match=f"expected one of {', '.join(LAYERS)}"):
        load_vgg(str(vgg_file), "relu9")


def test_depth_from_the_data_set_reaches_the_network():
    torch.manual_seed(0)
    network = build_network("deddnet", **SMALL).eval()
    batch = {"image": torch.rand(1, 3, 32, 32), "depth_m": torch.full((1, 1, 32, 32), 0.8)}
    outputs, targets = given_depth_step(network, batch, TrainConfig())
    assert targets is batch
    expected = network(batch["image"], batch["depth_m"])["sharp_rgb"]
    torch.testing.assert_close(outputs["sharp_rgb"], expected)
    assert not torch.equal(outputs["sharp_rgb"], network(batch["image"])["sharp_rgb"])


def test_the_depth_network_inside_gets_its_weights(tmp_path):
    torch.manual_seed(3)
    guide = build_network("ddfd-lite").eval()
    contract = ModelContract(
        FORMAT_VERSION, "ddfd-lite", {}, 1, None, None, 32, ("depth_m",), 0.5, 10.0,
        None, {}, {}, "",
    )  # fmt: skip
    path = tmp_path / "guide.pt"
    save_checkpoint(path, guide, "ddfd-lite", {}, contract)
    network = build_network("deddnet", **SMALL, depth="own").eval()
    load_guide(network, path)
    rgb = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(rgb)["depth_m"], guide(rgb)["depth_m"])
    with pytest.raises(ContractError, match="depth: own, got Deddnet without"):
        load_guide(build_network("deddnet", **SMALL), path)
    other = tmp_path / "other.pt"
    small = build_network("deddnet", **SMALL)
    written = dataclasses.replace(contract, network="deddnet", outputs=("sharp_rgb",))
    save_checkpoint(other, small, "deddnet", SMALL, written)
    with pytest.raises(ContractError, match="got those of 'deddnet'"):
        load_guide(network, other)


def test_the_depth_network_can_be_taken_out(tmp_path, capsys):
    torch.manual_seed(6)
    options = {**SMALL, "depth": "own", "output": "residual"}
    network = build_network("deddnet", **options).eval()
    torch.nn.init.normal_(network.tail.weight)
    contract = ModelContract(
        FORMAT_VERSION, "deddnet", {}, 1, None, None, 32, ("depth_m", "sharp_rgb"), 0.5, 10.0,
        None, {}, {}, "",
    )  # fmt: skip
    own, given = tmp_path / "own.pt", tmp_path / "given.pt"
    save_checkpoint(own, network, "deddnet", options, contract)
    assert main([str(own), str(given)]) == 0
    alone, contract = load_checkpoint(given)
    assert contract.outputs == ("sharp_rgb",)
    assert alone.side_inputs == ("depth_m",)
    rgb = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(rgb)
        got = alone(rgb, expected["depth_m"])
    torch.testing.assert_close(got["sharp_rgb"], expected["sharp_rgb"])
    assert main([str(given), str(own)]) == 2
    assert "expected a deddnet with the option depth: own" in capsys.readouterr().err
