"""From signed blur to metres, through the lens: the last step of a network that reads blur.

The network answers signed blur c in pixels and its deviation. The thin lens is a straight line
over inverse distance (``ddfd_ros.core.thin_lens``), so both become metres without anything learnt:

    1/d = 1/d_f - c / A,        sigma_m = d^2 / A * sigma_px   (first order)

The lens is two numbers here, A (pixels of blur per dioptre) and 1/d_f (dioptres), given with the
image or fixed.

With the lens an input, one network serves any lens, and it can change between two frames. Such a
network answers two things that it can tell without the lens: how wide the blur is, which is local
and has no sign, and how far away a thing looks by what is around it. The lens puts both on one
scale, where they meet as two measurements do (``metres_from_evidence``): what is around decides
the side of the focus and, where the lens blurs little, the distance; blur decides the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.model.base import ImageNetwork

GAIN_PX = 4.0
"""One unit of the network's last layer, in pixels of blur: near the spread of the data."""
START_DEPTH_M = 2.5
"""Where the untrained network stands."""
START_SIGMA_PX = 0.5
_LOG_SIGMA = (-3.0, 3.0)  # their squares stay within half precision
START_BLUR_PX = 3.0
"""Blur diameter that an untrained network for any lens reads: of the middle of the data."""
PRIOR_GAIN_DIOPTRE = 0.25
"""One unit of its second answer, in dioptres, and the deviation of that answer untrained."""
EVIDENCE = ("blur", "blur_sigma", "dioptre", "dioptre_sigma")
"""What ``LensNetwork`` answers in training beside its heads: see ``Evidence``."""
_LOG_CHANGE = (-2.0, 2.0)
REFERENCE_PX_PER_DIOPTRE = 14.0
"""Strength in the middle of the cameras of the papers (11.8 to 14.4)."""
_LEAK = 0.1


def lens_vector(lens: LensConfig) -> tuple[float, float]:
    """What a network needs to know of a lens: (A in pixels per dioptre, 1/d_f in dioptres)."""
    return lens.px_per_dioptre, lens.focus_dioptre


def lens_tensor(lenses: Sequence[LensConfig] | LensConfig, like: torch.Tensor) -> torch.Tensor:
    """``lens_vector`` of one lens or one per image as ``[N, 2]``, beside the tensor ``like``."""
    several = [lenses] if isinstance(lenses, LensConfig) else list(lenses)
    return torch.tensor(
        [lens_vector(lens) for lens in several], dtype=torch.float32, device=like.device
    )


def metres_from_blur(
    raw: torch.Tensor,
    lens: torch.Tensor | LensConfig,
    depth_range_m: tuple[float, float],
    training: bool,
) -> dict[str, torch.Tensor]:
    """Turn a network's last layer into blur, depth and deviation.

    Args:
        raw: ``[N, 2, H, W]``: blur in units of ``GAIN_PX`` relative to ``START_DEPTH_M``, and the
            logarithm of the deviation in units of ``START_SIGMA_PX``.
        lens: ``[N, 2]`` or ``[1, 2]``, ``lens_vector`` of each image's lens; or the one lens of
            all, which then becomes constants of an exported graph.
        depth_range_m: Nearest and farthest depth that is answered, in metres.
        training: Keep a small slope outside the range, so that a pixel finds its way back, and
            leave the deviation unlimited.

    Returns:
        ``depth_m``, ``sigma_m`` and ``defocus_px`` as ``[N, 1, H, W]``.
    """
    strength: Any
    focus: Any
    if isinstance(lens, LensConfig):
        strength, focus = lens_vector(lens)
    else:
        strength = lens[:, :1].reshape(-1, 1, 1, 1)
        focus = lens[:, 1:].reshape(-1, 1, 1, 1)
    blur_px = raw[:, :1] * GAIN_PX + strength * (focus - 1.0 / START_DEPTH_M)
    sigma_px = torch.exp(raw[:, 1:].clamp(-6.0, 4.0)) * START_SIGMA_PX
    return _in_range(blur_px, sigma_px, strength, focus, depth_range_m, training)


