"""Every training loss under one name, and the papers' combinations of them.

Shapes: depths and standard deviations ``[N, 1, H, W]`` in metres, images ``[N, 3, H, W]`` in
[0, 1]; unknown depth is NaN and does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ddfd_training.losses_depth import (
    depth_gradient,
    l1_depth,
    laplace_nll,
    log_l1_depth,
    valid_depth,
)
from ddfd_training.losses_image import (
    charbonnier,
    edge_aware_smoothness,
    reblur,
    ssim,
    ssim_map,
)

__all__ = [
    "NAMED_LOSSES",
    "charbonnier",
    "depth_gradient",
    "edge_aware_smoothness",
    "l1_depth",
    "laplace_nll",
    "log_l1_depth",
    "reblur",
    "ssim",
    "ssim_map",
    "valid_depth",
]

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
    """2HDED:NET as first published: L1 depth + 0.1 Charbonnier (ICIP 2022 eq 3)."""
    terms: Terms = {}
    if "depth_m" in outputs:
        terms["l1_depth"] = l1_depth(outputs["depth_m"], targets["depth_m"])
    if "sharp_rgb" in outputs:
        terms["charbonnier"] = charbonnier(outputs["sharp_rgb"], targets["sharp_rgb"])
    return _total(terms, {"l1_depth": 1.0, "charbonnier": deblur_weight})


def thesis2023(
    outputs: Tensors,
    targets: Tensors,
    *,
    gradient_weight: float = 1e-3,
    ssim_weight: float = 4.0,
    deblur_weight: float = 0.1,
) -> Terms:
    """2HDED:NET of the thesis (eq 3.3, 3.6, 3.7); its lambda is unstated, here 0.1."""
    terms: Terms = {}
    if "depth_m" in outputs:
        terms["l1_depth"] = l1_depth(outputs["depth_m"], targets["depth_m"])
        terms["depth_gradient"] = depth_gradient(outputs["depth_m"], targets["depth_m"])
    if "sharp_rgb" in outputs:
        terms["charbonnier"] = charbonnier(outputs["sharp_rgb"], targets["sharp_rgb"])
        terms["ssim"] = ssim(outputs["sharp_rgb"], targets["sharp_rgb"])
    weights = {
        "l1_depth": 1.0,
        "depth_gradient": gradient_weight,
        "charbonnier": deblur_weight,
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
) -> Terms:
    """This project's own loss, for ``ddfd-lite``.

    L1 on depth (metres count) and on its logarithm (so do proportions), the Laplace likelihood
    for the deviation alone (the depth head is not excused from hard pixels), and Charbonnier for
    the image, where its sharp original is known.
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
    if "sharp_rgb" in outputs:
        known = targets.get("sharp_known")
        terms["charbonnier"] = charbonnier(outputs["sharp_rgb"], targets["sharp_rgb"], known)
    weights = {
        "l1_depth": 1.0,
        "log_l1_depth": log_weight,
        "laplace_nll": sigma_weight,
        "charbonnier": sharp_weight,
    }
    return _total(terms, weights)


def thesis2023_selfsup(
    outputs: Tensors,
    targets: Tensors,
    *,
    reblur_weight: float = 2.0,
    smoothness_weight: float = 0.5,
    deblur_weight: float = 0.01,
) -> Terms:
    """Self-supervised 2HDED:NET (thesis eq 5.4): needs no depth.

    ``outputs`` also holds ``reblurred_rgb`` (the sharp truth blurred by ``defocus_px``), and
    ``targets`` the camera's ``defocused_rgb``.
    """
    terms = {
        "reblur": reblur(outputs["reblurred_rgb"], targets["defocused_rgb"]),
        "smoothness": edge_aware_smoothness(outputs["defocus_px"], targets["sharp_rgb"]),
        "charbonnier": charbonnier(outputs["sharp_rgb"], targets["sharp_rgb"]),
    }
    weights = {
        "reblur": reblur_weight,
        "smoothness": smoothness_weight,
        "charbonnier": deblur_weight,
    }
    return _total(terms, weights)


NAMED_LOSSES: dict[str, Callable[..., Terms]] = {
    "ddfd": ddfd,
    "d3net": d3net,
    "icip2022": icip2022,
    "thesis2023": thesis2023,
    "thesis2023-selfsup": thesis2023_selfsup,
}
"""The papers' losses and ours. Each takes the network's outputs and the targets (dicts of tensors,
keys ``depth_m``, ``sharp_rgb``, ...), leaves out the terms of a head that the network lacks,
and returns every term unweighted plus the weighted sum as ``total``."""
