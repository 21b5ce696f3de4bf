"""Scaling with the lens, on a natural photograph and the shipped model for its camera."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_ros.core.pipeline import Pipeline
from ddfd_ros.core.types import Frame
from ddfd_ros.core.view import ViewOptions

cv2 = pytest.importorskip("cv2")


@pytest.mark.data
def test_the_same_camera_at_twice_the_resolution_gives_the_same_depth(data_root, repository):
    """645x432 of 36 um is the model's own; the same picture at 1290x864 has 18 um.

    With its pitch told, depth must come out as before; taken as it is, every blur is twice as wide
    and depth is far off.
    """
    pytest.importorskip("onnxruntime")
    from ddfd_ros.inference import open_backend

    folder = data_root / "dfd_dslr" / "dfd_dataset_indoor_N2_8" / "rgb" / "test"
    rgb = cv2.imread(str(sorted(folder.glob("*.JPG"))[0]))[..., ::-1].copy()
    large = cv2.resize(rgb, None, None, 2, 2, cv2.INTER_CUBIC)
    model = repository / "models" / "ddfd-lite-dslr.onnx"
    with open_backend(model, "onnxruntime", threads=1) as backend:
        pitch_m = backend.contract.lens.pixel_pitch_m
        depth_m = Pipeline(backend).process(Frame(rgb), ["depth_m"]).depth_m
        told = Pipeline(backend, None, ViewOptions(pixel_pitch_m=pitch_m / 2))
        as_before = told.process(Frame(large), ["depth_m"]).depth_m
        ignored = Pipeline(backend).process(Frame(large), ["depth_m"]).depth_m
    expected = np.repeat(np.repeat(depth_m, 2, axis=0), 2, axis=1)
    assert as_before.shape == ignored.shape == expected.shape
    assert np.median(np.abs(as_before / expected - 1)) < 0.05
    assert np.median(np.abs(ignored / expected - 1)) > 0.15
