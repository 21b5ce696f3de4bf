"""What is drawn: colours on one scale, a picture of the right size, a video that plays."""

from __future__ import annotations

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from ddfd_demo.colours import UNKNOWN_RGB, Scale, depth_scale, error_scale
from ddfd_demo.pictures import DETAIL_PX, choose_scales, detail_corner, write_png
from ddfd_demo.results import Answer
from ddfd_demo.sources.base import DemoFrame
from ddfd_demo.spool import Spool
from ddfd_demo.video import PANEL_WIDTH, MovieError, count_frames, movie_rate_hz, write_mp4


def test_paint_follows_the_colour_map_and_marks_the_unknown():
    scale = Scale(1.0, 3.0, "turbo_r", "depth [m]")
    image = scale.paint(np.array([[1.0, 2.0, 3.0, np.nan, 9.0]], np.float32))
    expected = mpl.colormaps["turbo_r"]
    for column, share in ((0, 0.0), (1, 0.5), (2, 1.0), (4, 1.0)):
        wanted = np.array(expected(share)[:3]) * 255
        np.testing.assert_allclose(image[0, column], wanted, atol=4)
    assert tuple(image[0, 3]) == UNKNOWN_RGB


def test_scales_hold_the_data_and_have_round_ticks():
    rng = np.random.default_rng(0)
    scale = depth_scale([rng.uniform(1, 7, (64, 64)), np.full((8, 8), np.nan)])
    assert 1.0 <= scale.low < 1.3
    assert 6.7 < scale.high <= 7.0
    assert scale.ticks() == pytest.approx([2, 4, 6])
    error = error_scale([rng.normal(0, 0.2, (64, 64))])
    assert error.low == -error.high
    assert 0.0 in error.ticks()


def test_detail_is_where_sharpness_was_gained():
    rng = np.random.default_rng(0)
    sharp = np.full((240, 320, 3), 128, np.uint8)
    sharp[100:180, 200:280] = (
        np.kron(rng.integers(0, 2, (20, 20)), np.ones((4, 4)))[..., None] * 255
    )
    image = cv2.GaussianBlur(sharp, (0, 0), 3)
    top, left = detail_corner(image, sharp)
    assert top <= 110
    assert top + DETAIL_PX >= 170
    assert left <= 210
    assert left + DETAIL_PX >= 270


@pytest.fixture
def answers(tmp_path):
    """Four frames of two sizes; the third has no answer, the last no truth."""
    spool = Spool(tmp_path / "spool")
    rng = np.random.default_rng(1)
    result = []
    for index, (height, width) in enumerate([(96, 128), (96, 128), (96, 128), (80, 64)]):
        truth = None if index == 3 else np.full((height, width), 2.0, np.float32)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        spool.add(DemoFrame(f"f{index}", image, depth_m=truth))
    for frame in spool.frames():
        stamp_ns = 10**9 + frame.index
        shape = frame.image_rgb().shape
        for name, values in (
            ("depth", np.full(shape[:2], 2.5, np.float32)),
            ("sigma", np.full(shape[:2], 0.1, np.float32)),
            ("sharp", np.full(shape, 40 * frame.index, np.uint8)),
        ):
            np.save(spool.folder / f"{stamp_ns}.{name}.npy", values)
        topics = {name: {"received_ns": stamp_ns + 1} for name in ("depth", "sigma", "sharp")}
        result.append(Answer(frame, stamp_ns, {} if frame.index == 2 else topics))
    return result


def test_png_has_a_row_per_frame_and_a_column_per_quantity(tmp_path, answers):
    write_png(tmp_path / "demo.png", answers, "title", "subtitle")
    picture = cv2.imread(str(tmp_path / "demo.png"))
    # camera, depth, truth, error, all-in-focus, detail, sigma at 3.1 inch and 110 dpi
    assert picture.shape[1] == pytest.approx(7 * 3.1 * 110, abs=2)
    alone = [a for a in answers if a.frame.index == 3]
    write_png(tmp_path / "alone.png", alone, "title", "")
    assert cv2.imread(str(tmp_path / "alone.png")).shape[1] == pytest.approx(5 * 3.1 * 110, abs=2)


def test_png_without_answers_is_refused(tmp_path, answers):
    with pytest.raises(ValueError, match="at least one answered"):
        write_png(tmp_path / "demo.png", answers[2:3], "", "")


def _sharp_panel(picture):
    """Mean brightness at the centre of the lower left panel."""
    height, width = picture.shape[:2]
    return float(picture[int(height * 0.72), width // 4].mean())


def test_stream_video_plays_and_holds_the_last_answer(tmp_path, answers):
    scales = choose_scales([a for a in answers if a.answered])
    path = tmp_path / "demo.mp4"
    assert write_mp4(path, answers, scales, rate_hz=10.0) == 4 == count_frames(path)
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) > 2 * PANEL_WIDTH
    brightness = [_sharp_panel(capture.read()[1]) for _ in answers]
    # Frame 2 was not answered: what is shown is frame 1's image (40), not frame 2's (80).
    assert brightness == pytest.approx([0, 40, 40, 120], abs=12)


@pytest.mark.parametrize("rate_hz", [1e-6, 0.013, 29.97, 89.9873, 123.456, 655.37, 1e6])
def test_any_rate_becomes_one_that_a_movie_can_have(tmp_path, rate_hz):
    movie_hz = movie_rate_hz(rate_hz)
    assert movie_hz == pytest.approx(min(max(rate_hz, 0.01), 1000), rel=1e-3)
    path = str(tmp_path / "a.mp4")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), movie_hz, (64, 48))
    assert writer.isOpened()
    writer.release()


def test_the_video_of_an_odd_rate_is_written(tmp_path, answers):
    scales = choose_scales([a for a in answers if a.answered])
    assert write_mp4(tmp_path / "demo.mp4", answers, scales, rate_hz=89.9873) == 4


def test_photographs_stay_and_do_not_borrow_answers(tmp_path, answers):
    scales = choose_scales([a for a in answers if a.answered])
    path = tmp_path / "demo.mp4"
    assert write_mp4(path, answers, scales, rate_hz=None) == 4 * 15 == count_frames(path)
    capture = cv2.VideoCapture(str(path))
    pictures = [capture.read()[1] for _ in range(60)]
    background = _sharp_panel(pictures[35])  # the third photograph: empty panel
    assert background == pytest.approx(25, abs=8)


def test_video_that_cannot_be_written_says_so(tmp_path, answers):
    scales = choose_scales([a for a in answers if a.answered])
    with pytest.raises(MovieError, match="expected OpenCV to write"):
        write_mp4(tmp_path / "no/such/folder/demo.mp4", answers, scales, rate_hz=10.0)
