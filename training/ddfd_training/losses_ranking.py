"""Learning from "this point is nearer than that one": the loss of Depth in the Wild."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FARTHER, NEARER, SAME = 1, -1, 0


def ranking(pred_m: Tensor, points_yx: Tensor, relation: Tensor) -> Tensor:
    """Ranking loss of Chen et al. (2016, "Single-image depth perception in the wild", eq 1).

    For a pair of points A, B with predicted depths a, b: ln(1 + exp(b - a)) where A is farther,
    ln(1 + exp(a - b)) where A is nearer, (a - b)^2 where they are equally far; the mean over the
    pairs. (The paper writes +1 for "closer" and its z grows with nearness; only the order counts.)

    Args:
        pred_m: ``[N, 1, H, W]``, depth in metres, or anything that grows with it.
        points_yx: Integers ``[N, K, 2, 2]``: for each pair, row and column of A, then of B,
            counted from 0.
        relation: ``[N, K]``: +1 A is farther than B, -1 A is nearer, 0 equally far, NaN no pair
            (padding, or a judgement that was withdrawn).

    Returns:
        A scalar; 0 with a zero gradient where there is no pair.

    Raises:
        ValueError: The shapes do not fit, or a point lies outside the map.

    Example:
        >>> depth = torch.tensor([[[[1.0, 3.0]]]])
        >>> pair = torch.tensor([[[[0, 0], [0, 1]]]])
        >>> round(ranking(depth, pair, torch.tensor([[-1.0]])).item(), 4)
        0.1269
    """
    count, _, height, width = pred_m.shape
    if points_yx.shape != (*relation.shape, 2, 2) or relation.shape[0] != count:
        raise ValueError(
            f"ranking: expected points [N,K,2,2] and relations [N,K] for {count} maps, got "
            f"{tuple(points_yx.shape)} and {tuple(relation.shape)}"
        )
    known = torch.isfinite(relation)
    sizes = torch.tensor([height, width], device=points_yx.device)
    outside = ((points_yx < 0) | (points_yx >= sizes)).any(dim=(-1, -2)) & known
    if bool(outside.any()):
        raise ValueError(
            f"ranking: expected rows below {height} and columns below {width}, got "
            f"{points_yx[outside][0].tolist()}; count from 0, and leave out pairs a crop has cut"
        )
    rows, columns = (points_yx * known[..., None, None]).long().unbind(dim=-1)
    depth = pred_m[:, 0].flatten(1)
    values = depth.gather(1, (rows * width + columns).flatten(1)).reshape(*relation.shape, 2)
    step = values[..., 0] - values[..., 1]
    sign = torch.where(known, relation, torch.zeros_like(relation)).to(step.dtype).sign()
    each = torch.where(sign == 0, step.square(), F.softplus(-sign * step))
    weights = known.to(step.dtype)
    return (each * weights).sum() / weights.sum().clamp(min=1.0)
