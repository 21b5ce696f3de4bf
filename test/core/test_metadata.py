from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.golden import (
    GOLDEN_TOLERANCE,
    Golden,
    golden_image,
    golden_mismatch,
    golden_samples,
    make_golden,
)
from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.core.sidecar import read_sidecar, sidecar_path, write_sidecar
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.core.types import HEADS

DEPTH_M = np.linspace(0.5, 10.0, 64 * 96, dtype=np.float32).reshape(64, 96)


def contract(**changes):
    values = {
        "format_version": FORMAT_VERSION,
        "network": "ddfd-lite",
        "network_options": {"heads": "both", "depth_range_m": [0.5, 10.0]},
        "parameter_count": 1234,
        "input_height": 480,
        "input_width": None,
        "size_multiple": 32,
        "outputs": ("depth_m", "sharp_rgb"),
        "depth_min_m": 0.5,
        "depth_max_m": 10,
        "lens": LENS_PRESETS["nyu-8m"],
        "training": {"seed": 3, "command": "ddfd-train"},
        "metrics": {"nyuv2": {"delta1": 0.95}},
        "weights_sha256": "ab" * 32,
        "golden": make_golden({"depth_m": DEPTH_M}, 64, 96, 3),
    }
    return ModelContract(**(values | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lens": None, "golden": None, "input_width": 640},
        {"lens": LensConfig(15e-3, 2.8, math.inf, 5.6e-6)},
        {
            "inputs": ("image", "lens"),
            "lens_range": {"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, 8.0)},
        },
    ],
)
def test_json_round_trip(changes):
    written = contract(**changes)
    text = written.to_json()
    json.loads(text, parse_constant=pytest.fail)  # strict JSON: no NaN, no Infinity
    assert ModelContract.from_json(text) == written


ANY_LENS = {
    "inputs": ("image", "lens"),
    "lens_range": {"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, 8.0)},
    "sigma_0_px": 0.7,
}


def test_every_field_is_in_the_json():
    values = json.loads(contract(**ANY_LENS).to_json())
    assert set(values) == {item.name for item in dataclasses.fields(ModelContract)}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(ModelContract)])
def test_missing_keys_are_named(name):
    values = contract(**ANY_LENS).to_dict()
    del values[name]
    usual = {"golden": None, "inputs": ("image",), "lens_range": {}, "sigma_0_px": 0.0}
    if name in usual:
        assert getattr(ModelContract.from_dict(values), name) == usual[name]
        return
    with pytest.raises(ContractError, match=rf"missing \['{name}'\]"):
        ModelContract.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "newer ddfd_ros"),
        ({"format_version": 0}, "got 0"),
        ({"outputs": ("sharp_rgb", "depth_m")}, "in this order"),
        ({"outputs": ("depth_m", "depth_m")}, "outputs"),
        ({"size_multiple": 0}, "size_multiple"),
        ({"input_height": 481}, "multiple of 32"),
        ({"depth_min_m": 0.0}, "0 < min < max"),
        ({"depth_max_m": math.inf}, "0 < min < max"),
        ({"depth_max_m": math.nan}, "0 < min < max"),
        ({"sigma_0_px": -0.1}, "sigma_0_px: expected a number"),
        ({"sigma_0_px": math.nan}, "sigma_0_px: expected a number"),
        ({"sigma_0_px": "soft"}, "sigma_0_px: expected a number"),
    ],
)
def test_senseless_values_are_refused(changes, words):
    with pytest.raises(ContractError, match=words):
        contract(**changes)


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32(0.5)])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ContractError, match="finite numbers"):
        contract(metrics={"nyuv2": {"rms": value}}).to_json()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", 3),
        ("parameter_count", 1.5),
        ("outputs", "depth_m"),
        ("metrics", []),
        ("lens", {"focal_length_m": -1, "f_number": 1, "focus_distance_m": 1, "pixel_pitch_m": 1}),
        ("lens", {"f": 1}),
        ("golden", {"height": 1}),
        ("golden", 5),
        ("format_version", "1"),
    ],
)
def test_wrong_types_are_refused_by_name(name, value):
    values = contract().to_dict() | {name: value}
    with pytest.raises(ContractError, match=name):
        ModelContract.from_dict(values)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "{}"])
def test_other_json_is_refused(text):
    with pytest.raises(ContractError, match="contract: expected"):
        ModelContract.from_json(text)


