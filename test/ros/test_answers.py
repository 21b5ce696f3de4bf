"""What changes while a frame is computed must not tear its outputs apart."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from ddfd_ros.core.camera_model import rectified_by_name
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.pipeline import Pipeline
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.view import ViewOptions
from ddfd_ros.ros.answers import Answers, Job
from ddfd_ros.ros.camera_infos import CameraInfos
from ddfd_ros.ros.outputs import CLOUD, TOPICS, Demand
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_ros.ros.statistics import Statistics

HEIGHT, WIDTH = 48, 64
LENS = LensConfig(2e-3, 2.8, 8.0, 20e-6)


class Changing:
    """A backend during whose work the pipeline's view changes."""

    contract = ModelContract(
        1, "table", {}, 1, None, None, 1, ("depth_m",), 0.5, 10.0, LENS, {}, {}, ""
    )

    def infer(self, image, heads=None, timings_ms=None):
        self.pipeline.view_options = ViewOptions(network_size=False)
        return {"depth_m": np.full(image.shape[:2], 2.0, np.float32)}


def test_one_frame_goes_by_one_set_of_parameters(tools):
    backend = Changing()
    backend.pipeline = Pipeline(backend)
    model = SimpleNamespace(pipeline=backend.pipeline, contract=backend.contract)
    image, info = TOPICS["depth_m"]
    outputs = SimpleNamespace(
        heads=("depth_m",), demand=lambda: Demand(frozenset({image, info, CLOUD}))
    )
    warnings = []
    answers = Answers(warnings.append, Statistics())
    camera = CameraInfo(width=WIDTH, height=HEIGHT)
    camera.k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
    answers.camera_infos.add(camera)
    job = Job(tools.image_message(tools.picture(HEIGHT, WIDTH)), time.monotonic_ns())
    half = NodeParameters(camera_pixel_pitch_um=10.0, output_size="network")
    whole = replace(half, output_size="input")
    for parameters, size in ((half, (24, 32)), (whole, (48, 64)), (half, (24, 32))):
        sent = answers.answer(job, model, parameters, outputs).messages
        assert list(sent)[0] == info  # before its image
        assert (sent[image].height, sent[image].width) == size
        assert (sent[info].height, sent[info].width) == size
        assert sent[info].k[0] == 60.0 * size[0] / HEIGHT
        assert sent[CLOUD].width == (size[0] // 4) * (size[1] // 4)
    assert len(warnings) == 1  # the focal length that K implies
    assert "focal length 2 mm, got 0.6 mm" in warnings[0]


def _camera(**changes):
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
    info.p = [60.0, 0.0, 31.5, 0.0, 0.0, 60.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


@pytest.mark.parametrize(
    ("topic", "changes", "rectified", "said"),
    [
        ("/cam/image_rect", {"d": [-0.3, 0.1, 0.0, 0.0, 0.0]}, False, True),
        (
            "/cam/image_rect_color",
            {"k": [75.0, 0.0, 31.5, 0.0, 75.0, 23.5, *[0.0] * 2, 1.0]},
            False,
            True,
        ),
        ("/cam/image_rect", {}, False, False),  # it makes no difference
        ("/cam/image_rect", {"p": [0.0] * 12}, False, False),
        ("/cam/image_raw", {"d": [-0.3, 0.1, 0.0, 0.0, 0.0]}, False, False),
        ("/cam/image_rect", {"d": [-0.3, 0.1, 0.0, 0.0, 0.0]}, True, False),
    ],
)
def test_rectified_images_that_are_taken_for_raw_ones_are_told(
    tools, topic, changes, rectified, said
):
    backend = Changing()
    backend.pipeline = Pipeline(backend)
    model = SimpleNamespace(pipeline=backend.pipeline, contract=backend.contract)
    demand = Demand(frozenset(TOPICS["depth_m"]))
    outputs = SimpleNamespace(heads=("depth_m",), demand=lambda: demand)
    answers = Answers(lambda text: None, Statistics(), topic)
    answers.camera_infos.add(_camera(**changes))
    job = Job(tools.image_message(tools.picture(HEIGHT, WIDTH)), time.monotonic_ns())
    answers.answer(job, model, NodeParameters(input_rectified=rectified), outputs)
    assert ("set input_rectified" in answers.camera_problem) is said
    assert not rectified_by_name(topic, None)


def test_what_was_wrong_is_not_told_when_nobody_listens_any_more(tools):
    backend = Changing()
    backend.pipeline = Pipeline(backend)
    model = SimpleNamespace(pipeline=backend.pipeline, contract=backend.contract)
    topics = [set(TOPICS["depth_m"])]
    outputs = SimpleNamespace(heads=("depth_m",), demand=lambda: Demand(frozenset(topics[0])))
    answers = Answers(lambda text: None, Statistics())
    answers.camera_infos.add(_camera(k=[0.0] * 9))
    job = Job(tools.image_message(tools.picture(HEIGHT, WIDTH)), time.monotonic_ns())
    parameters = NodeParameters(camera_f_number=16.0)
    answers.answer(job, model, parameters, outputs)
    assert "expected a calibration" in answers.camera_problem
    assert "f-number" in answers.lens_problem
    answers.camera_infos.add(_camera())  # put right
    topics[0] = {TOPICS["depth_m"][1]}
    assert answers.answer(job, model, parameters, outputs).estimate is None
    assert (answers.camera_problem, answers.lens_problem) == ("", "")
    answers.camera_infos.add(_camera(k=[0.0] * 9))
    topics[0] = set(TOPICS["depth_m"])
    answers.answer(job, model, parameters, outputs)
    assert answers.camera_problem
    assert answers.lens_problem
    topics[0] = set()
    assert answers.answer(job, model, parameters, outputs) is None
    assert (answers.camera_problem, answers.lens_problem) == ("", "")


def test_a_bag_that_begins_again_has_the_camera_info_of_its_first_image():
    infos = CameraInfos()
    for second in (100, 101):
        infos.add(_stamped(second))
    assert infos.at(100 * 10**9) is not None
    first = _stamped(1)
    late = threading.Timer(0.05, infos.add, (first,))
    late.start()
    assert infos.at(10**9, 20.0) is first
    late.join()
    start = time.monotonic()
    infos.add(_stamped(2))
    assert infos.at(10**9 + 10**8, 20.0) is None  # was lost: the next one is there
    infos.add(_stamped(100))  # of another clock: no image is to wait for it
    assert infos.at(3 * 10**9, 20.0) is None
    assert time.monotonic() - start < 5.0


def _stamped(second):
    info = _camera()
    info.header.stamp.sec = second
    return info
