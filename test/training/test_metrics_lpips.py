"""LPIPS against its definition written with plain functions; its weights, had or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics

from ddfd_ros.core.errors import ModelLoadError
from ddfd_training.metrics_lpips import BACKBONES, Lpips

State = dict[str, torch.Tensor]


def fake_weights(net: str, folder: Path) -> Path:
    """Random weights under torchvision's names, with the classifier that LPIPS has no use for."""
    torch.manual_seed(3)
    state = BACKBONES[net].make().state_dict()
    path = folder / BACKBONES[net].file
    torch.save({f"features.{k}": v for k, v in state.items()} | {"classifier.1.bias": v0()}, path)
    return path


def v0() -> torch.Tensor:
    return torch.zeros(1)


def conv(x: torch.Tensor, state: State, name: str, stride: int = 1, pad: int = 0) -> torch.Tensor:
    key = f"features.{name}"
    return F.relu(F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], stride, pad))


def alex_taps(x: torch.Tensor, s: State) -> list[torch.Tensor]:
    taps = [conv(x, s, "0", 4, 2)]
    taps.append(conv(F.max_pool2d(taps[-1], 3, 2), s, "3", 1, 2))
    taps.append(conv(F.max_pool2d(taps[-1], 3, 2), s, "6", 1, 1))
    taps.append(conv(taps[-1], s, "8", 1, 1))
    taps.append(conv(taps[-1], s, "10", 1, 1))
    return taps


def vgg_taps(x: torch.Tensor, s: State) -> list[torch.Tensor]:
    taps = []
    for block in (
        ("0", "2"),
        ("5", "7"),
        ("10", "12", "14"),
        ("17", "19", "21"),
        ("24", "26", "28"),
    ):
        x = F.max_pool2d(x, 2) if taps else x
        for name in block:
            x = conv(x, s, name, 1, 1)
        taps.append(x)
    return taps


def squeeze_taps(x: torch.Tensor, s: State) -> list[torch.Tensor]:
    def fire(x: torch.Tensor, i: int) -> torch.Tensor:
        squeezed = conv(x, s, f"{i}.squeeze")
        wide = conv(squeezed, s, f"{i}.expand3x3", 1, 1)
        return torch.cat([conv(squeezed, s, f"{i}.expand1x1"), wide], dim=1)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    taps = [conv(x, s, "0", 2)]
    taps.append(fire(fire(pool(taps[-1]), 3), 4))
    taps.append(fire(fire(pool(taps[-1]), 6), 7))
    taps.append(fire(pool(taps[-1]), 9))
    for i in (10, 11, 12):
        taps.append(fire(taps[-1], i))
    return taps


def reference(net: str, path: Path, a: torch.Tensor, b: torch.Tensor) -> list[float]:
    state: State = torch.load(path, weights_only=True)
    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    linear = torch.load(folder / f"{net}.pth", map_location="cpu", weights_only=True)
    taps: Callable = {"alex": alex_taps, "vgg": vgg_taps, "squeeze": squeeze_taps}[net]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def see(image: torch.Tensor) -> list[torch.Tensor]:
        # the published constants are ImageNet's for values in [-1, 1], rounded to three digits
        shift, scale = (2 * mean - 1).mul(1e3).round() / 1e3, (2 * std).mul(1e3).round() / 1e3
        return taps((2 * image - 1 - shift.view(3, 1, 1)) / scale.view(3, 1, 1), state)

    distances = []
    for x, y in zip(a, b, strict=True):
        total = 0.0
        for i, (f, g) in enumerate(zip(see(x[None]), see(y[None]), strict=True)):
            f, g = F.normalize(f[0], dim=0), F.normalize(g[0], dim=0)
            weight = linear[f"lin{i}.model.1.weight"].flatten()
            total += torch.einsum("c,chw->hw", weight, (f - g) ** 2).mean().item()
        distances.append(total)
    return distances


