"""Inputs: each is recognised and read as it is; what cannot be played is refused with a remedy."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_demo.errors import InputError
from ddfd_demo.prepare import prepare
from ddfd_demo.sources import detect_kind, open_source
from ddfd_demo.sources.base import Intrinsics, spread
from ddfd_demo.sources.files import read_image_rgb
from ddfd_demo.spool import Spool

pytest.importorskip("rosbags")


def test_picture_comes_as_it_is(tmp_path, make):
    make.image(tmp_path / "one.png", make.pattern())
    source = open_source(str(tmp_path / "one.png"))
    frames = list(source.frames())
    assert (source.info.kind, source.info.pacing, len(frames)) == ("image", "wait", 1)
    np.testing.assert_array_equal(frames[0].image_rgb, make.pattern())


def test_folder_of_pictures_is_spread_evenly(tmp_path, make):
    for index in range(9):
        make.image(tmp_path / f"{index}.png", make.pattern(shift=index))
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(str(tmp_path), max_frames=3)
    assert source.info.kind == "folder"
    assert [int(f.image_rgb[0, 0, 2]) for f in source.frames()] == [0, 4, 8]
    assert any("3 of 9" in note for note in source.info.notes)


def test_video_keeps_rate_order_and_limit(tmp_path, make):
    make.video(tmp_path / "clip.mp4", count=6, rate_hz=12.0)
    source = open_source(str(tmp_path / "clip.mp4"), max_frames=4)
    frames = list(source.frames())
    assert (source.info.kind, source.info.pacing) == ("video", "stream")
    assert source.info.rate_hz == pytest.approx(12.0)
    blue = [float(f.image_rgb[..., 2].mean()) for f in frames]
    assert len(frames) == 4
    assert blue == pytest.approx([0, 40, 80, 120], abs=12)  # lossy, but in order
    assert [f.time_s for f in frames] == pytest.approx([0, 1 / 12, 2 / 12, 3 / 12])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True])
def test_bag_gives_colour_images_times_and_calibration(tmp_path, make, storage, compressed):
    images = [make.pattern(shift=10 * i) for i in range(5)]
    make.bag(tmp_path / "bag", images, storage=storage, compressed=compressed, rate_hz=20.0)
    source = open_source(str(tmp_path / "bag"), max_frames=4)
    frames = list(source.frames())
    assert source.info.kind == "bag"
    assert source.info.rate_hz == pytest.approx(20.0)
    assert "/camera/depth/image_raw" in " ".join(source.info.notes)
    for frame, image in zip(frames, images[:4], strict=True):
        np.testing.assert_array_equal(frame.image_rgb, image)
    assert [f.time_s for f in frames] == pytest.approx([0, 0.05, 0.1, 0.15])
    assert frames[0].intrinsics == Intrinsics(70.0, 71.0, 31.5, 23.5)


@pytest.mark.parametrize(("storage", "pattern"), [("mcap", "*.mcap"), ("sqlite3", "*.db3")])
def test_single_bag_file(tmp_path, make, storage, pattern):
    make.bag(tmp_path / "bag", [make.pattern()], storage=storage)
    file = next((tmp_path / "bag").glob(pattern))
    (frame,) = open_source(str(file)).frames()
    np.testing.assert_array_equal(frame.image_rgb, make.pattern())


def test_a_field_tests_own_answers_are_not_played(tmp_path, make):
    """Though there are more of them, and first by name."""
    make.bag(tmp_path / "bag", [make.pattern()], beside="/all_in_focus/image", lasts_s=1.0)
    source = open_source(str(tmp_path / "bag"))
    (frame,) = source.frames()
    np.testing.assert_array_equal(frame.image_rgb, make.pattern())
    assert "other image topics in the bag: /all_in_focus/image" in source.info.notes


def test_the_rate_of_a_bag_is_that_of_its_images(tmp_path, make):
    """Other topics may have been recorded for longer."""
    make.bag(tmp_path / "bag", [make.pattern()] * 20, rate_hz=10.0, lasts_s=60.0)
    assert open_source(str(tmp_path / "bag")).info.rate_hz == pytest.approx(10.0)
    assert open_source(str(tmp_path / "bag"), max_frames=1).info.rate_hz == pytest.approx(10.0)


def test_a_slow_topic_is_said_to_be_slow(tmp_path, make):
    make.bag(tmp_path / "bag", [make.pattern()] * 3, rate_hz=0.2)
    assert open_source(str(tmp_path / "bag")).info.rate_hz == pytest.approx(0.2)


def test_another_cameras_camera_info_is_not_taken(tmp_path, make):
    make.bag(tmp_path / "bag", [make.pattern()], info_topic="/rear/camera_info")
    source = open_source(str(tmp_path / "bag"))
    (frame,) = source.frames()
    assert frame.intrinsics is None
    assert "no camera_info of this topic: intrinsics of a 60 degree" in " ".join(source.info.notes)


def test_a_camera_info_of_another_size_is_scaled_or_refused(tmp_path, make):
    make.bag(tmp_path / "same", [make.pattern(96, 128)], info_size=(48, 64))
    source = open_source(str(tmp_path / "same"))
    (frame,) = source.frames()
    assert frame.intrinsics == Intrinsics(140.0, 142.0, 63.5, 47.5)
    assert "resized by 2" in source.remarks()[0]
    make.bag(tmp_path / "other", [make.pattern(96, 96)], info_size=(48, 64))
    source = open_source(str(tmp_path / "other"))
    (frame,) = source.frames()
    assert frame.intrinsics is None
    (said,) = source.remarks()
    assert "expected the image's size 96x96, got 64x48" in said
    assert said.endswith("intrinsics of a 60 degree camera assumed")


@pytest.mark.parametrize("compressed", [False, True])
def test_an_image_that_cannot_be_decoded_is_left_out_and_counted(tmp_path, make, compressed):
    images = [make.pattern(shift=10 * i) for i in range(6)]
    make.bag(tmp_path / "bag", images, compressed=compressed, damaged=(0, 3))
    source = open_source(str(tmp_path / "bag"))
    prepared = prepare(source, Spool(tmp_path / "spool"), None)
    spooled = Spool(tmp_path / "spool").frames()
    assert [int(f.image_rgb()[0, 0, 2]) for f in spooled] == [10, 20, 40, 50]
    assert [f.time_s for f in spooled] == pytest.approx([0, 0.05, 0.15, 0.2])
    (said,) = prepared.notes
    assert "2 of 6 images could not be decoded: ImageFormatError" in said


def test_a_bag_without_any_decodable_image_is_refused_with_the_reason(tmp_path, make):
    make.bag(tmp_path / "bag", [make.pattern()] * 2, damaged=(0, 1))
    with pytest.raises(InputError, match=r"bag: .*/camera/image_raw, got 2 .*ImageFormatError"):
        list(open_source(str(tmp_path / "bag")).frames())


def test_a_damaged_recording_is_refused_with_its_path(tmp_path, make):
    make.bag(tmp_path / "bag", [make.pattern(480, 640)] * 3, storage="sqlite3")
    file = next((tmp_path / "bag").glob("*.db3"))
    content = bytearray(file.read_bytes())
    content[500_000:1_500_000] = bytes(1_000_000)
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"bag: expected messages .*damaged recording"):
        list(open_source(str(tmp_path / "bag")).frames())


def test_messages_in_a_write_ahead_log_are_not_passed_over(tmp_path, make):
    make.bag(tmp_path / "bag", [make.pattern()], storage="sqlite3")
    file = next((tmp_path / "bag").glob("*.db3"))
    file.with_name(file.name + "-wal").write_bytes(b"messages")
    for path in (tmp_path / "bag", file):
        with pytest.raises(InputError, match="expected a recording that was closed"):
            open_source(str(path))


def test_a_recording_that_was_cut_short_is_refused_with_advice(tmp_path, make):
    make.bag(tmp_path / "bag", [make.pattern()])
    file = next((tmp_path / "bag").glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="`mcap recover` on the last file of a recording"):
        open_source(str(tmp_path / "bag"))


def test_bag_without_images_names_its_topics(tmp_path, make):
    make.bag(tmp_path / "bag", [])
    with pytest.raises(InputError, match=r"Image or CompressedImage.*/camera/image_raw"):
        open_source(str(tmp_path / "bag"))


def test_bag_topic_must_exist(tmp_path, make):
    make.bag(tmp_path / "bag", [make.pattern()])
    with pytest.raises(InputError, match=r"/front.*got the topics /camera/camera_info"):
        open_source(str(tmp_path / "bag"), topic="/front")


def test_rgbd_recording_has_truth_and_waits_for_the_lens(tmp_path, make):
    make.rgbd(tmp_path)
    source = open_source(str(tmp_path))
    frame = next(source.frames())
    assert (source.info.kind, source.info.pacing, len(source)) == ("rgbd", "stream", 3)
    assert frame.image_rgb is None  # sharp: to be photographed by the optics simulator
    assert frame.intrinsics == Intrinsics(60.0, 61.0, 31.5, 23.5)
    assert frame.depth_m[0, 0] == pytest.approx(1.0)
    assert np.isnan(frame.depth_m[11, 11])


def test_rgbd_natural_is_fed_as_it_is(tmp_path, make):
    make.rgbd(tmp_path, recording=False)
    source = open_source(str(tmp_path), natural=True)
    frame = next(source.frames())
    assert source.info.pacing == "wait"
    np.testing.assert_array_equal(frame.image_rgb, make.pattern())
    assert frame.sharp_rgb is None


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        (("rgb/", "depth/", "test.txt"), "nyuv2"),
        (("rgb/", "depth/"), "rgbd"),
        (("dfd_dataset_indoor_N2_8/", "dfd_dataset_indoor_N8/"), "dfd_dslr"),
        (("dfd_n28/", "dfd_n8/"), "dfd_outdoor"),
        (("metadata.yaml",), "bag"),
        (("a.jpg",), "folder"),
    ],
)
def test_folders_are_recognised_by_layout(tmp_path, layout, kind):
    for name in layout:
        path = tmp_path / name
        path.mkdir() if name.endswith("/") else path.touch()
    assert detect_kind(str(tmp_path)) == kind


@pytest.mark.parametrize("name", ["dfd_dataset_indoor_N2_8", "dfd_n28"])
def test_sub_folders_of_the_dslr_sets(tmp_path, name):
    (tmp_path / name).mkdir()
    kind = "dfd_dslr" if "indoor" in name else "dfd_outdoor"
    assert detect_kind(str(tmp_path / name)) == kind


@pytest.mark.parametrize("text", ["0", "/dev/video7"])
def test_cameras_are_recognised(text):
    assert detect_kind(text) == "camera"


def test_absent_camera_says_what_to_check():
    with pytest.raises(InputError, match="is it plugged in"):
        open_source("/dev/video63")


def _broken_video(path):
    path.with_suffix(".mp4").write_bytes(b"not a video")
    return path.with_suffix(".mp4")


def _broken_picture(path):
    path.with_suffix(".png").write_bytes(b"\x89PNG and nothing more")
    return path.with_suffix(".png")


def _broken_bag(path):
    path.with_suffix(".mcap").write_bytes(b"no bag")
    return path.with_suffix(".mcap")


def _text_file(path):
    path.with_suffix(".txt").write_text("hello")
    return path.with_suffix(".txt")


def _empty_folder(path):
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path, "does not exist"),
        (_empty_folder, "nothing in it"),
        (_text_file, "'.txt'"),
        (_broken_video, "convert it with"),
        (_broken_picture, "is the file complete"),
        (_broken_bag, "ros2 bag reindex"),
    ],
)
def test_what_cannot_be_played_is_refused_in_words(tmp_path, spoil, says):
    path = spoil(tmp_path / "input")
    with pytest.raises(InputError, match="expected .*got") as caught:
        list(open_source(str(path)).frames())
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_folder_gives_its_files_only(tmp_path, make):
    """A link to nothing and a folder are no pictures, whatever they are called."""
    make.image(tmp_path / "b.png", make.pattern())
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "c.jpg").mkdir()
    assert [frame.name for frame in open_source(str(tmp_path)).frames()] == ["b.png"]


def test_a_picture_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: expected a picture.*No such file"):
        read_image_rgb(tmp_path / "gone.png")


def test_spread_takes_first_last_and_equal_steps():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(5, 1) == [0]
