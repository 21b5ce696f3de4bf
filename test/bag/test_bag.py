"""Bags in, bags out: every frame answered, the same bytes each time, resumed after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip("rosbags")
pytest.importorskip("onnxruntime")

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ddfd_ros.bag.answers import (
    CLOUD,
    COMPRESSED,
    COMPRESSED_DEPTH,
    TOPICS,
    ZONES,
    FrameAnswers,
)
from ddfd_ros.bag.cli import main, read_parameters
from ddfd_ros.bag.source import BagSource, Camera
from ddfd_ros.core.blur_zones import zones
from ddfd_ros.core.compressed_depth import decode_compressed_depth
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.image_codec import decode, decode_depth
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.onnx_backend import OnnxBackend
from ddfd_ros.ros.parameters import NodeParameters

MODEL = "ddfd-lite-nyu-8m"
STORE = get_typestore(Stores.ROS2_JAZZY)
HEIGHT, WIDTH = 64, 96
FX = 80.0
ARGUMENTS = ["--model", MODEL, "runtime=onnxruntime", "threads=1"]


def stamp_of(number):
    return 1_700_000_000_000_000_000 + number * 33_333_333


def header(number):
    seconds, nanoseconds = divmod(stamp_of(number), 10**9)
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def picture(number):
    """Smooth random blobs: something between noise and a photograph."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3))
    return np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)


def image(number):
    return STORE.types["sensor_msgs/msg/Image"](
        header=header(number),
        height=HEIGHT,
        width=WIDTH,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * WIDTH,
        data=picture(number).ravel(),
    )


def camera_info(number):
    k = np.array([FX, 0, 47.5, 0, FX, 31.5, 0, 0, 1.0])
    p = np.array([FX, 0, 47.5, 0, 0, FX, 31.5, 0, 0, 0, 1.0, 0])
    roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, do_rectify=False)
    return STORE.types["sensor_msgs/msg/CameraInfo"](
        header=header(number),
        height=HEIGHT,
        width=WIDTH,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=p,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def write_bag(path, frames, storage=StoragePlugin.MCAP, info=True, spoil=()):
    """A bag with a camera and an unrelated topic; ``spoil``: frames that are cut short."""
    with Writer(path, version=9, storage_plugin=storage) as writer:

        def add(topic, kind):
            return writer.add_connection(topic, kind, typestore=STORE), kind

        def write(connection, time_ns, message):
            writer.write(connection[0], time_ns, STORE.serialize_cdr(message, connection[1]))

        camera = add("/cam/image_raw", "sensor_msgs/msg/Image")
        infos = add("/cam/camera_info", "sensor_msgs/msg/CameraInfo") if info else None
        text = add("/said", "std_msgs/msg/String")
        for number in range(frames):
            time_ns = stamp_of(number) + 5_000_000  # recorded a little later
            write(text, time_ns - 1, STORE.types["std_msgs/msg/String"](data=f"frame {number}"))
            message = image(number)
            if number in spoil:
                message.data = message.data[:100]
            write(camera, time_ns, message)
            if infos:
                write(infos, time_ns + 1, camera_info(number))
    return path


def read(path):
    """Messages by topic, and all (topic, time) in order."""
    messages, order = {}, []
    with AnyReader([path]) as reader:
        for connection, time_ns, raw in reader.messages():
            messages.setdefault(connection.topic, []).append(
                reader.deserialize(raw, connection.msgtype)
            )
            order.append((connection.topic, time_ns))
    return messages, order


def stamps(messages):
    return [one.header.stamp.sec * 10**9 + one.header.stamp.nanosec for one in messages]


def contents(folder):
    """Every byte of a bag; the files bear the bag's name, and their list too."""
    named = {
        path.name.replace(folder.name, "NAME"): path.read_bytes() for path in folder.iterdir()
    }
    named["metadata.yaml"] = named["metadata.yaml"].replace(folder.name.encode(), b"NAME")
    return named


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("recorded") / "ride", 7)


