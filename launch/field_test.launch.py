"""A field test: node, a recording of what went in and out, and a summary of the diagnostics."""

from __future__ import annotations

import os
import time
from pathlib import Path

import yaml
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

import launch
from ddfd_ros.ros.environment import existing_file, launch_environment

OUTPUTS = {
    "depth": ("depth/image_rect", "depth/camera_info"),
    "sharp": ("all_in_focus/image", "all_in_focus/camera_info"),
    "sigma": ("uncertainty/image", "uncertainty/camera_info"),
    "defocus": ("defocus/image", "defocus/camera_info"),
    "points": ("points",),
}
"""What the argument ``outputs`` may name, and the topics that are recorded then."""

ALWAYS = ("latency",)
GLOBAL = ("/diagnostics", "/tf", "/tf_static", "/rosout")

PASSED_ON = (
    "namespace",
    "name",
    "params_file",
    "model_path",
    "lens_calibration",
    "runtime",
    "image_topic",
    "camera_info_topic",
    "camera",
    "camera_params_file",
    "rviz",
    "rviz_frame",
    "foxglove",
)


def generate_launch_description() -> launch.LaunchDescription:
    """The arguments, then what depends on their values; ddfd.launch.py has more arguments."""
    return launch.LaunchDescription([*_own(), *_passed_on(), OpaqueFunction(function=_actions)])


def _own() -> list[launch.Action]:
    return [
        DeclareLaunchArgument(
            "folder",
            default_value="~/ddfd_field_tests",
            description="Where a folder named by date and time is made for this test",
        ),
        DeclareLaunchArgument(
            "record",
            default_value="true",
            choices=["true", "false"],
            description="Whether to record a bag (mcap)",
        ),
        DeclareLaunchArgument(
            "outputs",
            default_value="depth,sigma",
            description="Outputs to record, of " + ", ".join(OUTPUTS) + "; each costs its "
            "computation and about 20 MB/s at 640x480 and 20 Hz; empty: only what went in, which "
            "ddfd-bag can answer later",
        ),
        DeclareLaunchArgument(
            "topics", default_value="", description="Further topics to record, by commas"
        ),
        DeclareLaunchArgument(
            "split_s",
            default_value="300",
            description="Seconds after which the recording begins a new file",
        ),
    ]


def _passed_on() -> list[launch.Action]:
    share = FindPackageShare("ddfd_ros")
    return [
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node; several by commas"
        ),
        DeclareLaunchArgument("name", default_value="ddfd", description="Name of the node"),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "ddfd.yaml"]),
            description="YAML file with the node's parameters",
        ),
        DeclareLaunchArgument(
            "model_path", default_value="", description="Model file or name of a shipped model"
        ),
        DeclareLaunchArgument(
            "lens_calibration",
            default_value="",
            description="Calibration of the camera's lens; empty: what params_file says",
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
            "camera", default_value="none", description="Camera driver, see ddfd.launch.py"
        ),
        DeclareLaunchArgument(
            "camera_params_file", default_value="", description="The driver's parameters"
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
    ]


def _actions(context: launch.LaunchContext) -> list[launch.Action]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    folder = Path(value("folder")).expanduser() / time.strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True)
    environment = launch_environment("auto")
    path = PathJoinSubstitution([FindPackageShare("ddfd_ros"), "launch", "ddfd.launch.py"])
    passed_on = {name: value(name) for name in PASSED_ON} | {"respawn": "true"}
    actions: list[launch.Action] = [
        LogInfo(msg=f"field test: everything goes to {folder}"),
        Node(
            package="ddfd_ros",
            executable="ddfd_summary",
            name="ddfd_summary",
            arguments=["--output", str(folder / "summary.json")],
            additional_env=environment,
            output="screen",
        ),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(path), launch_arguments=passed_on.items()
        ),
    ]
    if value("record") == "true":
        topics = _recorded(
            value("namespace"),
            [
                *_image_topics(value("image_topic"), value("params_file")),
                value("camera_info_topic"),
            ],
            value("outputs"),
            value("topics"),
        )
        command = ["ros2", "bag", "record", "--storage", "mcap", "--output", str(folder / "bag")]
        command += ["--max-bag-duration", value("split_s")]
        # Humble knows no --topics, and Kilted wants it.
        command += [] if os.environ.get("ROS_DISTRO") == "humble" else ["--topics"]
        command += topics
        recorder = ExecuteProcess(
            cmd=command,
            name="recorder",
            additional_env=environment,
            sigterm_timeout="20",  # it writes its index before it ends
            output="screen",
        )
        actions.insert(1, recorder)
    return actions


def _image_topics(image_topic: str, params_file: str) -> list[str]:
    """The topics that the images come on, by the transport that the node's parameters name.

    Where the file names both, for two nodes, both are recorded: rather too much than no input.
    """
    text = Path(existing_file(params_file, "params_file")).read_text(encoding="utf-8")
    said = _said(yaml.safe_load(text), "image_transport")
    suffix = {"raw": "", "compressed": "/compressed"}
    return [image_topic + suffix.get(transport, "") for transport in sorted(said or {"raw"})]


def _said(tree: object, name: str) -> set[str]:
    """All values of a parameter in a file of parameters, whatever node they are for."""
    if not isinstance(tree, dict):
        return set()
    here = {str(tree[name])} if name in tree else set()
    return here.union(*(_said(value, name) for value in tree.values()))


def _recorded(namespaces: str, inputs: list[str], outputs: str, further: str) -> list[str]:
    """The topics to record, by their full names.

    Raises:
        ValueError: An output that does not exist.
    """
    wanted = [name.strip() for name in outputs.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in OUTPUTS]:
        raise ValueError(f"outputs: expected some of {', '.join(OUTPUTS)}, got {unknown}")
    relative = [*inputs, *ALWAYS, *(topic for name in wanted for topic in OUTPUTS[name])]
    topics = []
    for namespace in namespaces.split(","):
        prefix = "/" + namespace.strip().strip("/")
        topics += [
            topic if topic.startswith("/") else f"{prefix.rstrip('/')}/{topic}"
            for topic in relative
        ]
    topics += [*GLOBAL, *(name.strip() for name in further.split(",") if name.strip())]
    return list(dict.fromkeys(topics))
