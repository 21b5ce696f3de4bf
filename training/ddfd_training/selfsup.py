"""Training without depth: the losses of self-supervised 2HDED:NET (thesis chapter 5).

The network says how much every pixel is blurred and what the scene looks like sharp. Blurring a
sharp image with that map must give the photograph back; no depth is needed for it, only the same
view through a small aperture, or through any second aperture:

- ``sharp: truth``: the second photograph is sharp everywhere (the thesis).
- ``sharp: network``: no sharp image exists. The network's own is blurred by its map to give the
  first photograph, and by ``narrow_ratio`` times its map to give the second, which was taken
  through an aperture that much narrower. Explaining both at once leaves no room for the
  empty answer (nothing is blurred, the photograph is the sharp image), which explains only one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ddfd_training.losses_image import charbonnier, edge_aware_smoothness, reblur
from ddfd_training.reblur import SIGMA_PER_DIAMETER, WINDOW_PX, reblur_with_map

SHARP_SOURCES = ("truth", "network")


def thesis2023_selfsup(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    reblur_weight: float = 2.0,
    smoothness_weight: float = 0.5,
    deblur_weight: float = 0.01,
    alpha: float = 0.85,
    beta: float = 2.5,
    kernel: str = "disk",
    spread: str = "scatter",
    sigma_per_diameter: float = SIGMA_PER_DIAMETER,
    window_px: int = WINDOW_PX,
    map_scale_px: float = float(WINDOW_PX),
    sharp: str = "truth",
    narrow_ratio: float = 0.0,
) -> dict[str, Tensor]:
    """Self-supervised 2HDED:NET (thesis eq 5.1-5.4): needs no depth.

    2 L_re + 0.5 L_smooth + 0.01 L_deblur. The thesis does not say in which unit its map enters
    eq 5.2; here as a share of ``map_scale_px``, the largest blur. In pixels the term would
    outweigh the others and flatten the map.

    Args:
        outputs: ``defocus_px [N,1,H,W]`` (its sign does not matter) and, if the network has it,
            ``sharp_rgb [N,3,H,W]``.
        targets: ``image [N,3,H,W]``, the blurred photograph, ``sharp_rgb [N,3,H,W]``, the same
            view sharp or through the narrower aperture, and, if the latter does not cover all of
            the former, where it does: ``sharp_known [N,1,H,W]``.
        reblur_weight: Weight of eq 5.1, the photograph against the re-blurred image.
        smoothness_weight: Weight of eq 5.2, the map's gradient away from edges.
        deblur_weight: Weight of eq 5.3, Charbonnier on the sharp image.
        alpha: Share of SSIM in eq 5.1.
        beta: Sensitivity to edges in eq 5.2.
        kernel: ``disk`` or ``gaussian``, as the camera blurs.
        spread: ``scatter`` or ``gather``, see :mod:`ddfd_training.reblur`.
        sigma_per_diameter: For ``gaussian``.
        window_px: Side of the largest kernel.
        map_scale_px: Blur that counts as 1 in eq 5.2.
        sharp: ``truth`` or ``network``, see the module. With ``network`` eq 5.3 has no truth and
            becomes eq 5.1 of the second photograph, with the weight of the first.
        narrow_ratio: With ``network``: f-number of the first photograph over that of the second; 0
            if the second is sharp everywhere.

    Returns:
        Terms, unweighted, and ``total``.

    Raises:
        ValueError: An unknown ``sharp``, or a head that it needs is missing.
    """
    if sharp not in SHARP_SOURCES:
        raise ValueError(f"sharp: expected one of {', '.join(SHARP_SOURCES)}, got {sharp!r}")
    wanted = {"defocus_px"} | ({"sharp_rgb"} if sharp == "network" else set())
    if missing := sorted(wanted - set(outputs)):
        raise ValueError(
            f"self-supervised loss: expected the heads {sorted(wanted)}, got no {missing}; "
            "build the network with heads: both"
        )

    def blurred(image: Tensor, share: float = 1.0) -> Tensor:
        return reblur_with_map(
            image,
            outputs["defocus_px"] * share,
            kernel=kernel,
            spread=spread,
            sigma_per_diameter=sigma_per_diameter,
            window_px=window_px,
        )

    photograph, second = targets["image"], targets["sharp_rgb"]
    source = second if sharp == "truth" else outputs["sharp_rgb"]
    scaled = outputs["defocus_px"].abs() / map_scale_px
    # Where no second photograph was laid over the first, the two say nothing about each other.
    known = targets.get("sharp_known")
    terms = {
        "reblur": reblur(blurred(source), photograph, alpha, known),
        "smoothness": edge_aware_smoothness(scaled, source.detach(), beta),
    }
    weights = {"reblur": reblur_weight, "smoothness": smoothness_weight}
    if sharp == "network":
        narrow = blurred(source, narrow_ratio) if narrow_ratio else source
        terms["reblur_narrow"] = reblur(narrow, second, alpha, known)
        weights["reblur_narrow"] = reblur_weight
    elif "sharp_rgb" in outputs:
        terms["charbonnier"] = charbonnier(outputs["sharp_rgb"], second, known)
        weights["charbonnier"] = deblur_weight
    terms["total"] = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return terms