@pytest.fixture(scope="module")
def answered(recorded):
    target = recorded.with_name("answered")
    extra = ["--points", "--part-frames", "3", "--copy", "all", "cloud_decimation=1"]
    assert main([str(recorded), str(target), *extra, "cloud_max_edge=0.0", *ARGUMENTS]) == 0
    return target


def test_every_frame_is_answered_as_the_model_answers(answered):
    messages, _ = read(answered)
    with_topics = ("depth/image_rect", "all_in_focus/image", "uncertainty/image", CLOUD)
    for topic in (*with_topics, "depth/camera_info", "uncertainty/camera_info"):
        assert stamps(messages[f"/{topic}"]) == [stamp_of(number) for number in range(7)]
        assert {one.header.frame_id for one in messages[f"/{topic}"]} == {"camera"}
    backend = open_backend(resolve_model(MODEL), "onnxruntime", threads=1)
    try:
        for number in range(7):
            wanted = backend.infer(picture(number))
            depth_m = decode_depth(messages["/depth/image_rect"][number])
            np.testing.assert_array_equal(depth_m, wanted["depth_m"])
            sigma_m = decode_depth(messages["/uncertainty/image"][number])
            np.testing.assert_array_equal(sigma_m, wanted["sigma_m"])
            sharp = decode(messages["/all_in_focus/image"][number])
            np.testing.assert_array_equal(sharp, wanted["sharp_rgb"])
    finally:
        backend.close()


def test_the_cloud_projects_to_the_depth(answered):
    messages, _ = read(answered)
    for cloud, depth in zip(messages["/points"], messages["/depth/image_rect"], strict=True):
        depth_m = decode_depth(depth)
        x, y, z = np.frombuffer(cloud.data.tobytes(), np.float32).reshape(-1, 3).T
        assert z.size == np.isfinite(depth_m).sum()
        column = np.rint(x / z * FX + 47.5).astype(int)
        row = np.rint(y / z * FX + 31.5).astype(int)
        np.testing.assert_allclose(depth_m[row, column], z, atol=1e-3)


def test_recorded_topics_are_copied_at_their_time(recorded, answered):
    before, order_before = read(recorded)
    after, order_after = read(answered)
    assert [item for item in order_after if item[0] in before] == order_before
    assert [one.data for one in after["/said"]] == [one.data for one in before["/said"]]
    np.testing.assert_array_equal(
        [one.data for one in after["/cam/image_raw"]],
        [one.data for one in before["/cam/image_raw"]],
    )


