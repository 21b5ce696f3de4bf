"""Every metric under one name: depth, image, edges, and how far to trust a predicted sigma."""

from __future__ import annotations

from ddfd_training.metrics_bins import DEPTH_EDGES_M, DepthBins, growth, plot_depth_bins
from ddfd_training.metrics_depth import (
    DEPTH_METRICS,
    DepthSums,
    DepthTable,
    depth_metrics,
    depth_sums,
)
from ddfd_training.metrics_edges import edge_kld, steerable_bands
from ddfd_training.metrics_image import IMAGE_METRICS, ImageTable, image_metrics
from ddfd_training.metrics_lpips import Lpips
from ddfd_training.metrics_sigma import (
    interval_coverage,
    laplace_half_width_m,
    sigma_metrics,
    sparsification,
)

__all__ = [
    "DEPTH_EDGES_M",
    "DEPTH_METRICS",
    "IMAGE_METRICS",
    "DepthBins",
    "DepthSums",
    "DepthTable",
    "ImageTable",
    "Lpips",
    "depth_metrics",
    "depth_sums",
    "edge_kld",
    "growth",
    "image_metrics",
    "interval_coverage",
    "laplace_half_width_m",
    "plot_depth_bins",
    "sigma_metrics",
    "sparsification",
    "steerable_bands",
]
