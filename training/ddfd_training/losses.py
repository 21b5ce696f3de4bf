"""Every training loss under one name, and the papers' combinations of them.

Shapes: depths and standard deviations ``[N, 1, H, W]`` in metres, images ``[N, 3, H, W]`` in
[0, 1]; unknown depth is NaN and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ddfd_training.losses_depth import (
    depth_gradient,
    l1_depth,
    laplace_nll,
    log_l1_depth,
    scale_invariant_log,
    valid_depth,
)
from ddfd_training.losses_image import (
    charbonnier,
    edge_aware_smoothness,
    l1_image,
    reblur,
    ssim,
    ssim_map,
)
from ddfd_training.losses_ranking import ranking
from ddfd_training.losses_smoothing import (
    SMOOTHING,
    smoothing_eigen,
    smoothing_godard,
    smoothing_hu,
    smoothing_none,
    smoothing_ummenhofer,
    smoothing_xian,
)
from ddfd_training.perceptual import zhai2024
from ddfd_training.selfsup import thesis2023_selfsup

__all__ = [
    "NAMED_LOSSES",
    "SMOOTHING",
    "charbonnier",
    "depth_gradient",
    "edge_aware_smoothness",
    "l1_depth",
    "l1_image",
    "laplace_nll",
    "log_l1_depth",
    "ranking",
    "reblur",
    "scale_invariant_log",
    "smoothing_eigen",
    "smoothing_godard",
    "smoothing_hu",
    "smoothing_none",
    "smoothing_ummenhofer",
    "smoothing_xian",
    "ssim",
    "ssim_map",
    "valid_depth",
]

LEAST_SIDED_PX = 0.5
"""Below this blur the side of the focus makes no difference."""

SIDE_DOUBT = 0.02
"""Probability that a pixel shows the other side of the focus, whatever was said of it."""

Tensors = Mapping[str, Tensor]
Terms = dict[str, Tensor]


def _total(terms: Terms, weights: Mapping[str, float]) -> Terms:
    """The terms, unweighted for the log, and their weighted sum as ``total``."""
    if not terms:
        raise ValueError(
            f"no term applies: expected outputs for at least one of {sorted(weights)}; "
            "build the network with a head that this loss trains"
        )
    terms["total"] = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return terms


def d3net(outputs: Tensors, targets: Tensors) -> Terms:
    """D3-Net's loss: L1 on depth (Carvalho 2018). See :data:`NAMED_LOSSES` for the arguments."""
    terms = {"l1_depth": l1_depth(outputs["depth_m"], targets["depth_m"])}
    return _total(terms, {"l1_depth": 1.0})


def icip2022(outputs: Tensors, targets: Tensors, *, deblur_weight: float = 0.1) -> Terms:
    """2HDED:NET as first published: L1 depth + 0.1 Charbonnier (ICIP 2022 eqs 1-3)."""
    terms: Terms = {}
    if "depth_m" in outputs:
        terms["l1_depth"] = l1_depth(outputs["depth_m"], targets["depth_m"])
    if "sharp_rgb" in outputs:
        known = targets.get("sharp_known")
        terms["charbonnier"] = charbonnier(outputs["sharp_rgb"], targets["sharp_rgb"], known)
    return _total(terms, {"l1_depth": 1.0, "charbonnier": deblur_weight})


def thesis2023(
    outputs: Tensors,
    targets: Tensors,
    *,
    gradient_weight: float = 1e-3,
    ssim_weight: float = 4.0,
    deblur_weight: float = 0.1,
    deblur: str = "charbonnier",
) -> Terms:
    """2HDED:NET of the thesis (eqs 3.1-3.7); its lambda is unstated, here 0.1.

    ``deblur`` is ``charbonnier`` or ``l1``, the two that the thesis tried.

    Raises:
        ValueError: Another ``deblur``.
    """
    if deblur not in ("charbonnier", "l1"):
        raise ValueError(f"deblur: expected charbonnier or l1, got {deblur!r}")
    terms: Terms = {}
    if "depth_m" in outputs:
        terms["l1_depth"] = l1_depth(outputs["depth_m"], targets["depth_m"])
        terms["depth_gradient"] = depth_gradient(outputs["depth_m"], targets["depth_m"])
    if "sharp_rgb" in outputs:
        sharp, truth, known = (
            outputs["sharp_rgb"],
            targets["sharp_rgb"],
            targets.get("sharp_known"),
        )
        pixelwise = charbonnier if deblur == "charbonnier" else l1_image
        terms[deblur] = pixelwise(sharp, truth, known)
        terms["ssim"] = ssim(sharp, truth, known)
    weights = {
        "l1_depth": 1.0,
        "depth_gradient": gradient_weight,
        deblur: deblur_weight,
        "ssim": deblur_weight * ssim_weight,
    }
    return _total(terms, weights)


