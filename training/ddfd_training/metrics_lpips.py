"""LPIPS, the learned perceptual distance of two images (Zhang et al. 2018), version 0.1.

Two sets of weights make it: those that weigh the features come with torchmetrics; the network
that makes the features is torchvision's, trained on ImageNet, and is read from a file or fetched.
Values of different networks cannot be compared: results always name theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.model.checkpoint import read_state_dict

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
SMALLEST_PX = 32


class _Fire(nn.Module):
    """SqueezeNet's block: squeeze to few channels, expand by 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x).relu(), self.expand3x3(x).relu()), dim=1)


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _squeezenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        _Fire(64, 16, 64), _Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True),
        _Fire(128, 32, 128), _Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True),
        _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
    )  # fmt: skip


@dataclass(frozen=True)
class _Backbone:
    """A network that LPIPS is defined on: its maker, where it is tapped, where its weights are."""

    make: Any
    taps: tuple[int, ...]
    file: str
    url: str


_HOME = "https://download.pytorch.org/models/"
BACKBONES: dict[str, _Backbone] = {
    "alex": _Backbone(_alexnet, (1, 4, 7, 9, 11), "alexnet-owt-7be5be79.pth", _HOME),
    "vgg": _Backbone(_vgg16, (3, 8, 15, 22, 29), "vgg16-397923af.pth", _HOME),
    "squeeze": _Backbone(
        _squeezenet, (1, 4, 7, 9, 10, 11, 12), "squeezenet1_1-b8a52dc0.pth", _HOME
    ),
}
"""``alex`` is what papers mean by LPIPS if they say nothing; DEDDNet's paper used ``squeeze``."""


class Lpips(nn.Module):
    """The distance, ready to use.

    Args:
        net: ``alex``, ``vgg`` or ``squeeze``.
        weights: State dict of torchvision's network, a file or the folder that holds it. By
            default it is looked for where torch.hub keeps its downloads.
        download: Fetch the file (10 to 530 MB) if it is not there.

    Raises:
        ValueError: No such ``net``.
        ModelLoadError: The weights cannot be had, or are those of another network.
    """

    def __init__(
        self, net: str = "alex", weights: str | Path | None = None, *, download: bool = False
    ) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise ValueError(f"lpips: expected one of {', '.join(BACKBONES)}, got {net!r}")
        self.net = net
        self._taps = BACKBONES[net].taps
        self.features = BACKBONES[net].make()
        state = _backbone_state(net, weights, download=download)
        try:
            self.features.load_state_dict(
                {k.removeprefix("features."): v for k, v in state.items() if "features." in k}
            )
        except RuntimeError as error:
            raise ModelLoadError(
                f"lpips: expected the weights of torchvision's {net}, got others: {error}"
            ) from error
        for i, weight in enumerate(_linear_weights(net)):
            self.register_buffer(f"linear{i}", weight)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Distance of each pair of a batch.

        Args:
            pred: ``[N, 3, H, W]`` in [0, 1], at least 32 pixels high and wide.
            target: Same shape.

        Returns:
            ``[N]``, 0 for equal images.

        Raises:
            ValueError: The shapes differ or are too small.
        """
        if pred.shape != target.shape or pred.ndim != 4 or min(pred.shape[-2:]) < SMALLEST_PX:
            raise ValueError(
                f"lpips: expected two batches [N, 3, H, W] of one shape, at least {SMALLEST_PX} "
                f"px each way, got {tuple(pred.shape)} and {tuple(target.shape)}"
            )
        a, b = (self._tapped(image) for image in (pred, target))
        total = pred.new_zeros(len(pred))
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            weight = getattr(self, f"linear{i}")
            difference = (_unit(x) - _unit(y)).square()
            total = total + (difference * weight).sum(dim=1).mean(dim=(1, 2))
        return total

    def of_bytes(self, pred: np.ndarray, target: np.ndarray) -> float:
        """Distance of two images uint8 ``[H, W, 3]``; errors as :meth:`forward`."""
        both = [
            torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
            for image in (pred, target)
        ]
        return float(self(*both))

    def _tapped(self, image: Tensor) -> list[Tensor]:
        x = (2.0 * image - 1.0 - self.shift) / self.scale
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self._taps:
                found.append(x)
        return found


def _unit(features: Tensor) -> Tensor:
    """Features of each pixel scaled to length one."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _linear_weights(net: str) -> list[Tensor]:
    """The learned weight of each channel, ``[1, C, 1, 1]`` for each tap, from torchmetrics."""
    spec = find_spec("torchmetrics")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    path = folder / "functional" / "image" / "lpips_models" / f"{net}.pth"
    if not path.is_file():
        raise ModelLoadError(
            f"lpips: expected the linear weights in torchmetrics at {path}, found none; "
            "install the requirements of training"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{i}.model.1.weight"] for i in range(len(BACKBONES[net].taps))]


def _backbone_state(
    net: str, weights: str | Path | None, *, download: bool
) -> Mapping[str, Tensor]:
    """The feature network's state dict."""
    backbone = BACKBONES[net]
    kept = Path(torch.hub.get_dir()) / "checkpoints"
    path = Path(weights) if weights is not None else kept
    path = path / backbone.file if path.is_dir() or weights is None else path
    url = backbone.url + backbone.file
    if download and not path.is_file():
        try:
            torch.hub.load_state_dict_from_url(url, model_dir=str(path.parent), check_hash=True)
        except (OSError, RuntimeError) as error:  # the latter where its digest is another one
            raise ModelLoadError(
                f"lpips: expected to download {url}, got {error}; fetch it on another machine "
                f"and put it at {path}"
            ) from error
    if not path.is_file():
        raise ModelLoadError(
            f"lpips ({net}): expected torchvision's ImageNet weights at {path}, found none; "
            f"fetch {url} and put it there, or allow the download (--lpips-weights download)"
        )
    return read_state_dict(path, f"torchvision's {net}", f"fetch {url} again")