def test_metadata_counts_what_is_there(answered):
    info = yaml.safe_load((answered / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    messages, order = read(answered)
    assert info["relative_file_paths"] == ["answered_0.mcap", "answered_1.mcap", "answered_2.mcap"]
    assert info["message_count"] == len(order)
    for item in info["topics_with_message_count"]:
        assert item["message_count"] == len(messages.get(item["topic_metadata"]["name"], ()))
    times = [time_ns for _, time_ns in order]
    assert info["starting_time"]["nanoseconds_since_epoch"] == min(times)
    assert info["duration"]["nanoseconds"] == max(times) - min(times)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_the_same_input_gives_the_same_bytes(recorded, tmp_path, storage):
    for name in ("one", "two"):
        target = tmp_path / name
        assert main([str(recorded), str(target), "--storage", storage, *ARGUMENTS]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path):
    source = write_bag(tmp_path / "ride", 60, StoragePlugin.SQLITE3)
    target = tmp_path / "killed"
    arguments = [str(source), str(target), "--part-frames", "2", *ARGUMENTS]
    process = subprocess.Popen([sys.executable, "-m", "ddfd_ros.bag.cli", *arguments])
    end = time.monotonic() + 60
    partial = tmp_path / "killed.partial"
    while not (partial / "killed_2.mcap").is_file() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.is_dir(), "it was over before it could be killed"
    assert not target.exists()
    kept = {path: path.stat().st_mtime_ns for path in partial.glob("killed_[01].mcap")}
    assert main(arguments) == 0
    assert not partial.exists()
    for path, modified in kept.items():
        assert (target / path.name).stat().st_mtime_ns == modified, "answered again"
    whole = tmp_path / "whole"
    assert main([str(source), str(whole), "--part-frames", "2", *ARGUMENTS]) == 0
    assert contents(target) == contents(whole)


def test_frames_that_cannot_be_read_are_told(tmp_path, capsys):
    source = write_bag(tmp_path / "ride", 5, spoil={1, 3})
    assert main([str(source), str(tmp_path / "out"), *ARGUMENTS]) == 1
    said = capsys.readouterr().out
    assert "ImageFormatError" in said
    messages, _ = read(tmp_path / "out")
    assert stamps(messages["/depth/image_rect"]) == [stamp_of(n) for n in (0, 2, 4)]


def test_without_camera_info_nothing_pretends_to_be_calibrated(tmp_path, capsys):
    source = write_bag(tmp_path / "ride", 2, info=False)
    assert main([str(source), str(tmp_path / "out"), "--points", *ARGUMENTS]) == 0
    messages, _ = read(tmp_path / "out")
    assert not any(one.k.any() for one in messages["/depth/camera_info"])
    assert {one.width for one in messages["/depth/camera_info"]} == {WIDTH}
    assert "/points" not in messages
    said = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "got none in the bag" in said
    assert "remap" not in said


def test_camera_info_on_another_topic_is_named_with_the_option_that_takes_it(recorded):
    with BagSource(recorded) as source:
        infos = source.camera_infos("")
        assert infos.elsewhere == ("/cam/camera_info",)
        backend = open_backend(resolve_model(ARGUMENTS[1], ".onnx"), "onnxruntime")
        answers = FrameAnswers(
            backend, NodeParameters(), (), True, "", infos, source.typestore, "/other/image_raw"
        )
        list(answers.answer(image(0)))
    said = next(text for text in answers.problems if text.startswith("camera_info"))
    assert "only on /cam/camera_info" in said
    assert "--camera-info-topic" in said
    assert "no cloud is made" in said


def test_the_answers_in_a_recording_are_not_taken_for_its_camera(answered):
    with BagSource(answered) as source:
        names = {connection.topic for connection in source.connections}
        assert {"/all_in_focus/image", "/cam/image_raw"} <= names
        assert source.camera("", "") == Camera("/cam/image_raw", "/cam/camera_info", 7)
        assert source.camera("/all_in_focus/image", "").info == "/all_in_focus/camera_info"


def test_options(recorded, answered, tmp_path):
    messages, _ = read(answered)
    middle_m = round(float(np.median(decode_depth(messages["/depth/image_rect"][0]))), 2)
    arguments = ["--heads", "depth", "--namespace", "/front", "depth_encoding=16UC1"]
    arguments += ["--image-topic", "/cam/image_raw", f"max_depth_m={middle_m}"]
    assert main([str(recorded), str(tmp_path / "out"), *arguments, *ARGUMENTS]) == 0
    messages, _ = read(tmp_path / "out")
    assert set(messages) == {"/front/depth/image_rect", "/front/depth/camera_info"}
    depths = np.stack([decode_depth(one) for one in messages["/front/depth/image_rect"]])
    assert messages["/front/depth/image_rect"][0].encoding == "16UC1"
    assert middle_m - 0.2 < np.nanmax(depths) <= middle_m


def test_zones_and_compressed_images_are_written_where_asked_for(recorded, tmp_path):
    """Though their heads are not; --heads names topics of heads."""
    arguments = ["--heads", "sigma", "--namespace", "/front", "zones_output=true"]
    arguments += ["compressed_output=true", "compressed_format=png", "dead_zone_px=1.0"]
    assert main([str(recorded), str(tmp_path / "out"), *arguments, *ARGUMENTS]) == 0
    messages, _ = read(tmp_path / "out")
    heads = {"/front/uncertainty/image", "/front/uncertainty/camera_info"}
    made = {f"/front/{topic}" for topic in (ZONES, COMPRESSED, COMPRESSED_DEPTH)}
    assert set(messages) == heads | made
    backend = open_backend(resolve_model(MODEL), "onnxruntime", threads=1)
    try:
        for number in range(7):
            wanted, contract = backend.infer(picture(number)), backend.contract
            file = messages[f"/front/{COMPRESSED}"][number]
            assert file.format == "rgb8; png compressed bgr8"
            np.testing.assert_array_equal(decode(file), wanted["sharp_rgb"])
            depth = messages[f"/front/{COMPRESSED_DEPTH}"][number]
            assert depth.format == "32FC1; compressedDepth png"
            mask = messages[f"/front/{ZONES}"][number]
            assert (mask.encoding, mask.step) == ("mono8", WIDTH)
            span_m = contract.depth_min_m, contract.depth_max_m
            zones_there = zones(wanted["depth_m"], contract.lens, 1.0, span_m)
            np.testing.assert_array_equal(mask.data.reshape(HEIGHT, WIDTH), zones_there)
            assert np.unique(zones_there).size > 1
            believed_m = np.where(zones_there & 1, np.nan, wanted["depth_m"])
            assert np.isfinite(believed_m).any()
            depth_m = decode_compressed_depth(depth)
            np.testing.assert_allclose(depth_m, believed_m, rtol=0, atol=0.0051)
            assert stamps([file, depth, mask]) == [stamp_of(number)] * 3
    finally:
        backend.close()


def test_what_a_model_without_the_head_cannot_make_is_noted():
    contract = ModelContract(
        1, "table", {}, 1, None, None, 1, ("depth_m",), 0.5, 10.0, None, {}, {}, ""
    )
    asked = NodeParameters(zones_output=True, compressed_output=True)
    backend = SimpleNamespace(contract=contract)
    answers = FrameAnswers(backend, asked, ("depth_m",), False, "", None, STORE)
    names = [topic.name for topic in answers.topics()]
    assert names[-2:] == [f"/{ZONES}", f"/{COMPRESSED_DEPTH}"]
    (problem,) = answers.problems
    assert problem.startswith("compressed_output")
    assert "no sharp_rgb" in problem


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image-topic", "/other"], "expected images on /other"),
        (["--camera-info-topic", "/other"], "expected CameraInfo on /other"),
        (["max_sigma=1"], "max_sigma"),
        (["max_sigma_m=-1"], "max_sigma_m"),
        (["min_depth_m"], "key=value"),
        (["--model", "absent"], "shipped models"),
        (["--params", "PARAMS"], "expected one node"),
        (["--params", "absent.yaml"], "got no file at absent.yaml"),
    ],
)
def test_what_cannot_be_done_is_said(recorded, tmp_path, capsys, arguments, words):
    file = tmp_path / "params.yaml"
    file.write_text("a: 1\n")
    arguments = [str(file) if one == "PARAMS" else one for one in arguments]
    out = tmp_path / "out"
    assert main([str(recorded), str(out), *ARGUMENTS, *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_head_that_is_named_twice_is_answered_once(recorded, tmp_path):
    arguments = [str(recorded), str(tmp_path / "out"), *ARGUMENTS, "--heads", "depth", "depth"]
    assert main(arguments) == 0
    with AnyReader([tmp_path / "out"]) as reader:
        assert sorted(reader.topics) == ["/depth/camera_info", "/depth/image_rect"]


def test_a_runtime_that_answers_wrongly_is_refused_as_by_the_node(
    recorded, tmp_path, capsys, monkeypatch
):
    right = OnnxBackend._infer

    def wrong(self, image, heads):
        answers = right(self, image, heads)
        return {name: value * value.dtype.type(2) for name, value in answers.items()}

    monkeypatch.setattr(OnnxBackend, "_infer", wrong)
    out = tmp_path / "out"
    assert main([str(recorded), str(out), *ARGUMENTS]) == 2
    assert "self-test: expected the contract's golden answers" in capsys.readouterr().err
    assert not out.exists()
    assert main([str(recorded), str(out), *ARGUMENTS, "self_test=false"]) == 0


def test_nothing_is_overwritten_unasked(recorded, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").touch()
    run = [str(recorded), str(out), "--heads", "depth", *ARGUMENTS]
    assert main(run) == 2
    assert main([*run, "--overwrite"]) == 2  # it is no bag
    (out / "precious").unlink()
    out.rmdir()
    assert main(run) == 0
    assert main(run) == 2
    assert main([*run, "--overwrite"]) == 0
    # The beginning of another run is not continued.
    partial = tmp_path / "out2.partial"
    partial.mkdir()
    (partial / "run.json").write_text("{}")
    run[1] = str(tmp_path / "out2")
    capsys.readouterr()
    assert main(run) == 2
    assert "another input, model or parameters" in " ".join(capsys.readouterr().err.split())
    assert main([*run, "--overwrite"]) == 0


def test_a_file_that_is_no_bag(tmp_path, capsys):
    path = tmp_path / "a.mcap"
    path.write_bytes(b"no bag")
    assert main([str(path), str(tmp_path / "out"), *ARGUMENTS]) == 2
    assert "expected a ROS 2 bag" in " ".join(capsys.readouterr().err.split())


def test_the_nodes_own_parameter_file_serves(repository):
    parameters = read_parameters("", repository / "config" / "ddfd.yaml", ["min_depth_m=1"])
    assert parameters.min_depth_m == 1.0
    assert read_parameters("", None, []).precision == "float32"
    with pytest.raises(DdfdError, match="threads"):
        read_parameters("", None, ["threads=many"])
    # PyYAML takes this for text, ROS 2 for a number.
    assert read_parameters("", None, ["max_sigma_m=5e-1"]).max_sigma_m == 0.5


def test_what_is_not_there_and_impossible_part_sizes_are_said(tmp_path, capsys):
    assert main([str(tmp_path / "absent"), str(tmp_path / "out"), *ARGUMENTS]) == 2
    assert "got nothing there" in " ".join(capsys.readouterr().err.split())
    for wrong in ("0", "many"):
        with pytest.raises(SystemExit):
            main(["ride", "out", "--part-frames", wrong])
        assert "expected a whole number from 1" in capsys.readouterr().err
    for wrong in ("bad name", "/a//b", "/1st"):
        with pytest.raises(SystemExit):
            main(["ride", "out", "--namespace", wrong])
        assert "expected names of letters" in capsys.readouterr().err


def test_a_misspelt_parameter_in_a_file_is_warned_of(repository, tmp_path):
    file, said = tmp_path / "mine.yaml", []
    file.write_text(
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    max_sigma: 0.5\n"
        "    qos_overrides./image_raw.subscription.reliability: reliable\n",
        encoding="utf-8",
    )
    assert read_parameters("", file, [], said.append).max_sigma_m == 0.0
    assert ["max_sigma," in text and "qos" not in text for text in said] == [True]
    read_parameters("", repository / "config" / "ddfd.yaml", [], said.append)
    assert len(said) == 1


def test_topics_are_the_nodes():
    outputs = pytest.importorskip("ddfd_ros.ros.outputs", exc_type=ImportError)
    assert TOPICS == outputs.TOPICS
    assert (CLOUD, ZONES, COMPRESSED) == (outputs.CLOUD, outputs.ZONES, outputs.COMPRESSED)