def ddfd(
    outputs: Tensors,
    targets: Tensors,
    *,
    log_weight: float = 1.0,
    sigma_weight: float = 0.1,
    sharp_weight: float = 5.0,
    evidence_weight: float = 0.5,
    side_weight: float = 0.2,
) -> Terms:
    """This project's own loss, for ``ddfd-lite``.

    L1 on depth (metres count) and on its logarithm (so do proportions), the Laplace likelihood
    for the deviation alone (the depth head is not excused from hard pixels), and Charbonnier for
    the image, where its sharp original is known. A network for any lens has two measurements
    beneath its depth, the width of the blur and what context says of the distance
    (``ddfd_ros.model.blur_space``); each is held to its own truth by its Laplace likelihood, the
    blur in pixels and the distance in dioptres, where no lens makes one picture count more. So is
    the side of the focus, by the logarithm of the probability that it was given.
    """
    terms: Terms = {}
    if "depth_m" in outputs:
        depth_m, truth_m = outputs["depth_m"], targets["depth_m"]
        terms["l1_depth"] = l1_depth(depth_m, truth_m)
        terms["log_l1_depth"] = log_l1_depth(depth_m, truth_m)
        if "sigma_m" in outputs:
            terms["laplace_nll"] = laplace_nll(
                depth_m, outputs["sigma_m"], truth_m, detach_residual=True
            )
        if "dioptre" in outputs and "lens" in targets:
            terms |= _evidence(outputs, 1.0 / truth_m, targets["lens"])
    if "sharp_rgb" in outputs:
        known = targets.get("sharp_known")
        terms["charbonnier"] = charbonnier(outputs["sharp_rgb"], targets["sharp_rgb"], known)
    weights = {
        "l1_depth": 1.0,
        "log_l1_depth": log_weight,
        "laplace_nll": sigma_weight,
        "charbonnier": sharp_weight,
        "blur_nll": evidence_weight,
        "dioptre_nll": evidence_weight,
        "side_nll": side_weight,
    }
    return _total(terms, weights)


def _evidence(outputs: Tensors, true_dioptre: Tensor, lens: Tensor) -> Terms:
    """What a network for any lens measures, against blur and inverse distance as they were."""
    # Infinite depth is unknown depth here, too, though its inverse is a number.
    known = true_dioptre.isfinite() & (true_dioptre > 0)
    true_dioptre = torch.where(known, true_dioptre, float("nan"))
    strength, focus = (column.reshape(-1, 1, 1, 1) for column in lens.unbind(dim=1))
    true_px = strength * (focus - true_dioptre)
    pairs = {
        "blur_nll": ("blur", "blur_sigma", true_px.abs()),
        "dioptre_nll": ("dioptre", "dioptre_sigma", true_dioptre),
    }
    terms = {
        name: laplace_nll(outputs[value], outputs[sigma], truth)
        for name, (value, sigma, truth) in pairs.items()
    }
    return terms | {"side_nll": side_nll(outputs["side"], true_px)}


def side_nll(leaning: Tensor, true_px: Tensor) -> Tensor:
    """Mean of -ln p of the true side of the focus, where there is blur to tell it for.

    Some share of pixels is granted to be wrong whatever was said (``SIDE_DOUBT``), without which
    the few that are surely wrong, at the edges of things, would outweigh all others.

    Args:
        leaning: Half the log-odds of the positive side, ``[N, 1, H, W]``.
        true_px: True signed blur of that shape; NaN where it is unknown.
    """
    counts = true_px.abs() > LEAST_SIDED_PX  # false for NaN
    chosen = torch.where(counts, torch.sign(true_px) * leaning, torch.zeros_like(leaning))
    # ln((1 - e) / (1 + exp(-2 x)) + e), as the logarithm of a sum of exponentials
    surely = math.log(1.0 - SIDE_DOUBT) - softplus(-2.0 * chosen)
    granted = torch.full_like(surely, math.log(SIDE_DOUBT))
    return -(torch.logaddexp(surely, granted) * counts).sum() / counts.sum().clamp(min=1)


def smoothing(
    outputs: Tensors,
    targets: Tensors,
    *,
    term: str = "xian",
    smooth_weight: float | None = None,
    **options: Any,
) -> Terms:
    """L1 depth with one smoothing term of the thesis' table 2.1 (chapter 2).

    ``smooth_weight`` and further ``options`` go to the term of that name in :data:`SMOOTHING`;
    its own weight by default.

    Raises:
        ValueError: No term of that name.
    """
    if term not in SMOOTHING:
        raise ValueError(f"term: expected one of {', '.join(SMOOTHING)}, got {term!r}")
    chosen = SMOOTHING[term]
    if options.get("guide") == "image":
        options["image"] = targets["image"]
    depth_m, truth_m = outputs["depth_m"], targets["depth_m"]
    terms = {
        "l1_depth": l1_depth(depth_m, truth_m),
        "smoothing": chosen.term(depth_m, truth_m, **options),
    }
    weight = chosen.weight if smooth_weight is None else smooth_weight
    return _total(terms, {"l1_depth": 1.0, "smoothing": weight})


def eigen2014(outputs: Tensors, targets: Tensors, *, share: float = 0.5) -> Terms:
    """The scale-invariant logarithmic error alone (Eigen et al. 2014, which the thesis cites)."""
    error = scale_invariant_log(outputs["depth_m"], targets["depth_m"], share=share)
    return _total({"scale_invariant_log": error}, {"scale_invariant_log": 1.0})


def diw(outputs: Tensors, targets: Tensors) -> Terms:
    """Depth in the Wild: ranking alone (Chen et al. 2016; D3-Net, section 5).

    ``targets`` holds ``points_yx`` ``[N, K, 2, 2]`` and ``relation`` ``[N, K]``, see
    :func:`ranking`.
    """
    loss = ranking(outputs["depth_m"], targets["points_yx"], targets["relation"])
    return _total({"ranking": loss}, {"ranking": 1.0})


NAMED_LOSSES: dict[str, Callable[..., Terms]] = {
    "ddfd": ddfd,
    "d3net": d3net,
    "icip2022": icip2022,
    "thesis2023": thesis2023,
    "thesis2023-selfsup": thesis2023_selfsup,
    "zhai2024": zhai2024,
    **{f"smoothing-{name}": partial(smoothing, term=name) for name in SMOOTHING},
    "eigen2014": eigen2014,
    "diw": diw,
}
"""The papers' losses and ours. Each takes the network's outputs and the targets (dicts of tensors,
keys ``depth_m``, ``sharp_rgb``, ...), leaves out the terms of a head that the network lacks,
and returns every term unweighted plus the weighted sum as ``total``."""
