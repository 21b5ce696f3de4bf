"""Every metric under one name: depth, image, edges, and how far to trust a predicted sigma."""

from __future__ import annotations

from ddfd_training.metrics_depth import (
    DEPTH_METRICS,
    DepthSums,
    DepthTable,
    depth_metrics,
    depth_sums,
)
from ddfd_training.metrics_edges import edge_kld, steerable_bands
from ddfd_training.metrics_image import image_metrics
from ddfd_training.metrics_sigma import (
    interval_coverage,
    laplace_half_width_m,
    sigma_metrics,
    sparsification,
)

__all__ = [
    "DEPTH_METRICS",
    "DepthSums",
    "DepthTable",
    "depth_metrics",
    "depth_sums",
    "edge_kld",
    "image_metrics",
    "interval_coverage",
    "laplace_half_width_m",
    "sigma_metrics",
    "sparsification",
    "steerable_bands",
]
