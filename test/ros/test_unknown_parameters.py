"""Start parameters that are none of the node's: told, since a misspelt limit would be none."""

from __future__ import annotations

import rclpy
from rclpy.parameter import Parameter

from ddfd_ros.ros.parameters import declare, unknown_overrides


def test_misspelt_parameters_are_named_and_qos_is_left_alone(ros_domain):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    given = {
        "max_sigma": 0.5,
        "max_depth_m": 5.0,
        "use_sim_time": False,
        "qos_overrides./image_raw.subscription.depth": 3,
    }
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = rclpy.create_node("ddfd", context=context, parameter_overrides=overrides)
    try:
        assert declare(node).max_depth_m == 5.0
        assert unknown_overrides(node) == ["max_sigma"]
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_the_node_says_so(stage, tools):
    node = stage.start(model_path=tools.write_model(stage.folder / "m.onnx"), max_sigma=0.5)
    stage.peer.wait_for_camera()
    assert "got also max_sigma, which nothing reads" in node.log
