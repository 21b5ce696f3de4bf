"""A model that takes any lens is told the camera's, in the node and in ``ddfd-bag`` alike."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.pipeline import Pipeline
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.inference.lens_input import lens_values
from ddfd_ros.ros.answers import Answers, Job
from ddfd_ros.ros.outputs import CLOUD, TOPICS, Demand
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_ros.ros.statistics import Statistics

HEIGHT, WIDTH = 48, 64
OWN = LensConfig(15e-3, 2.8, 4.0, 5.6e-6)
LENS = LensConfig(12e-3, 2.8, 1.5, 5.6e-6)
GIVEN = NodeParameters(camera_pixel_pitch_um=5.6, camera_f_number=2.8, camera_focus_distance_m=1.5)
FOCAL_PX = LENS.image_distance_m / LENS.pixel_pitch_m  # as a calibration finds it
HEADS = ("depth_m", "sigma_m", "sharp_rgb", "defocus_px")


class AnyLens:
    """A backend that notes the lenses it is told, and refuses what the real ones refuse."""

    contract = ModelContract(
        1, "table", {}, 1, None, None, 1, HEADS, 0.5, 10.0, OWN, {}, {}, "",
        inputs=("image", "lens"),
        lens_range={"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, 8.0)},
    )  # fmt: skip

    def __init__(self):
        self.lenses = []

    def set_lens(self, lens):
        if lens is not None:
            lens_values(self.contract, lens)
        self.lenses.append(lens)

    def infer(self, image, heads=None, timings_ms=None):
        plane = np.full(image.shape[:2], 2.0, np.float32)
        planes = dict.fromkeys(HEADS, plane) | {"sharp_rgb": image}
        return {head: values for head, values in planes.items() if head in heads}


class Step(AnyLens):
    """For one lens; its depth goes from 1 to 4 m over a pixel of 2 m."""

    contract = ModelContract(
        1, "table", {}, 1, None, None, 1, ("depth_m",), 0.5, 10.0, OWN, {}, {}, ""
    )

    def infer(self, image, heads=None, timings_ms=None):
        depth_m = np.full(image.shape[:2], 1.0, np.float32)
        depth_m[:, 8], depth_m[:, 9:] = 2.0, 4.0
        return {"depth_m": depth_m}


def camera_info(focal_px):
    info = CameraInfo(width=WIDTH, height=HEIGHT)
    info.k = [focal_px, 0.0, 31.5, 0.0, focal_px, 23.5, 0.0, 0.0, 1.0]
    return info


def by_node(backend, tools, parameters, info):
    """The images of the model's heads and the cloud, and what is said about the lens."""
    heads = backend.contract.outputs
    model = SimpleNamespace(pipeline=Pipeline(backend), contract=backend.contract)
    topics = [CLOUD, *(topic for head in heads for topic in TOPICS[head])]
    outputs = SimpleNamespace(heads=heads, demand=lambda: Demand(frozenset(topics)))
    answers = Answers(lambda text: None, Statistics())
    answers.camera_infos.add(info)
    job = Job(tools.image_message(tools.picture(HEIGHT, WIDTH)), time.monotonic_ns())
    messages = answers.answer(job, model, parameters, outputs).messages
    images = {head: bytes(messages[TOPICS[head][0]].data) for head in heads}
    if CLOUD in messages:
        images[CLOUD] = bytes(messages[CLOUD].data)
    return images, answers.lens_problem


def by_bag(backend, tools, parameters, info, topic=""):
    """The same of ``ddfd-bag``."""
    pytest.importorskip("rosbags")
    from rosbags.typesys import Stores, get_typestore

    from ddfd_ros.bag.answers import FrameAnswers

    heads, store = backend.contract.outputs, get_typestore(Stores.ROS2_JAZZY)
    infos = SimpleNamespace(at=lambda stamp_ns, by_stamp: info)
    answers = FrameAnswers(backend, parameters, heads, True, "", infos, store, topic)
    sent = dict(answers.answer(tools.image_message(tools.picture(HEIGHT, WIDTH))))
    images = {}
    for head in heads:
        message = store.deserialize_cdr(sent["/" + TOPICS[head][0]], "sensor_msgs/msg/Image")
        images[head] = message.data.tobytes()
    if "/" + CLOUD in sent:
        cloud = store.deserialize_cdr(sent["/" + CLOUD], "sensor_msgs/msg/PointCloud2")
        images[CLOUD] = cloud.data.tobytes()
    return images, "; ".join(answers.problems)


@pytest.fixture(params=[by_node, by_bag])
def answer(request, tools):
    return lambda *args: request.param(args[0], tools, *args[1:])


@pytest.mark.parametrize("output_size", ["input", "network"])
def test_the_focal_length_of_k_is_told_to_the_model(answer, output_size):
    backend = AnyLens()
    parameters = NodeParameters(**(vars(GIVEN) | {"output_size": output_size}))
    images, problem = answer(backend, parameters, camera_info(FOCAL_PX))
    assert backend.lenses[0].px_per_dioptre == pytest.approx(LENS.px_per_dioptre)
    assert backend.lenses[0].focus_distance_m == 1.5
    assert problem == ""
    assert np.isfinite(np.frombuffer(images["depth_m"], np.float32)).all()