def _in_range(
    blur_px: torch.Tensor,
    sigma_px: torch.Tensor,
    strength: Any,
    focus: Any,
    depth_range_m: tuple[float, float],
    training: bool,
    correction: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Signed blur and its deviation in metres, within the range of depths."""
    nearest_m, farthest_m = depth_range_m
    low = strength * (focus - 1.0 / nearest_m)
    high = strength * (focus - 1.0 / farthest_m)
    inside = torch.clamp(blur_px, low, high)
    if training:
        # The value is clamped, yet keeps a small slope, so that a pixel finds its way back.
        inside = inside + _LEAK * (blur_px - blur_px.detach())
    depth_m = 1.0 / (focus - inside / strength)
    sigma_m = depth_m.detach() ** 2 * (sigma_px / strength)
    if not training:
        # First order goes too far where blur says nothing; depth lies in its range at least.
        sigma_m = sigma_m.clamp(max=farthest_m - nearest_m)
        if correction is not None:
            terms = sigma_terms(sigma_m, depth_m, strength, focus)
            weighed = [weight * term for weight, term in zip(correction, terms, strict=True)]
            sigma_m = sigma_m * torch.exp(sum(weighed[1:], weighed[0]))
            sigma_m = sigma_m.clamp(max=farthest_m - nearest_m)
    return {"depth_m": depth_m, "sigma_m": sigma_m, "defocus_px": inside}


@dataclass(frozen=True)
class Evidence:
    """What can be told without knowing the lens, each ``[N, 1, H, W]``, and the lens beside it.

    Attributes:
        blur: Width of the blur, in pixels.
        blur_sigma: Its deviation.
        dioptre: Inverse distance that context suggests.
        dioptre_sigma: Its deviation.
        strength: A in pixels per dioptre, ``[N, 1, 1, 1]``.
        focus: 1/d_f in dioptres, of that shape.
        side: Half the log-odds that the blur is positive (beyond the focus), by the scene's shape.
    """

    blur: torch.Tensor
    blur_sigma: torch.Tensor
    dioptre: torch.Tensor
    dioptre_sigma: torch.Tensor
    strength: torch.Tensor
    focus: torch.Tensor
    side: torch.Tensor | None = None

    def read(self) -> dict[str, torch.Tensor]:
        """What was read from the image, with the names of ``EVIDENCE``."""
        return {name: getattr(self, name) for name in EVIDENCE}


def evidence_of(raw: torch.Tensor, lens: torch.Tensor) -> Evidence:
    """What a network's last layer says.

    Args:
        raw: ``[N, 4, H, W]``: blur less ``START_BLUR_PX`` in units of ``GAIN_PX``, the logarithm
            of its deviation in units of ``START_SIGMA_PX``, inverse distance less that of
            ``START_DEPTH_M`` and the logarithm of its deviation, both in units of
            ``PRIOR_GAIN_DIOPTRE``.
        lens: ``[N, 2]`` or ``[1, 2]``, ``lens_vector`` of each image's lens.
    """
    return Evidence(
        # Softplus, not a clamp: a pixel that reads too little blur must find its way back.
        blur=functional.softplus(raw[:, :1] * GAIN_PX + START_BLUR_PX),
        blur_sigma=torch.exp(raw[:, 1:2].clamp(*_LOG_SIGMA)) * START_SIGMA_PX,
        dioptre=raw[:, 2:3] * PRIOR_GAIN_DIOPTRE + 1.0 / START_DEPTH_M,
        dioptre_sigma=torch.exp(raw[:, 3:].clamp(*_LOG_SIGMA)) * PRIOR_GAIN_DIOPTRE,
        strength=lens[:, :1].reshape(-1, 1, 1, 1),
        focus=lens[:, 1:].reshape(-1, 1, 1, 1),
    )


def seen_again(evidence: Evidence, look: torch.Tensor) -> Evidence:
    """The evidence with what a second look (``SecondLook``) adds, ``look [N, 3, H, W]``."""
    return replace(
        evidence,
        side=look[:, :1],
        dioptre=evidence.dioptre + look[:, 1:2] * PRIOR_GAIN_DIOPTRE,
        dioptre_sigma=(evidence.dioptre_sigma * torch.exp(look[:, 2:].clamp(*_LOG_CHANGE))).clamp(
            *(PRIOR_GAIN_DIOPTRE * math.exp(end) for end in _LOG_SIGMA)
        ),
    )


def metres_from_evidence(
    evidence: Evidence,
    depth_range_m: tuple[float, float],
    training: bool,
    correction: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Put the width of the blur and the distance that context suggests together, by the lens.

    Blur b with deviation s_b has two signs, each side of the focus one. Context says inverse
    distance z with deviation s_z, which this lens would show as blur p = A (1/d_f - z) with
    deviation A s_z. By Bayes' rule, with normal distributions and log-odds 2 l of the positive
    sign beforehand (0 without a second look):

        w = (A s_z)^2 / ((A s_z)^2 + s_b^2)                    share of the blur
        t = tanh(b p / ((A s_z)^2 + s_b^2) + l)                probability of + less that of -
        c = w b t + (1 - w) p                                  mean of the signed blur
        sigma_px^2 = w s_b^2 + (w b)^2 (1 - t^2)               its variance

    Args:
        evidence: Blur, context, lens and, if there is any, side.
        depth_range_m: Nearest and farthest depth that is answered, in metres.
        training: As for ``metres_from_blur``; and answer the argument of tanh as ``side``.
        correction: ``[4]``, weights of ``sigma_terms``: by which the logarithm of the deviation
            in metres is corrected; not in training.

    Returns:
        As ``metres_from_blur``; in training also ``side``.
    """
    strength, focus, blur = evidence.strength, evidence.focus, evidence.blur
    prior = strength * (focus - evidence.dioptre)
    prior_sigma = strength * evidence.dioptre_sigma

    blur_variance = evidence.blur_sigma * evidence.blur_sigma
    both = prior_sigma * prior_sigma + blur_variance
    share = prior_sigma * prior_sigma / both
    leaning = blur * prior / both
    if evidence.side is not None:
        leaning = leaning + evidence.side
    side = torch.tanh(leaning)
    mean = share * blur * side + (1.0 - share) * prior
    between = (share * blur) ** 2 * (1.0 - side * side)
    sigma = torch.sqrt(share * blur_variance + between)
    answer = _in_range(mean, sigma, strength, focus, depth_range_m, training, correction)
    if training:
        answer["side"] = leaning
    return answer


def sigma_terms(sigma_m: Any, depth_m: Any, strength: Any, focus: Any) -> tuple[Any, ...]:
    """What a deviation may be wrong by in proportion to: nothing, ln A, the focus, ln of itself.

    The thin lens is a straight line to first order only, and blur of one pixel is not as hard to
    read as of twenty; so the deviations are measured on pictures that were not trained on, see
    ``ddfd_training.sigma_fit``.

    Args:
        sigma_m: Deviation in metres, uncorrected.
        depth_m: Depth in metres; of the deviation its share of the depth counts.
        strength: A in pixels per dioptre.
        focus: 1/d_f in dioptres.
    """
    relative = strength / REFERENCE_PX_PER_DIOPTRE
    return torch.ones_like(depth_m), torch.log(relative), focus, torch.log(sigma_m / depth_m)


class LensCondition(nn.Module):
    """Scale and shift a scale's channels by the lens, so that context can be read in its terms.

    What is around a pixel tells its distance, not its blur; which blur that distance has depends
    on the lens. Two layers turn (log A, 1/d_f, the blur at infinity and at 1 m) into one factor
    and one offset per channel. Untrained, nothing is changed.
    """

    def __init__(self, channels: int, hidden: int = 32) -> None:
        """For features of ``channels`` channels."""
        super().__init__()
        self.channels = channels
        self.inner = nn.Linear(4, hidden)
        self.outer = nn.Linear(hidden, 2 * channels)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` features and ``[N or 1, 2]`` lenses to features of the same shape."""
        strength, focus = lens[:, :1], lens[:, 1:]
        relative = strength / REFERENCE_PX_PER_DIOPTRE
        seen = torch.cat(
            [torch.log(relative), focus, relative * focus, relative * (focus - 1.0)], dim=1
        )
        factors = self.outer(torch.relu(self.inner(seen)))
        scale = factors[:, : self.channels].reshape(-1, self.channels, 1, 1)
        shift = factors[:, self.channels :].reshape(-1, self.channels, 1, 1)
        return x * (1.0 + scale) + shift


class LensNetwork(ImageNetwork):
    """Base of networks that read blur; their lens is fixed or given beside each image.

    A subclass implements ``forward_aligned(image, lens)``: it asks ``_told`` what its encoder is
    told of the lens, and has ``_through_lens`` turn its last layer into metres.

    Args:
        lens: The lens that takes the pictures; with ``lens_input`` the one that is meant when none
            is given.
        depth_range_m: Nearest and farthest depth that is answered, in metres.
        lens_input: Take the lens beside the image, so that one network serves any lens.

    Raises:
        ValueError: The depth range is empty or not positive.
    """

    def __init__(
        self, lens: LensConfig, depth_range_m: tuple[float, float], lens_input: bool
    ) -> None:
        super().__init__()
        nearest_m, farthest_m = depth_range_m
        if not 0 < nearest_m < farthest_m:
            raise ValueError(f"depth_range_m: expected 0 < near < far, got {depth_range_m}")
        self.lens = lens
        self.depth_range_m = (float(nearest_m), float(farthest_m))
        self.lens_input = lens_input
        self.side_inputs = ("lens",) if lens_input else ()
        if lens_input:
            self.sigma_correction: torch.Tensor
            self.register_buffer("sigma_correction", torch.zeros(4))

    def forward(
        self, image: torch.Tensor, lens: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Estimate every head of an image of any size.

        Args:
            image: RGB ``[N, 3, H, W]`` in [0, 1].
            lens: ``[N, 2]`` or ``[1, 2]``, ``lens_vector`` of each image's lens; only with
                ``lens_input``. None: the network's own lens.

        Returns:
            As ``forward_aligned``.

        Raises:
            ValueError: A lens for a network without ``lens_input``, or a wrong shape.
        """
        if lens is None:
            return super().forward(image)
        if not self.lens_input:
            raise ValueError(
                "lens: expected none, for this network takes no lens beside the image, got one; "
                "build and train it with lens_input"
            )
        if lens.ndim != 2 or lens.shape[1] != 2 or lens.shape[0] not in (1, len(image)):
            raise ValueError(
                f"lens: expected [{len(image)}, 2] or [1, 2], got {list(lens.shape)}; give "
                "pixels per dioptre and the focus in dioptres for each image"
            )
        return self._at_any_size(image, partial(self.forward_aligned, lens=lens))

    def forward_aligned(
        self, image: torch.Tensor, lens: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """As ``forward``, for sides that are multiples of ``size_multiple``."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward_aligned")

    def _conditions(self, channels: Sequence[int]) -> nn.ModuleList | None:
        """One ``LensCondition`` for each of an encoder's coarse scales, with ``lens_input``.

        Blur is read at the fine scales; only the coarse ones, which see context, know the lens.
        """
        return nn.ModuleList(map(LensCondition, channels)) if self.lens_input else None

    def _told(self, image: torch.Tensor, lens: torch.Tensor | None) -> torch.Tensor | None:
        """The lens as a tensor with ``lens_input``, None where it is a constant."""
        return lens_tensor(self.lens, image) if lens is None and self.lens_input else lens

    def _through_lens(
        self,
        raw: torch.Tensor,
        lens: torch.Tensor | None,
        again: Callable[[Evidence], torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Metres from ``maps`` maps, with what ``_told`` returned; ``again`` looks a second time.

        In training with ``lens_input`` also ``side`` and the four maps of ``EVIDENCE``, each to be
        compared with its own truth.
        """
        if lens is None:
            return metres_from_blur(raw.float(), self.lens, self.depth_range_m, self.training)
        evidence = evidence_of(raw.float(), lens)
        looked = evidence
        if again is not None:
            looked = seen_again(evidence, again(evidence))
        answer = metres_from_evidence(
            looked, self.depth_range_m, self.training, self.sigma_correction
        )
        if self.training:
            # What was read at first is held to its truth, too; the second look may mend it.
            answer |= evidence.read()
        return answer

    @property
    def maps(self) -> int:
        """Maps that the depth decoder's last layer has to answer."""
        return 4 if self.lens_input else 2
