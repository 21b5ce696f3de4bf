"""The registry: names, options, and messages for what does not exist."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model import build_network, network_names
from ddfd_ros.model.networks import default_options, optics_options, plain_options


def test_every_network_answers_by_name():
    rgb = torch.rand(1, 3, 64, 64)
    assert {"ddfd-lite", "2hded", "d3net"} <= set(network_names())
    for name in network_names():
        with torch.no_grad():
            answer = build_network(name).eval()(rgb)
        # A deblurring network is told the depth.
        assert ("sharp_rgb" if name == "deddnet" else "depth_m") in answer
        for output, value in answer.items():
            channels = 3 if output == "sharp_rgb" else 1
            assert value.shape == (1, channels, 64, 64)


def test_unknown_names_and_options_are_refused_by_name():
    with pytest.raises(ContractError, match=r"expected one of .*2hded.*, got '3hded'"):
        build_network("3hded")
    with pytest.raises(ContractError, match=r"expected only heads, stem, .*, got depth, wings;"):
        build_network("2hded", wings=2, depth=1)
    with pytest.raises(ContractError, match=r"heads: expected one of 'both', .*, got 'all'"):
        build_network("2hded", heads="all")
    with pytest.raises(ContractError, match=r"dropout: expected a probability"):
        build_network("d3net", dropout=1.5)


def test_lenses_come_as_objects_presets_or_mappings():
    lens = LENS_PRESETS["nyu-8m"]
    plain = {"lens": {
        "focal_length_m": 15e-3, "f_number": 2.8, "focus_distance_m": 8, "pixel_pitch_m": 5.6e-6,
    }}  # fmt: skip
    torch.manual_seed(1)
    networks = []
    for options in ({"lens": lens}, {"lens": "nyu-8m"}, plain):
        torch.manual_seed(1)
        networks.append(build_network("ddfd-lite", **options).eval())
    rgb = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        answers = [network(rgb)["depth_m"] for network in networks]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    with pytest.raises(ContractError, match=r"lens: expected one of nyu-2m, .*, got 'fisheye'"):
        build_network("ddfd-lite", lens="fisheye")
    with pytest.raises(ContractError, match=r"lens: expected the fields .*got \['f_number'\]"):
        build_network("ddfd-lite", lens={"f_number": 2.8})


def test_plain_options_survive_json():
    options = {
        "lens": LensConfig(0.05, 8.0, float("inf"), 12e-6),
        "depth_range_m": (0.5, 10.0),
        "heads": "depth",
    }
    plain = json.loads(json.dumps(plain_options(options), allow_nan=False))
    torch.manual_seed(0)
    first = build_network("ddfd-lite", **options).eval()
    torch.manual_seed(0)
    second = build_network("ddfd-lite", **plain).eval()
    rgb = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(first(rgb)["depth_m"], second(rgb)["depth_m"])


def test_defaults_can_be_listed():
    assert default_options("2hded") == {
        "heads": "both",
        "stem": 3,
        "input_join": "residual",
        "dropout": 0.0,
        "bridge": "linear",
        "answer": "metres",
        "lens": LENS_PRESETS["nyu-8m"],
        "depth_range_m": (0.5, 10.0),
        "lens_input": False,
        "width": 1.0,
    }


@pytest.mark.parametrize(
    ("name", "options", "uses"),
    [
        ("ddfd-lite", {}, True),
        ("2hded", {}, False),
        ("2hded", {"answer": "metres"}, False),
        ("2hded", {"answer": "blur"}, True),
        ("d3net", {}, False),
    ],
)
def test_lens_and_range_are_options_where_they_are_used(name, options, uses):
    values = {"lens": LENS_PRESETS["dslr"], "depth_range_m": (0.3, 7.0)}
    assert optics_options(name, options, **values) == (values if uses else {})


def test_importing_the_package_does_not_import_torch():
    code = "import sys, ddfd_ros.model; assert 'torch' not in sys.modules; ddfd_ros.model.build"
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "has no attribute 'build'" in result.stderr