@pytest.mark.parametrize("net", sorted(BACKBONES))
def test_equals_its_definition_and_is_zero_for_equal_images(net: str, tmp_path: Path):
    path = fake_weights(net, tmp_path)
    a, b = torch.rand(2, 3, 40, 52), torch.rand(2, 3, 40, 52)
    distance = Lpips(net, path)
    assert distance(a, b).tolist() == pytest.approx(reference(net, path, a, b), rel=1e-4, abs=1e-5)
    assert distance(a, a).tolist() == [0, 0]
    grey = torch.full((1, 3, 32, 32), 0.5)
    assert distance(grey, grey).item() == 0
    assert not any(p.requires_grad for p in distance.parameters())


def test_weights_are_found_in_a_folder_or_where_torch_hub_keeps_them(tmp_path: Path, monkeypatch):
    fake_weights("alex", tmp_path)
    assert Lpips("alex", tmp_path).net == "alex"
    (tmp_path / "checkpoints").mkdir()
    fake_weights("alex", tmp_path / "checkpoints")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    image = torch.rand(1, 3, 32, 32)
    assert Lpips()(image, 1 - image).item() > 0


def test_without_weights_the_error_says_where_they_belong(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelLoadError, match=r"checkpoints/alexnet-owt-.*found none; fetch https"):
        Lpips()

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(ModelLoadError, match="no route to host; fetch it on another machine"):
        Lpips(download=True)
    wrong = fake_weights("squeeze", tmp_path)
    with pytest.raises(ModelLoadError, match="weights of torchvision's alex"):
        Lpips("alex", wrong)


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch):
    damaged = tmp_path / "alexnet.pth"
    damaged.write_bytes(b"half a download")
    with pytest.raises(ModelLoadError, match=r"alexnet\.pth, got a file that does not load"):
        Lpips("alex", damaged)
    torch.save([1, 2], damaged)
    with pytest.raises(ModelLoadError, match=r"alexnet\.pth, got a file that does not load"):
        Lpips("alex", damaged)

    def altered(*_: object, **__: object) -> None:
        raise RuntimeError('invalid hash value (expected "7be5be79")')

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", altered)
    with pytest.raises(ModelLoadError, match="invalid hash value"):
        Lpips(download=True)


def test_an_evaluation_names_the_network(tmp_path: Path):
    from ddfd_training.evaluate import evaluate
    from ddfd_training.evaluate_items import Item

    rng = np.random.default_rng(0)
    sharp, image = rng.integers(0, 256, (2, 40, 44, 3), np.uint8)
    item = Item("a", image, np.full((40, 44), np.nan, np.float32), sharp)

    class Perfect:
        def infer(self, image_rgb: np.ndarray, heads: object = None) -> dict[str, np.ndarray]:
            return {"sharp_rgb": sharp}

    path = fake_weights("squeeze", tmp_path)
    result = evaluate(Perfect(), [item], lpips=Lpips("squeeze", path))["all_in_focus"]
    assert result["output"]["lpips_squeeze"] == 0
    pair = [torch.tensor(x / 255).permute(2, 0, 1)[None].float() for x in (image, sharp)]
    assert result["input"]["lpips_squeeze"] == pytest.approx(
        reference("squeeze", path, *pair)[0], rel=1e-4
    )


def test_the_command_says_how_to_get_the_weights(tmp_path: Path, monkeypatch, capsys):
    from ddfd_training.evaluate_cli import main

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    code = main(["--onnx", "no.onnx", "--data", "nyuv2", "--lpips", "vgg"])
    assert code == 2
    assert "vgg16-397923af.pth" in capsys.readouterr().err


def test_bad_arguments_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="alex, vgg, squeeze"):
        Lpips("resnet")
    distance = Lpips("squeeze", fake_weights("squeeze", tmp_path))
    with pytest.raises(ValueError, match="at least 32"):
        distance(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
