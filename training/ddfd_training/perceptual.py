"""DEDDNet's loss: L1, and what VGG-16 sees in the images (Zhai 2024; Johnson et al. 2016).

The network is written out here, so that its weights can come from a file; torchvision is needed
only to download them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.model.checkpoint import read_state_dict
from ddfd_training.losses_image import l1_image

TORCHVISION = "torchvision"
LAYERS: dict[str, int] = {"relu1_2": 4, "relu2_2": 9, "relu3_3": 16, "relu4_3": 23}
"""Name of a feature map -> number of VGG-16's layers that make it."""
_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512)  # 0: 2x2 max pool
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class VggFeatures(nn.Module):
    """VGG-16 up to one of its feature maps, frozen.

    Args:
        state: torchvision's state dict of VGG-16 (keys ``features.0.weight``, ...).
        layer: A name in ``LAYERS``.

    Raises:
        ModelLoadError: Not weights of a VGG-16, or an unknown layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: Mapping[str, Tensor], layer: str = "relu3_3") -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ModelLoadError(
                f"perceptual layer: expected one of {', '.join(LAYERS)}, got {layer!r}"
            )
        self.features = vgg_layers()[: LAYERS[layer]]
        wanted = self.state_dict()
        found = {key: state[key] for key in wanted if key in state}
        if len(found) < len(wanted) or any(found[k].shape != wanted[k].shape for k in wanted):
            raise ModelLoadError(
                f"perceptual weights: expected torchvision's VGG-16 ({len(wanted)} tensors up to "
                f"{layer}), got {len(found)} of them with fitting names; choose vgg16-*.pth"
            )
        self.load_state_dict(found)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """RGB ``[N, 3, H, W]`` in [0, 1] to features ``[N, C, H/s, W/s]``."""
        return self.features((image - self.mean) / self.std)


def vgg_layers() -> nn.Sequential:
    """VGG-16's convolutional part up to relu4_3, with random weights."""
    layers: list[nn.Module] = []
    before = 3
    for width in _WIDTHS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return nn.Sequential(*layers)


def perceptual(pred: Tensor, target: Tensor, features: nn.Module) -> Tensor:
    """Mean squared difference of two images' features (Johnson et al. 2016, eq 2).

    Args:
        pred: ``[N, 3, H, W]`` in [0, 1].
        target: Same shape; gets no gradient.
        features: A :class:`VggFeatures`, on the images' device.
    """
    # Features of two images are much alike, and their difference counts: no half precision here.
    with torch.autocast(pred.device.type, enabled=False):
        with torch.no_grad():
            wanted = features(target.float())
        return (features(pred.float()) - wanted).square().mean()


def zhai2024(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    perceptual_weight: float = 0.012,
    vgg: str = "",
    layer: str = "relu3_3",
) -> dict[str, Tensor]:
    """L1 + 0.012 perceptual, on the sharp image (Zhai 2024 eq 1).

    Public code halves the sum, which Adam does not notice.

    Args:
        outputs: ``sharp_rgb [N,3,H,W]``.
        targets: ``sharp_rgb`` and, where only a part of it can be believed, ``sharp_known``.
        perceptual_weight: alpha of eq 1.
        vgg: Path of VGG-16's weights, ``torchvision`` to download them, or empty: L1 alone.
        layer: Feature map that is compared.

    Raises:
        ModelLoadError: The weights cannot be had.
    """
    pred, target = outputs["sharp_rgb"], targets["sharp_rgb"]
    known = targets.get("sharp_known")
    terms = {"l1": l1_image(pred, target, known)}
    terms["total"] = terms["l1"]
    if vgg:
        # What cannot be believed is the same on both sides.
        believed = target if known is None else torch.where(known.bool(), target, pred.detach())
        terms["perceptual"] = perceptual(pred, believed, load_vgg(vgg, layer, str(pred.device)))
        terms["total"] = terms["l1"] + perceptual_weight * terms["perceptual"]
    return terms


@lru_cache(maxsize=4)
def load_vgg(source: str, layer: str = "relu3_3", device: str = "cpu") -> VggFeatures:
    """VGG-16 with its ImageNet weights; kept, since a loss asks for it at every step.

    Args:
        source: Path of torchvision's ``vgg16-397923af.pth`` (or a file like it), or
            ``torchvision`` to download it.
        layer: A name in ``LAYERS``.
        device: Where the images are.

    Raises:
        ModelLoadError: The weights cannot be had, or are of another network.
    """
    state = _download() if source == TORCHVISION else _read(Path(source))
    return VggFeatures(state, layer).to(device)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ModelLoadError(
            f"{path}: expected VGG-16 weights for the perceptual loss, got no file; give the path "
            "of vgg16-397923af.pth, or leave the loss's option vgg empty to do without"
        )
    return read_state_dict(path, "VGG-16", "download it again")


def _download() -> Mapping[str, Tensor]:
    try:
        from torchvision.models import VGG16_Weights
    except ImportError as error:
        raise ModelLoadError(
            f"perceptual loss: expected the package torchvision for its download, got none "
            f"({error}); install it, give the path of vgg16-397923af.pth, or leave vgg empty"
        ) from error
    try:
        state: Mapping[str, Tensor] = VGG16_Weights.IMAGENET1K_V1.get_state_dict(
            progress=True, check_hash=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise ModelLoadError(
            f"perceptual loss: expected torchvision to download VGG-16, got {error}; give the "
            "path of vgg16-397923af.pth fetched on another machine, or leave vgg empty"
        ) from error
    return state
