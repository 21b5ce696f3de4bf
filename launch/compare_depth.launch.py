"""Starts the node and beside it one that compares its depth with a depth camera's, live."""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

import launch
from ddfd_ros.ros.environment import launch_environment

PASSED_ON = (
    "namespace",
    "image_topic",
    "camera_info_topic",
    "params_file",
    "model_path",
    "lens_calibration",
    "use_sim_time",
    "rviz",
    "rviz_frame",
)


def generate_launch_description() -> launch.LaunchDescription:
    """The arguments, then what depends on their values; ddfd.launch.py has more arguments."""
    share = FindPackageShare("ddfd_ros")
    arguments = [
        DeclareLaunchArgument(
            "reference_image_topic",
            description="The depth camera's depth, registered to our camera's view",
        ),
        DeclareLaunchArgument(
            "reference_camera_info_topic", description="The camera_info of that depth image"
        ),
        DeclareLaunchArgument(
            "max_time_difference",
            default_value="0.02",
            description="Seconds by which two stamps may differ",
        ),
        DeclareLaunchArgument(
            "assume_registered",
            default_value="false",
            choices=["true", "false"],
            description="Whether to compare although the frame_ids differ",
        ),
        DeclareLaunchArgument(
            "reference_pixels",
            default_value="auto",
            choices=["auto", "raw", "rectified"],
            description="Whether the reference is a rectified image (P of its camera_info holds) "
            "or a raw one (K and D); auto: raw if its topic is called image_raw",
        ),
        DeclareLaunchArgument(
            "summary_file",
            default_value="",
            description="JSON file for the errors, kept up to date; empty: none",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of both"),
        DeclareLaunchArgument(
            "image_topic", default_value="image_raw", description="The camera's image topic"
        ),
        DeclareLaunchArgument(
            "camera_info_topic",
            default_value="camera_info",
            description="The camera's camera_info topic",
        ),
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
            "use_sim_time",
            default_value="false",
            choices=["true", "false"],
            description="Whether time comes from /clock, as with a bag",
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
    ]
    return launch.LaunchDescription([*arguments, OpaqueFunction(function=_actions)])


def _actions(context: launch.LaunchContext) -> list[launch.Action]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    path = PathJoinSubstitution([FindPackageShare("ddfd_ros"), "launch", "ddfd.launch.py"])
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path),
        launch_arguments={name: value(name) for name in PASSED_ON}.items(),
    )
    compare = Node(
        package="ddfd_ros",
        executable="ddfd_compare",
        name="ddfd_compare",
        namespace=value("namespace"),
        parameters=[
            {
                "max_time_difference_s": float(value("max_time_difference")),
                "assume_registered": value("assume_registered") == "true",
                "reference_pixels": value("reference_pixels"),
                "summary_file": value("summary_file"),
                "use_sim_time": value("use_sim_time") == "true",
            }
        ],
        remappings=[
            ("reference/image", value("reference_image_topic")),
            ("reference/camera_info", value("reference_camera_info_topic")),
        ],
        additional_env=launch_environment("auto"),
        output="screen",
    )
    return [compare, node]
