"""Starts the node, and RViz if wanted; ``ros2 launch -s`` lists the arguments."""

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
from ddfd_ros.ros.environment import (
    PROFILE_VARIABLES,
    active_profile,
    profile_variable,
    suitable_profile,
)

OUTPUT_TOPICS = (
    "depth/image_rect",
    "depth/camera_info",
    "all_in_focus/image",
    "all_in_focus/camera_info",
    "uncertainty/image",
    "uncertainty/camera_info",
    "defocus/image",
    "defocus/camera_info",
)


def generate_launch_description() -> launch.LaunchDescription:
    """The arguments, then what depends on their values."""
    share = FindPackageShare("ddfd_ros")
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
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
            "image_topic", default_value="image_raw", description="The camera's image topic"
        ),
        DeclareLaunchArgument(
            "camera_info_topic",
            default_value="camera_info",
            description="The camera's camera_info topic",
        ),
        DeclareLaunchArgument(
            "lifecycle",
            default_value="auto",
            choices=["auto", "launch", "manual"],
            description="Who configures and activates: the node itself, this launch file by "
            "events, or somebody else (a lifecycle manager)",
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
            "log_level", default_value="info", description="Log level of the node"
        ),
    ]
    return launch.LaunchDescription([*arguments, OpaqueFunction(function=_actions)])


def _actions(context: launch.LaunchContext) -> list[launch.Action]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    overrides: dict[str, str | bool] = {"autostart": value("lifecycle") == "auto"}
    overrides |= {name: value(name) for name in ("model_path", "runtime") if value(name)}
    environment = _profile_environment(value("fastdds_profile"))
    node = LifecycleNode(
        package="ddfd_ros",
        executable="ddfd_node",
        name=value("name"),
        namespace=value("namespace"),
        parameters=[value("params_file"), overrides],
        remappings=[
            ("image_raw", value("image_topic")),
            ("camera_info", value("camera_info_topic")),
        ],
        arguments=["--ros-args", "--log-level", value("log_level")],
        additional_env=environment,
        output="screen",
    )
    actions: list[launch.Action] = [node]
    if value("lifecycle") == "launch":
        actions = [*_transitions_by_event(node), node]
    if value("rviz") == "true":
        actions.append(_rviz(value("namespace"), value("rviz_frame"), environment))
    return actions


def _profile_environment(wanted: str) -> dict[str, str]:
    """The variables for the node's process; empty: what the environment says already stays."""
    if wanted == "none":
        return dict.fromkeys(PROFILE_VARIABLES, "")
    if wanted != "auto":
        return {profile_variable(): wanted}
    profile = None if active_profile() else suitable_profile()
    return {} if profile is None else {profile_variable(): str(profile)}


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


def _rviz(namespace: str, frame: str, environment: dict[str, str]) -> Node:
    """RViz; its configuration has absolute topics, which are moved into the namespace here."""
    config = PathJoinSubstitution([FindPackageShare("ddfd_ros"), "rviz", "ddfd.rviz"])
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=namespace,
        arguments=["-d", config, "-f", frame],
        remappings=[(f"/{topic}", topic) for topic in OUTPUT_TOPICS],
        additional_env=environment,
        output="screen",
    )
