"""ImageNet weights: torchvision's own download, its errors, and networks that cannot have them."""

from __future__ import annotations

import sys
import types
from urllib.error import URLError

import pytest
import torch

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.model import build_network
from ddfd_training.imagenet import load_encoder


def torchvision_that(download) -> types.ModuleType:
    """Stands for the package: its one class that is used, with its own method's signature."""

    class Member:
        @staticmethod
        def get_state_dict(*, progress: bool, check_hash: bool):
            assert progress
            assert check_hash
            return download()

    weights = types.SimpleNamespace(IMAGENET1K_V1=Member)
    models = types.ModuleType("torchvision.models")
    models.DenseNet121_Weights = weights
    return models


def install(monkeypatch, download) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", torchvision_that(download))


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The spelling of the file that torchvision downloads."""
    return {
        key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): value
        for key, value in state.items()
    }  # fmt: skip


@pytest.mark.parametrize("name", ["d3net", "2hded"])
def test_torchvisions_download_is_loaded_by_key(monkeypatch, name) -> None:
    """All tensors of the encoder but the stem and what replaces max pooling: 724 of 731."""
    torch.manual_seed(1)
    other = build_network("d3net").encoder.state_dict()
    theirs = {k: v for k, v in other.items() if "down" not in k}
    theirs["features.conv0.weight"] = torch.zeros(64, 3, 7, 7)
    install(monkeypatch, lambda: old_names(theirs))
    network = build_network(name)
    report = load_encoder(network, "torchvision")
    assert len(report.matched) == 724
    assert str(report).startswith("encoder: 724 of 731 tensors matched")
    state = network.encoder.state_dict()
    for key in report.matched:
        assert torch.equal(state[key], theirs[key])


def test_a_failed_download_says_what_to_do(monkeypatch) -> None:
    def download():
        raise URLError("no route to host")

    install(monkeypatch, download)
    with pytest.raises(ModelLoadError, match=r"no route to host.*give the path of densenet121"):
        load_encoder(build_network("d3net"), "torchvision")


def test_without_torchvision_a_path_is_asked_for(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    words = r"expected the package torchvision.*network\.imagenet=PATH.*network\.imagenet=$"
    with pytest.raises(ModelLoadError, match=words):
        load_encoder(build_network("d3net"), "torchvision")


def test_other_encoders_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="leave network.imagenet empty"):
        load_encoder(build_network("ddfd-lite"), "torchvision")
