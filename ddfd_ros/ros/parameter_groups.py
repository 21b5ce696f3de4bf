"""The node's parameters by purpose: image sizes, lens, what is believed, outputs, cloud."""

from __future__ import annotations

from dataclasses import dataclass

from ddfd_ros.ros.parameter_field import Change, parameter


@dataclass(frozen=True)
class ViewParameters:
    """Which part of the camera's image the network sees, at which scale."""

    network_width: int = parameter(
        0,
        "Largest width in pixels given to the network; 0: the model's fixed width, or no limit",
        Change.LIVE,
        low=0,
        high=8192,
    )
    network_height: int = parameter(
        0,
        "Largest height in pixels given to the network; 0: the model's fixed height, or no limit",
        Change.LIVE,
        low=0,
        high=8192,
    )
    oversize: str = parameter(
        "crop",
        "An image larger than the network's size: crop (its centre is used, the blur stays as it "
        "is) or letterbox (all of it, scaled down; the lens guard then sees a coarser pitch)",
        Change.LIVE,
        choices=("crop", "letterbox"),
    )
    output_size: str = parameter(
        "input",
        "Size of all outputs: input (the camera's image; NaN where the network did not look) or "
        "network (what the network saw); camera_info is scaled and cropped accordingly",
        Change.LIVE,
        choices=("input", "network"),
    )
    camera_info_match: str = parameter(
        "latest",
        "Which camera_info belongs to an image: latest, or stamp (the one with the image's stamp)",
        Change.LIVE,
        choices=("latest", "stamp"),
    )
    input_rectified: bool = parameter(
        False,
        "Whether the images are rectified: P holds for them then (the cloud is made with it, and "
        "the published camera_info says so in K and D, too), else K and D",
        Change.LIVE,
    )


