"""DEDDNet: the sharp image, guided by depth (Zhai et al. 2024).

A U-shaped network of channel-attention blocks (one to three of them side by side) removes the
blur; on the way up each scale is told the depth by a gated recurrent unit. The depth comes from
outside, or from a depth network of this project that is built in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model.base import HEAD_CHOICES, ImageNetwork, check_choice, pad_to_multiple
from ddfd_ros.model.deddnet_blocks import Branch, ConvFusion, Group, GruFusion, conv3

FUSIONS = ("gru", "conv", "input", "none")
DEPTH_SOURCES = ("given", "own", "none")
SCALES = (1, 2, 4, 8)
FAR_M = 1e6
"""Depth in metres that stands for unknown: no disparity."""


class Deddnet(ImageNetwork):
    """Depth-guided defocus deblurring.

    2,646,308 parameters with the defaults (the paper's 2.65 M), 4,090,948 with two branches,
    ``[1, 3]`` (the paper's 4.11 M); a built-in depth network comes on top.

    Args:
        heads: ``both``, ``depth`` or ``sharp``. Only with ``depth: own`` is there more than the
            sharp image.
        branches: Blocks per group of each of the parallel branches; one to three of them.
        fusion: How depth joins: ``gru`` and ``conv`` at each scale, ``input`` as a fourth channel
            of the image, ``none`` not at all.
        state: What the GRU's state is: ``blur`` (public code, and the paper's number of
            parameters) or ``depth`` (the paper's text).
        blocks: ``rcab``, or ``plain`` for the U-Net it is compared with.
        depth: Where depth comes from: ``given`` with each image, ``own`` from a depth network that
            is built in and not trained, or ``none``: the same network told nothing.
        output: ``sigmoid`` (public code) or ``residual``: the correction is added to the image,
            which a short training gets much further with.
        channels: Width of the branches.
        depth_channels: Width of the depth encoder.
        guide: With ``own``: name of the depth network, one of this registry.
        guide_options: Its options.
        lens: With ``own``: its lens.
        depth_range_m: With ``own``: its depth range.

    Raises:
        ValueError: An option has a value that does not exist.
    """

    def __init__(
        self,
        heads: str = "both",
        branches: Sequence[int] = (3,),
        fusion: str = "gru",
        state: str = "blur",
        blocks: str = "rcab",
        depth: str = "given",
        output: str = "sigmoid",
        channels: int = 64,
        depth_channels: int = 16,
        guide: str = "ddfd-lite",
        guide_options: Mapping[str, Any] | None = None,
        lens: LensConfig = LENS_PRESETS["nyu-8m"],
        depth_range_m: tuple[float, float] = (0.5, 10.0),
    ) -> None:
        super().__init__()
        check_choice("heads", heads, HEAD_CHOICES)
        check_choice("fusion", fusion, FUSIONS)
        check_choice("state", state, ("blur", "depth"))
        check_choice("blocks", blocks, ("rcab", "plain"))
        check_choice("depth", depth, DEPTH_SOURCES)
        check_choice("output", output, ("sigmoid", "residual"))
        if not 1 <= len(branches) <= 3 or min(branches) < 1:
            raise ValueError(f"branches: expected one to three positive counts, got {branches}")
        if heads == "depth" and depth != "own":
            raise ValueError(f"heads: expected both or sharp with depth {depth!r}, got 'depth'")
        self.fusion, self.depth_from, self.residual = fusion, depth, output == "residual"
        self.tells_depth = heads != "sharp"
        self.guide = _guide(guide, guide_options, lens, depth_range_m) if depth == "own" else None
        if self.guide is not None:
            self.size_multiple = int(getattr(self.guide, "size_multiple", 32))
        else:
            self.size_multiple = 16
        self.has_sharp = heads != "depth"
        self.side_inputs = ("depth_m",) if self.needs_depth else ()
        if not self.has_sharp:
            return
        self.head = conv3(3 + (fusion == "input"), channels)
        self.depth_encoder: nn.Module | None = None
        if fusion in ("gru", "conv"):
            self.depth_encoder = nn.Sequential(
                conv3(1, depth_channels), nn.ReLU(), Group(depth_channels, 1)
            )
        self.branches = nn.ModuleList(
            Branch(channels, count, blocks, _fusions(fusion, channels, depth_channels, state))
            for count in branches
        )
        self.tail = conv3(channels, 3)
        if self.residual:  # untrained, the answer is the image itself
            nn.init.zeros_(self.tail.weight)
            nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    @property
    def needs_depth(self) -> bool:
        """Whether ``forward`` must be given depth."""
        return self.depth_from == "given" and self.fusion != "none"

    def train(self, mode: bool = True) -> Deddnet:
        """Switch to training; a built-in depth network stays as it is."""
        super().train(mode)
        if self.guide is not None:
            self.guide.eval()
        return self

    def forward(
        self, image: torch.Tensor, depth_m: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Estimate every head of an image of any size.

        Args:
            image: RGB ``[N, 3, H, W]`` in [0, 1].
            depth_m: ``[N, 1, H, W]`` in metres with ``depth: given``; NaN, infinite or not
                positive where unknown, which counts as infinitely far. Without it, all is.

        Returns:
            ``sharp_rgb [N, 3, H, W]``; with ``depth: own`` the depth network's heads too.

        Raises:
            ValueError: A shape does not fit.
        """
        if depth_m is None or self.depth_from != "given":
            return super().forward(image)
        height, width = image.shape[-2:]
        if depth_m.shape != (image.shape[0], 1, height, width):
            raise ValueError(
                f"depth_m: expected [N, 1, H, W] of the image's size, {list(image.shape)}, got "
                f"{list(depth_m.shape)}"
            )
        known = (depth_m > 0) & (depth_m < FAR_M)
        depth_m = torch.where(known, depth_m, FAR_M)
        depth_m = pad_to_multiple(depth_m, self.size_multiple)
        return self._at_any_size(image, partial(self.forward_aligned, depth_m=depth_m))

    def forward_aligned(
        self, image: torch.Tensor, depth_m: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """As ``forward``, for sides that are multiples of ``size_multiple`` and known depth."""
        outputs: dict[str, torch.Tensor] = {}
        if self.guide is not None:
            with torch.no_grad():
                told = self.guide.forward_aligned(image)  # type: ignore[operator]
            depth_m = told["depth_m"]
            outputs = told if self.tells_depth else {}
        if self.has_sharp:
            outputs = {**outputs, "sharp_rgb": self._sharpen(image, depth_m)}
        return outputs

    def _sharpen(self, image: torch.Tensor, depth_m: torch.Tensor | None) -> torch.Tensor:
        if depth_m is None or self.depth_from == "none":
            dioptre = torch.zeros_like(image[:, :1])
        else:
            dioptre = 1.0 / depth_m.to(image.dtype)  # the paper feeds disparity
        joined = torch.cat((image, dioptre), dim=1) if self.fusion == "input" else image
        first = self.head(joined)
        features = torch.relu(first)
        depths: list[torch.Tensor] = []
        if self.depth_encoder is not None:
            depths = [self.depth_encoder(_shrunk(dioptre, scale)) for scale in SCALES]
        total = features
        for branch in self.branches:
            total = total + branch(features, depths)
        answer = self.tail(total)
        return image + answer.float() if self.residual else torch.sigmoid(answer.float())


def _shrunk(values: torch.Tensor, scale: int) -> torch.Tensor:
    """``[N, 1, H, W]`` at 1/``scale``: bilinear, which at these scales is a mean of 2 x 2."""
    if scale == 1:
        return values
    return functional.interpolate(
        values, scale_factor=1.0 / scale, mode="bilinear", align_corners=False
    )


def _fusions(fusion: str, channels: int, depth_channels: int, state: str) -> nn.ModuleList:
    """One module for each scale, or none."""
    if fusion == "gru":
        return nn.ModuleList(GruFusion(channels, depth_channels, state) for _ in SCALES)
    if fusion == "conv":
        return nn.ModuleList(ConvFusion(channels, depth_channels) for _ in SCALES)
    return nn.ModuleList()


def _guide(
    name: str,
    options: Mapping[str, Any] | None,
    lens: LensConfig,
    depth_range_m: tuple[float, float],
) -> nn.Module:
    """A depth network of the registry, without gradients.

    Raises:
        ValueError: It has no depth head, or does not exist.
    """
    if name == "deddnet":
        raise ValueError("guide: expected a depth network, got 'deddnet'")
    # Imported here: the registry imports this module.
    from ddfd_ros.model.networks import build_network, optics_options

    own = dict(options or {})
    optics = optics_options(name, own, lens, depth_range_m)
    network = build_network(name, **{"heads": "depth", **optics, **own})
    return network.requires_grad_(False).eval()
