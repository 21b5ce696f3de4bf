"""The parameters' own rules, without a node."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import yaml
from rcl_interfaces.msg import ParameterType

from ddfd_ros.ros.parameters import NodeParameters, ParameterError, defaults, descriptor

DESCRIPTORS = {item.name: descriptor(item) for item in fields(NodeParameters)}
KINDS = {
    str: ParameterType.PARAMETER_STRING,
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
}


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_every_parameter_is_described(name):
    found = DESCRIPTORS[name]
    default = defaults()[name]
    assert len(found.description) > 10
    assert found.type == KINDS[type(default)]
    if isinstance(default, (bool, str)):
        return
    ranges = [*found.integer_range, *found.floating_point_range]
    assert len(ranges) == 1
    assert ranges[0].from_value <= default <= ranges[0].to_value
    assert found.additional_constraints


def test_only_what_is_fixed_after_the_start_is_read_only():
    read_only = {name for name, found in DESCRIPTORS.items() if found.read_only}
    assert read_only == {"autostart", "bond_heartbeat_period_s", "diagnostics_period_s"}


def test_the_shipped_file_holds_exactly_the_defaults(repository):
    text = (repository / "config" / "ddfd.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == {"/**": {"ros__parameters": defaults()}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_age_s": -0.1}, ["max_age_s", "0.0 to 3600.0", "-0.1"]),
        ({"max_age_s": math.inf}, ["max_age_s", "inf"]),
        ({"max_sigma_m": math.nan}, ["max_sigma_m", "nan"]),
        ({"max_depth_m": 3}, ["max_depth_m", "number with a decimal point", "3"]),
        ({"threads": True}, ["threads", "whole number", "True"]),
        ({"runtime": False}, ["runtime", "a text (in quotes", "False"]),
        ({"runtime": "caffe"}, ["runtime", "onnxruntime", "caffe"]),
        ({"min_depth_m": 4.0, "max_depth_m": 4.0}, ["min < max", "4.0"]),
        ({"network_height": 31}, ["network_height", "at least 32", "31"]),
    ],
)
def test_senseless_values_are_refused_by_name(values, words):
    with pytest.raises(ParameterError) as caught:
        NodeParameters().changed(values, model_loaded=False)
    for word in words:
        assert word in str(caught.value)


def test_what_needs_a_reload_stays_while_a_model_is_loaded():
    before = NodeParameters(model_path="a.onnx")
    with pytest.raises(ParameterError, match=r"'a.onnx' to stay, got 'b.onnx'.*clean up"):
        before.changed({"model_path": "b.onnx"}, model_loaded=True)
    assert before.changed({"model_path": "b.onnx"}, model_loaded=False).model_path == "b.onnx"
    assert before.changed({"model_path": "a.onnx"}, model_loaded=True) == before
    assert before.changed({"max_age_s": 0.5}, model_loaded=True).max_age_s == 0.5


def test_parameters_of_others_are_passed_over():
    assert NodeParameters().changed({"use_sim_time": True}, True) == NodeParameters()


def test_every_key_of_the_shipped_file_has_a_comment(repository):
    lines = (repository / "config" / "ddfd.yaml").read_text(encoding="utf-8").splitlines()
    commented = {
        line.split(":")[0].strip()
        for line in lines
        if not line.lstrip().startswith("#") and len(line.partition("#")[2].strip()) > 5
    }
    assert commented == set(defaults())


@pytest.mark.parametrize("prefix", ["", "cloud_"])
def test_limits_must_leave_room(prefix):
    with pytest.raises(ParameterError, match=rf"{prefix}min_depth_m.*min < max"):
        NodeParameters(**{f"{prefix}min_depth_m": 2.0, f"{prefix}max_depth_m": 1.0})


def test_the_page_about_the_node_names_every_parameter(repository):
    text = (repository / "docs" / "node.md").read_text(encoding="utf-8")
    groups = ("engine_", "camera_", "cloud_")
    missing = [n for n in defaults() if f"`{n}`" not in text and not n.startswith(groups)]
    assert missing == []


@pytest.mark.parametrize("item", [f for f in fields(NodeParameters) if f.metadata["choices"]])
def test_a_choice_may_be_written_in_yaml_as_it_is(item):
    """The word off would be a boolean there, and the node would refuse to start."""
    for choice in item.metadata["choices"]:
        assert yaml.safe_load(f"{item.name}: {choice}") == {item.name: choice}