@dataclass(frozen=True)
class LensParameters:
    """The camera as it is, for the scale of the input and for the lens guard."""

    lens_calibration: str = parameter(
        "",
        "File of ddfd-calibrate with the camera's lens, in place of pitch, focal length and "
        "aperture below; an absolute path; empty: none",
        Change.LIVE,
    )
    camera_pixel_pitch_um: float = parameter(
        0.0,
        "Distance between neighbouring pixels of the camera's image in micrometres (the sensor's, "
        "times binning or scaling in the driver, and K[0]/P[0] if input_rectified); the image is "
        "scaled to the pitch the model was trained for; 0: unknown, nothing is scaled",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    camera_focal_length_mm: float = parameter(
        0.0,
        "Focal length in millimetres; 0: from camera_info (K[0], or P[0] if input_rectified), "
        "pixel pitch and focus distance",
        Change.LIVE,
        low=0.0,
        high=10000.0,
    )
    camera_f_number: float = parameter(
        0.0, "Aperture number the lens is set to; 0: unknown", Change.LIVE, low=0.0, high=1000.0
    )
    camera_focus_distance_m: float = parameter(
        0.0,
        "Distance in metres the lens is focused at, 1e6 for infinity; 0: unknown",
        Change.LIVE,
        low=0.0,
        high=1e6,
    )
    camera_sigma_0_px: float = parameter(
        0.0,
        "How far the camera spreads a point in focus, standard deviation in pixels; an image "
        "sharper than those the model was trained on is softened as much as is missing; 0: as "
        "lens_calibration says, else unknown, and nothing is softened",
        Change.LIVE,
        low=0.0,
        high=100.0,
    )
    lens_guard: str = parameter(
        "warn",
        "A camera that is not the one the model was trained for: ignore, warn (in diagnostics), "
        "or blank (and all depth becomes invalid)",
        Change.LIVE,
        choices=("ignore", "warn", "blank"),  # "off" would be a boolean in YAML
    )
    lens_tolerance: float = parameter(
        0.1,
        "Difference the lens guard accepts, as a share of the model's value",
        Change.LIVE,
        low=0.0,
        high=10.0,
    )


@dataclass(frozen=True)
class TrustParameters:
    """Which depth is believed, and which frames are worth an answer."""

    max_sigma_m: float = parameter(
        0.0,
        "Depth whose standard deviation exceeds this many metres becomes invalid; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    min_depth_m: float = parameter(
        0.0, "Depth nearer than this many metres is invalid", Change.LIVE, low=0.0, high=1000.0
    )
    max_depth_m: float = parameter(
        0.0,
        "Depth farther than this many metres is invalid; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    max_edge: float = parameter(
        0.0,
        "Depth that differs from a neighbouring pixel's by more than this share of the nearer of "
        "the two becomes invalid; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=100.0,
    )
    dead_zone_px: float = parameter(
        0.0,
        "Depth at which the lens blurs by less than this many pixels becomes invalid, and the "
        "dead zone of depth/zones (1 pixel there while this is 0); 0: no limit",
        Change.LIVE,
        low=0.0,
        high=100.0,
    )
    out_of_range: str = parameter(
        "invalid",
        "Depth beyond the limits: invalid (NaN), or rep117 (too close -Inf, too far +Inf)",
        Change.LIVE,
        choices=("invalid", "rep117"),
    )
    max_age_s: float = parameter(
        1.0,
        "Frames whose stamp is older than this many seconds are dropped; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=3600.0,
    )


@dataclass(frozen=True)
class OutputParameters:
    """How images are published."""

    depth_encoding: str = parameter(
        "32FC1",
        "Depth image: 32FC1 (metres, NaN invalid) or 16UC1 (millimetres, 0 invalid)",
        Change.LIVE,
        choices=("32FC1", "16UC1"),
    )
    preview_near_m: float = parameter(
        0.0,
        "Distance in metres with the first colour of depth/color; 0: the model's nearest",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    preview_far_m: float = parameter(
        0.0,
        "Distance in metres with the last colour of depth/color; 0: the model's farthest",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    zones_output: bool = parameter(
        False,
        "Whether to advertise depth/zones (mono8): 1 dead zone, 2 two distances blurred alike, 3 "
        "both, 255 depth unknown, 0 elsewhere",
        Change.RELOAD,
    )
    compressed_output: bool = parameter(
        False,
        "Whether to advertise all_in_focus/image/compressed and depth/image_rect/compressedDepth "
        "(sensor_msgs/CompressedImage)",
        Change.RELOAD,
    )
    compressed_format: str = parameter(
        "jpeg",
        "File format of all_in_focus/image/compressed",
        Change.LIVE,
        choices=("jpeg", "png"),
    )
    jpeg_quality: int = parameter(
        90, "Quality of all_in_focus/image/compressed as jpeg", Change.LIVE, low=1, high=100
    )


@dataclass(frozen=True)
class CloudParameters:
    """The point cloud on ``points``; its limits come on top of those of the depth."""

    cloud_color: str = parameter(
        "none",
        "Colour of the points: none (fields xyz), image (the camera's) or all_in_focus (xyzrgb)",
        Change.LIVE,
        choices=("none", "image", "all_in_focus"),
    )
    cloud_decimation: int = parameter(
        4, "Every so many rows and columns there is a point", Change.LIVE, low=1, high=64
    )
    cloud_organized: bool = parameter(
        False,
        "true: rows and columns of the image, NaN where there is no point; false: valid points "
        "only, in one row",
        Change.LIVE,
    )
    cloud_max_edge: float = parameter(
        0.05,
        "No point where depth differs from a neighbouring pixel's by more than this share of the "
        "nearer of the two; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=100.0,
    )
    cloud_min_depth_m: float = parameter(
        0.0, "No points nearer than this many metres", Change.LIVE, low=0.0, high=1000.0
    )
    cloud_max_depth_m: float = parameter(
        0.0,
        "No points farther than this many metres; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    cloud_max_sigma_m: float = parameter(
        0.0,
        "No points whose standard deviation exceeds this many metres; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