def slow_golden_pixel(row, column, channel, seed):
    """The recipe for one pixel in Python's own integers."""

    def byte(r, c, key):
        value = (r * 0x9E3779B1 + c * 0x85EBCA77 + key * 0xC2B2AE3D) % 2**32
        for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
            value ^= value >> shift
            value = value * factor % 2**32
        return (value ^ value >> 15) % 256

    total = 0
    for octave, (cell, weight) in enumerate(((64, 8), (16, 4), (4, 3), (1, 1))):
        key = (seed * 12 + channel * 4 + octave) % 2**32
        r, c, v, u = row // cell, column // cell, row % cell, column % cell
        corners = (
            (cell - v) * (cell - u) * byte(r, c, key)
            + (cell - v) * u * byte(r, c + 1, key)
            + v * (cell - u) * byte(r + 1, c, key)
            + v * u * byte(r + 1, c + 1, key)
        )
        total += weight * (corners // (cell * cell))
    return total // 16


@pytest.mark.parametrize("seed", [0, 1, 123456])
def test_golden_image_follows_its_recipe(seed):
    image = golden_image(70, 90, seed)
    assert image.shape == (70, 90, 3)
    assert image.dtype == np.uint8
    for row, column, channel in [(0, 0, 0), (69, 89, 2), (17, 80, 1), (64, 64, 0), (33, 5, 2)]:
        assert image[row, column, channel] == slow_golden_pixel(row, column, channel, seed)


def test_golden_image_has_texture_and_depends_on_the_seed():
    image = golden_image(96, 128, 1)
    assert image.std() > 15
    assert np.abs(np.diff(image.astype(int), axis=1)).mean() > 2
    assert (image != golden_image(96, 128, 2)).mean() > 0.9


def test_samples_lie_at_the_centres_of_an_8x8_grid():
    rows, columns = np.mgrid[:64, :96]
    sharp = np.stack([rows * 0, columns, rows * 0], -1)
    samples = golden_samples({"depth_m": rows.astype(np.float32), "sharp_rgb": sharp})
    assert samples["depth_m"] == [4.0 + 8 * (i // 8) for i in range(64)]
    assert samples["sharp_rgb"] == [6.0 + 12 * (i % 8) for i in range(64)]  # the green channel


def test_golden_input_of_another_recipe_is_refused():
    golden = make_golden({"depth_m": DEPTH_M}, 64, 96, 3)
    np.testing.assert_array_equal(golden.image(), golden_image(64, 96, 3))
    with pytest.raises(ContractError, match="another version of the recipe"):
        dataclasses.replace(golden, seed=4).image()
    with pytest.raises(ContractError, match="expected 64 values, got 3"):
        Golden(64, 96, 1, "", {"depth_m": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize("head", HEADS)
def test_mismatch_is_in_units_of_the_tolerance(head):
    shape = (64, 96, 3) if head == "sharp_rgb" else (64, 96)
    expected = np.full(shape, 4.0, np.float64)
    golden = make_golden({head: expected}, 64, 96, 1)
    absolute, relative = GOLDEN_TOLERANCE[head]
    off = expected.copy()
    off[4, 6] += 2 * (absolute + relative * 4.0)
    assert golden_mismatch(golden, {head: expected}) == {head: 0.0}
    assert golden_mismatch(golden, {head: off})[head] == pytest.approx(2.0)
    assert golden_mismatch(golden, {head: off}, tolerance_scale=4.0)[head] == pytest.approx(0.5)
    off[4, 6] = np.nan
    assert golden_mismatch(golden, {head: off})[head] == math.inf
    assert golden_mismatch(golden, {}) == {}


def test_sidecar_round_trip_and_damage(tmp_path):
    path = tmp_path / "ddfd.engine"
    path.write_bytes(bytes(range(256)) * 10)
    assert read_sidecar(path) is None
    assert write_sidecar(path, contract()) == tmp_path / "ddfd.engine.contract.json"
    assert read_sidecar(path) == contract()
    values = json.loads(sidecar_path(path).read_text())
    assert values["file_bytes"] == 2560
    path.write_bytes(bytes(range(256)) * 9)
    with pytest.raises(ModelLoadError, match="expected 2560 bytes, got 2304"):
        read_sidecar(path)
    path.write_bytes(bytes(255 - i % 256 for i in range(2560)))
    with pytest.raises(ModelLoadError, match="was altered"):
        read_sidecar(path)
    path.unlink()
    with pytest.raises(ModelLoadError, match="got none"):
        read_sidecar(path)


@pytest.mark.parametrize("text", ["", "[1]", '{"file_sha256": "0"}', "\x00"])
def test_malformed_sidecars(tmp_path, text):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"x")
    sidecar_path(path).write_text(text)
    with pytest.raises(ContractError, match="file_sha256 and file_bytes"):
        read_sidecar(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ("lens",)}, r"inputs: expected 'image' and then other names, got \['lens'\]"),
        ({"inputs": ("image", "image")}, r"inputs: expected 'image' and then other names"),
        ({"lens_range": {"px_per_dioptre": (4.0, 28.0)}}, r"lens_range: expected \['px_per"),
        (
            {"lens_range": {"px_per_dioptre": (28.0, 4.0), "focus_distance_m": (1.0, 2.0)}},
            r"0 < smallest <= largest",
        ),
        ({"lens_range": {"px_per_dioptre": 4.0}}, r"lens_range: expected two numbers"),
    ],
)
def test_inputs_and_lens_range_are_checked(changes, message):
    with pytest.raises(ContractError, match=message):
        contract(**changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inputs", None),
        ("inputs", [["image"]]),
        ("lens", {"f_number": 10**400}),
        ("lens_range", {"px_per_dioptre": [1, 10**400], "focus_distance_m": [1, 2]}),
        ("golden", {"height": math.inf}),
    ],
)
def test_what_json_can_say_and_no_contract_means_is_a_contract_error(name, value):
    values = contract().to_dict()
    values[name] = {**values[name], **value} if name in ("lens", "golden") else value
    with pytest.raises(ContractError):
        ModelContract.from_json(json.dumps(values))
