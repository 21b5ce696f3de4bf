"""Codec, worker, pipeline and a real backend together, as the node uses them."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from ddfd_ros.core.errors import ImageFormatError, ModelLoadError
from ddfd_ros.core.image_codec import decode, decode_depth, encode_depth, encode_rgb
from ddfd_ros.core.pipeline import Pipeline, Thresholds
from ddfd_ros.core.types import Frame
from ddfd_ros.core.worker import LatestWorker
from ddfd_ros.inference import open_backend

RNG = np.random.default_rng(9)


class Owned:
    """The backend with its pipeline."""

    def __init__(self, path, runtime):
        self.backend = open_backend(path, runtime, threads=1)
        self.pipeline = Pipeline(self.backend)
        self.made_by = threading.current_thread().name

    def close(self):
        self.backend.close()


def test_good_and_bad_frames(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    answers, errors = [], []

    def process(owned, message):
        estimate = owned.pipeline.process(Frame(decode(message), stamp_ns=7))
        return encode_depth(estimate.depth_m, message.header), estimate

    worker = LatestWorker(
        lambda: Owned(path, runtime),
        process,
        lambda message, answer: answers.append(answer),
        lambda message, error: errors.append(error),
        name="owner",
    )
    worker.start(60)
    assert worker.call(lambda owned: owned.made_by, 10) == "owner"
    assert worker.call(lambda owned: owned.backend.warm_up(64, 64), 60) > 0

    picture = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    good = encode_rgb(picture, "head", "bgr8")
    bad = SimpleNamespace(**{**vars(good), "data": good.data[:100]})
    small = encode_rgb(picture[:40, :33], "head")  # another resolution in mid-stream
    for message in (good, bad, small):
        worker.submit(message)
        assert worker.wait_idle(60)
    reference = make.reference(picture)
    message, estimate = answers[0]
    np.testing.assert_allclose(decode_depth(message), reference["depth_m"], atol=1e-4)
    assert list(estimate.timings_ms) == ["pad", "infer", "postprocess"]
    assert answers[1][1].sharp_rgb.shape == (40, 33, 3)
    assert [type(error) for error in errors] == [ImageFormatError]
    assert (worker.counts.answered, worker.counts.failed) == (2, 1)

    def tighten(owned):
        owned.pipeline.thresholds = Thresholds(max_sigma_m=float(np.median(reference["sigma_m"])))

    worker.call(tighten, 10)
    worker.submit(good)
    assert worker.wait_idle(60)
    hidden = np.isnan(decode_depth(answers[2][0]))
    np.testing.assert_array_equal(hidden, reference["sigma_m"] > np.median(reference["sigma_m"]))
    assert worker.stop(60)


def test_a_model_that_does_not_load_is_told_to_start(runtime, tmp_path):
    worker = LatestWorker(
        lambda: Owned(tmp_path / "no.onnx", runtime), lambda o, m: m, lambda m, a: None, print
    )
    with pytest.raises(ModelLoadError, match="got none"):
        worker.start(10)
