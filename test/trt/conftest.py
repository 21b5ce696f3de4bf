"""Checkpoints to export, with batch norms that saw data.

Of 2HDED:NET a quarter of the channels: the same graph, written and read in a tenth of the time.
"""

from __future__ import annotations

import pytest
import torch

from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import save_checkpoint


def make_checkpoint(path, name, outputs, **options):
    """A network with random weights and lively batch norms as a checkpoint at ``path``."""
    torch.manual_seed(7)
    network = build_network(name, **options)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 64, 64))
        for item in network.modules():
            if isinstance(item, torch.nn.BatchNorm2d):
                item.weight.uniform_(0.7, 1.3)
                item.bias.uniform_(-0.2, 0.2)
    contract = ModelContract(
        format_version=FORMAT_VERSION, network=name, network_options={}, parameter_count=0,
        input_height=None, input_width=None, size_multiple=32, outputs=outputs, depth_min_m=0.5,
        depth_max_m=10.0, lens=LENS_PRESETS["nyu-8m"], training={"seed": 7}, metrics={},
        weights_sha256="",
    )  # fmt: skip
    save_checkpoint(path, network, name, options, contract)
    return path


@pytest.fixture(scope="session")
def lite_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite") / "lite.pt"
    return make_checkpoint(path, "ddfd-lite", ("depth_m", "sigma_m", "sharp_rgb"), lens="nyu-8m")


@pytest.fixture(scope="session")
def two_headed_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("2hded") / "2hded.pt"
    return make_checkpoint(path, "2hded", ("depth_m", "sharp_rgb"), width=0.25)


@pytest.fixture(scope="session", params=["ddfd-lite", "2hded"])
def any_lens_checkpoint(tmp_path_factory, request):
    """Networks that take their lens beside the image."""
    path = tmp_path_factory.mktemp("any") / "any.pt"
    outputs = ("depth_m", "sigma_m", "sharp_rgb", "defocus_px")
    form = {"answer": "blur", "width": 0.25} if request.param == "2hded" else {}
    return make_checkpoint(path, request.param, outputs, lens="nyu-8m", lens_input=True, **form)