def test_of_a_rectified_image_the_focal_length_is_that_of_p(answer):
    backend = AnyLens()
    info = camera_info(100.0)
    info.p = [FOCAL_PX, 0.0, 31.5, 0.0, 0.0, FOCAL_PX, 23.5, *[0.0] * 3, 1.0, 0.0]
    parameters = NodeParameters(**(vars(GIVEN) | {"input_rectified": True}))
    answer(backend, parameters, info)
    assert backend.lenses[0].px_per_dioptre == pytest.approx(LENS.px_per_dioptre)


def test_a_lens_stronger_than_the_model_knows_by_k_is_scaled_into_its_range(answer):
    backend = AnyLens()
    _, problem = answer(backend, GIVEN, camera_info(24e-3 / 5.6e-6))
    assert 26 < backend.lenses[0].px_per_dioptre <= 28
    assert problem == ""


def test_without_k_the_models_own_lens_is_assumed_and_that_is_said(answer):
    backend = AnyLens()
    _, problem = answer(backend, GIVEN, camera_info(0.0))
    assert backend.lenses == [None]
    assert "the model's own lens is assumed" in problem


@pytest.mark.parametrize("guard", ["ignore", "warn", "blank"])
def test_beyond_the_models_range_only_the_picture_goes_on(answer, guard, tools):
    parameters = vars(GIVEN) | {"camera_focus_distance_m": 40.0, "lens_guard": guard}
    info = camera_info(FOCAL_PX)
    images, problem = answer(AnyLens(), NodeParameters(**parameters), info)
    assert "focus_distance_m from 0.7 to 8, got 40" in problem
    assert images["sharp_rgb"] == tools.picture(HEIGHT, WIDTH).tobytes()
    for head in ("depth_m", "sigma_m", "defocus_px"):
        assert np.isnan(np.frombuffer(images[head], np.float32)).all()


def test_the_lens_changes_with_the_camera_info_of_the_same_stamp(tools):
    """A zoom: by stamp, each frame is told its own focal length."""
    backend = AnyLens()
    model = SimpleNamespace(pipeline=Pipeline(backend), contract=backend.contract)
    outputs = SimpleNamespace(heads=HEADS, demand=lambda: Demand(frozenset(TOPICS["depth_m"])))
    answers = Answers(lambda text: None, Statistics())
    parameters = NodeParameters(**(vars(GIVEN) | {"camera_info_match": "stamp"}))
    message = tools.image_message(tools.picture(HEIGHT, WIDTH))
    lenses = [LensConfig(focal_m, 2.8, 1.5, 5.6e-6) for focal_m in (10e-3, 12e-3)]
    for second, lens in enumerate(lenses, 1):
        info = camera_info(lens.image_distance_m / lens.pixel_pitch_m)
        info.header.stamp.sec = second
        answers.camera_infos.add(info)
    for second in (1, 2):
        message.header.stamp.sec = second
        answers.answer(Job(message, time.monotonic_ns()), model, parameters, outputs)
    told = [lens.focal_length_m for lens in backend.lenses]
    assert told == [pytest.approx(10e-3), pytest.approx(12e-3)]


def test_a_calibration_that_cannot_be_read_any_more_is_said(answer, tmp_path):
    import yaml

    from ddfd_ros.core.lens_calibration import LensCalibration

    file = tmp_path / "lens.yaml"
    file.write_text(yaml.safe_dump(LensCalibration(LENS, WIDTH, HEIGHT, True).to_dict()))
    parameters = NodeParameters(lens_calibration=str(file))
    file.unlink()
    backend = AnyLens()
    images, problem = answer(backend, parameters, camera_info(0.0))
    assert "stays in force" in problem
    assert backend.lenses[0].px_per_dioptre == pytest.approx(LENS.px_per_dioptre)
    assert np.isfinite(np.frombuffer(images["depth_m"], np.float32)).all()


def test_a_bag_says_of_which_distortion_its_points_are_not(tools):
    info = camera_info(60.0)
    info.distortion_model, info.d = "double_sphere", [0.1, 0.2, 0.0, 0.0]
    for rectified in (False, True):
        _, problem = by_bag(Step(), tools, NodeParameters(input_rectified=rectified), info)
        assert ("'double_sphere'" in problem) is not rectified


def test_a_bag_says_that_rectified_images_are_taken_for_raw_ones(tools):
    info = camera_info(60.0)
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    for topic, rectified, said in (
        ("/cam/image_rect", False, True),
        ("/cam/image_rect", True, False),
        ("/cam/image_raw", False, False),
    ):
        parameters = NodeParameters(input_rectified=rectified)
        _, problem = by_bag(Step(), tools, parameters, info, topic)
        assert ("set input_rectified" in problem) is said


def test_the_cloud_has_no_points_between_two_objects_at_the_cameras_size(answer):
    """The network sees a quarter of the size, and its depth is repeated."""
    parameters = NodeParameters(camera_pixel_pitch_um=1.4)
    images, _ = answer(Step(), parameters, camera_info(60.0))
    z = np.frombuffer(images[CLOUD], np.float32).reshape(-1, 3)[:, 2]
    assert np.unique(z).tolist() == [1.0, 4.0]
