"""Starts the node, and camera driver, RViz and Foxglove if wanted; ``-s`` lists the arguments."""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

import launch
from ddfd_ros.ros.environment import existing_file, launch_environment

OUTPUT_TOPICS = (
    "depth/image_rect",
    "depth/camera_info",
    "all_in_focus/image",
    "all_in_focus/camera_info",
    "uncertainty/image",
    "uncertainty/camera_info",
    "defocus/image",
    "defocus/camera_info",
    "depth/color",
    "points",
)

FORWARDED = ("model_path", "runtime", "lens_calibration")
"""Arguments that are the node's parameters of the same name, where they are given."""

DRIVERS = {
    "v4l2": ("v4l2_camera", "v4l2_camera_node"),
    "usb_cam": ("usb_cam", "usb_cam_node_exe"),
}
"""Camera drivers by a short name: package and executable. They publish image_raw, camera_info."""


def generate_launch_description() -> launch.LaunchDescription:
    """The arguments, then what depends on their values."""
    return launch.LaunchDescription([*_arguments(), OpaqueFunction(function=_actions)])


def _arguments() -> list[launch.Action]:
    share = FindPackageShare("ddfd_ros")
    return [
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="Namespace of the node; several, separated by commas: one node (and one "
            "camera driver, if any) in each",
        ),
        DeclareLaunchArgument("name", default_value="ddfd", description="Name of the node"),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "ddfd.yaml"]),
            description="YAML file with the node's parameters",
        ),
        DeclareLaunchArgument(
            "model_path",
            default_value="",
            description="Model file or name of a shipped model; empty: what params_file says",
        ),
        DeclareLaunchArgument(
            "runtime", default_value="", description="Runtime; empty: what params_file says"
        ),
        DeclareLaunchArgument(
            "lens_calibration",
            default_value="",
            description="What ddfd-calibrate wrote of the camera's lens; empty: what params_file "
            "says",
        ),
        DeclareLaunchArgument(
            "image_topic", default_value="image_raw", description="The camera's image topic"
        ),
        DeclareLaunchArgument(
            "camera_info_topic",
            default_value="camera_info",
            description="The camera's camera_info topic",
        ),
        DeclareLaunchArgument(
            "camera",
            default_value="none",
            description="Camera driver to start beside the node: none, v4l2, usb_cam, or "
            "PACKAGE/EXECUTABLE of any driver that publishes image_raw and camera_info",
        ),
        DeclareLaunchArgument(
            "camera_params_file",
            default_value="",
            description="YAML file with the driver's parameters; empty: its defaults",
        ),
        DeclareLaunchArgument(
            "lifecycle",
            default_value="auto",
            choices=["auto", "launch", "manual"],
            description="Who configures and activates: the node itself, this launch file by "
            "events, or somebody else (a lifecycle manager)",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=["true", "false"],
            description="Whether a node that died is started again after two seconds",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=["true", "false"],
            description="Whether time comes from /clock, as with a bag",
        ),
        DeclareLaunchArgument(
            "fastdds_profile",
            default_value="auto",
            description="Fast DDS profile file; auto: the shipped one that fits /dev/shm, unless "
            "the environment names one; none: Fast DDS's defaults, which lose image frames",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            choices=["true", "false"],
            description="Whether to start RViz with the node's topics",
        ),
        DeclareLaunchArgument(
            "rviz_frame",
            default_value="camera_optical_frame",
            description="RViz's fixed frame: the frame_id of the camera's images",
        ),
        DeclareLaunchArgument(
            "foxglove",
            default_value="false",
            choices=["true", "false"],
            description="Whether to start foxglove_bridge (the layout: foxglove/ddfd.json)",
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", description="Log level of the node"
        ),
    ]


def _actions(context: launch.LaunchContext) -> list[launch.Action]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    environment = launch_environment(value("fastdds_profile"))
    namespaces = [name.strip() for name in value("namespace").split(",")]
    sim_time = value("use_sim_time") == "true"
    overrides: dict[str, str | bool] = {
        "autostart": value("lifecycle") == "auto",
        "use_sim_time": sim_time,
    }
    overrides |= {name: value(name) for name in FORWARDED if value(name)}
    actions: list[launch.Action] = []
    for namespace in namespaces:
        node = LifecycleNode(
            package="ddfd_ros",
            executable="ddfd_node",
            name=value("name"),
            namespace=namespace,
            parameters=[existing_file(value("params_file"), "params_file"), overrides],
            remappings=[
                ("image_raw", value("image_topic")),
                ("camera_info", value("camera_info_topic")),
            ],
            arguments=["--ros-args", "--log-level", value("log_level")],
            additional_env=environment,
            respawn=value("respawn") == "true",
            respawn_delay=2.0,
            output="screen",
        )
        if value("lifecycle") == "launch":
            actions += _transitions_by_event(node)
        actions.append(node)
        if value("camera") != "none":
            driver = _driver(value("camera"), value("camera_params_file"), namespace, environment)
            actions.append(driver)
        if value("rviz") == "true":
            actions.append(_rviz(namespace, value("rviz_frame"), sim_time, environment))
    if value("foxglove") == "true":
        actions.append(_foxglove(sim_time, environment))
    return actions


def _driver(camera: str, params_file: str, namespace: str, environment: dict[str, str]) -> Node:
    """A camera driver in the node's namespace, with the same Fast DDS profile."""
    package, executable = DRIVERS.get(camera) or camera.partition("/")[::2]
    if not executable:
        raise ValueError(
            f"camera: expected none, {', '.join(DRIVERS)} or PACKAGE/EXECUTABLE, got {camera!r}"
        )
    parameters = [existing_file(params_file, "camera_params_file")] if params_file else []
    return Node(
        package=package,
        executable=executable,
        name="camera",
        namespace=namespace,
        parameters=parameters,
        additional_env=environment,
        output="screen",
    )


def _transitions_by_event(node: LifecycleNode) -> list[launch.Action]:
    """Configure when the process has started, activate when that has succeeded."""

    def change(transition: int) -> EmitEvent:
        matcher = launch.events.matches_action(node)
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matcher, transition_id=transition)
        )

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])
        ),
        RegisterEventHandler(
            # Without start_state every deactivation, which also ends in "inactive", would be
            # undone at once.
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[change(Transition.TRANSITION_ACTIVATE)],
            )
        ),
    ]


def _rviz(namespace: str, frame: str, sim_time: bool, environment: dict[str, str]) -> Node:
    """RViz; its configuration has absolute topics, which are moved into the namespace here."""
    config = PathJoinSubstitution([FindPackageShare("ddfd_ros"), "rviz", "ddfd.rviz"])
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=namespace,
        arguments=["-d", config, "-f", frame],
        parameters=[{"use_sim_time": sim_time}],
        remappings=[(f"/{topic}", topic) for topic in OUTPUT_TOPICS],
        additional_env=environment,
        output="screen",
    )


def _foxglove(sim_time: bool, environment: dict[str, str]) -> Node:
    return Node(
        package="foxglove_bridge",
        executable="foxglove_bridge",
        name="foxglove_bridge",
        parameters=[{"use_sim_time": sim_time}],
        additional_env=environment,
        output="screen",
    )
