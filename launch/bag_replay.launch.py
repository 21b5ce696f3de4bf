"""Plays a recorded bag into the node, from the moment on at which the node is ready."""

from __future__ import annotations

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.events.lifecycle import StateTransition
from launch_ros.substitutions import FindPackageShare

import launch
from ddfd_ros.ros.environment import launch_environment

PASSED_ON = (
    "namespace",
    "image_topic",
    "camera_info_topic",
    "model_path",
    "runtime",
    "lens_calibration",
    "rviz",
    "rviz_frame",
    "foxglove",
)

ANSWERS = (
    "depth/image_rect",
    "depth/image_rect/compressedDepth",
    "depth/camera_info",
    "depth/color",
    "depth/zones",
    "all_in_focus/image",
    "all_in_focus/image/compressed",
    "all_in_focus/camera_info",
    "uncertainty/image",
    "uncertainty/camera_info",
    "defocus/image",
    "defocus/camera_info",
    "points",
    "latency",
)
"""What the node publishes: a field test and ``ddfd-bag`` record some of it beside the input."""

RECORDED = "/recorded"
"""In front of the topics on which recorded answers are played."""


def generate_launch_description() -> launch.LaunchDescription:
    """The arguments, then what depends on their values; ddfd.launch.py has more arguments."""
    arguments = [
        DeclareLaunchArgument("bag", description="The bag: a folder, or one .mcap or .db3 file"),
        DeclareLaunchArgument("rate", default_value="1.0", description="Speed of the replay"),
        DeclareLaunchArgument(
            "start", default_value="0.0", description="Seconds of the bag to leave out first"
        ),
        DeclareLaunchArgument(
            "loop",
            default_value="false",
            choices=["true", "false"],
            description="Whether the bag begins anew at its end",
        ),
        DeclareLaunchArgument(
            "end",
            default_value="true",
            choices=["true", "false"],
            description="Whether everything ends with the bag",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
        DeclareLaunchArgument(
            "image_topic", default_value="image_raw", description="The bag's image topic"
        ),
        DeclareLaunchArgument(
            "camera_info_topic",
            default_value="camera_info",
            description="The bag's camera_info topic",
        ),
        DeclareLaunchArgument(
            "model_path", default_value="", description="Model file or name of a shipped model"
        ),
        DeclareLaunchArgument(
            "runtime", default_value="", description="Runtime; empty: the parameter file's"
        ),
        DeclareLaunchArgument(
            "lens_calibration",
            default_value="",
            description="Calibration of the camera's lens; empty: the parameter file's",
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
            description="Whether to start foxglove_bridge",
        ),
    ]
    return launch.LaunchDescription([*arguments, OpaqueFunction(function=_actions)])


def _actions(context: launch.LaunchContext) -> list[launch.Action]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    bag = str(Path(value("bag")).expanduser())  # a shell leaves bag:=~/ride as it is
    command = ["ros2", "bag", "play", bag, "--clock", "100", "--rate", value("rate")]
    command += ["--start-offset", value("start")]
    command += ["--loop"] if value("loop") == "true" else []
    command += ["--remap", *_apart(value("namespace"))]
    player = ExecuteProcess(
        cmd=command, name="player", additional_env=launch_environment("auto"), output="screen"
    )
    actions: list[launch.Action] = [
        RegisterEventHandler(
            # What is played before the node listens would be lost.
            launch.EventHandler(matcher=_becomes_active, entities=[player], handle_once=True)
        ),
        RegisterEventHandler(
            # Nothing would ever be played; the node has said why.
            launch.EventHandler(
                matcher=_cannot_start,
                entities=[EmitEvent(event=Shutdown(reason="the node could not be brought up"))],
            )
        ),
        _node(value),
    ]
    if value("end") == "true":
        ended = EmitEvent(event=Shutdown(reason="the bag has ended"))
        actions.insert(
            0, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[ended]))
        )
    return actions


def _apart(namespaces: str) -> list[str]:
    """Rules that play recorded answers beside the node's own, which they would mix with."""
    topics = ["/diagnostics"]
    for namespace in namespaces.split(","):
        prefix = "/" + namespace.strip().strip("/")
        topics += [f"{prefix.rstrip('/')}/{topic}" for topic in ANSWERS]
    return [f"{topic}:={RECORDED}{topic}" for topic in topics]


def _becomes_active(event: launch.Event) -> bool:
    return isinstance(event, StateTransition) and event.goal_state == "active"


def _cannot_start(event: launch.Event) -> bool:
    # A refusal goes back to the state before, an error in a transition by "errorprocessing".
    if not isinstance(event, StateTransition):
        return False
    failed = (("configuring", "unconfigured"), ("activating", "inactive"))
    change = (event.start_state, event.goal_state)
    return change in failed or event.start_state == "errorprocessing"


def _node(value: launch.SomeSubstitutionsType) -> IncludeLaunchDescription:
    # Brought up from here: by itself a node may fail before anybody could hear of it.
    fixed = {"use_sim_time": "true", "lifecycle": "launch"}
    arguments = {name: value(name) for name in PASSED_ON} | fixed
    path = PathJoinSubstitution([FindPackageShare("ddfd_ros"), "launch", "ddfd.launch.py"])
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
    )
