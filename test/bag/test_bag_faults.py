"""Bags as they come from the field, and runs that fail: nothing is lost, mixed or left unsaid."""

from __future__ import annotations

import itertools
import resource
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import yaml

pytest.importorskip("rosbags")
pytest.importorskip("onnxruntime")

from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ddfd_ros.bag.answers import FrameAnswers
from ddfd_ros.bag.cli import main, read_parameters
from ddfd_ros.bag.writing import check_apart
from ddfd_ros.core.errors import DdfdError

STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg("float64 tension\n", "rover_msgs/msg/Winch"))
HEIGHT, WIDTH = 32, 48
IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
TF, WINCH = "tf2_msgs/msg/TFMessage", "rover_msgs/msg/Winch"
ARGUMENTS = ["--heads", "depth", "--model", "ddfd-lite-nyu-8m", "runtime=onnxruntime", "threads=1"]
CAMERA = "/cam/image_raw"
LENS = """ddfd_lens_calibration: 1
lens: {{focal_length_m: 0.015, f_number: 2.8, focus_distance_m: {}, pixel_pitch_m: 5.6e-06}}
width: 48
height: 32
pitch_known: true
shape: disk
sigma_per_diameter: 0.25
gaussian_share: 0.0
gaussian_sigma_per_diameter: 0.25
sigma_0_px: 0.0
source: shape
details: {{}}
"""


def header(number):
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=number, nanosec=0)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def image(number, seed=0, encoding="rgb8"):
    channels = {"rgb8": 3, "bgr8": 3, "mono8": 1, "bayer_rggb8": 1, "32FC1": 4}[encoding]
    rng = np.random.default_rng(number + 1000 * seed)
    coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, channels))
    data = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8).ravel()
    step = WIDTH * channels
    return STORE.types[IMAGE](header(number), HEIGHT, WIDTH, encoding, 0, step, data)


def frames(count, topic=CAMERA, **options):
    return [(topic, IMAGE, number + 1, image(number, **options)) for number in range(count)]


def qos(durability):
    none = QosTime(0, 0)
    automatic = QosLiveliness.AUTOMATIC
    reliable = QosReliability.RELIABLE
    history = QosHistory.KEEP_LAST
    return Qos(history, 1, reliable, durability, none, none, automatic, none, False)


def record(path, messages, storage="mcap", compression=CompressionMode.NONE, profiles=None):
    """A bag of (topic, type, time in seconds, message or bytes)."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(path, version=9, storage_plugin=plugin)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, kind, seconds, message in messages:
            if (topic, kind) not in connections:
                offered = (profiles or {}).get(topic, ())
                connections[topic, kind] = writer.add_connection(
                    topic, kind, typestore=STORE, offered_qos_profiles=offered
                )
            raw = message if isinstance(message, bytes) else STORE.serialize_cdr(message, kind)
            writer.write(connections[topic, kind], seconds * 10**9, raw)
    return path


def cut_short(message):
    return bytes(STORE.serialize_cdr(message, IMAGE))[:40]


def metadata(path):
    return yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]


def edit_metadata(path, change):
    content = yaml.safe_load((path / "metadata.yaml").read_text())
    change(content["rosbag2_bagfile_information"])
    (path / "metadata.yaml").write_text(yaml.safe_dump(content))


def stamps(path, topic="/depth/image_rect"):
    with AnyReader([path]) as reader:
        wanted = [one for one in reader.connections if one.topic == topic]
        return [
            reader.deserialize(raw, one.msgtype).header.stamp.sec
            for one, _, raw in (reader.messages(connections=wanted) if wanted else ())
        ]


def contents(folder):
    return {
        one.name.replace(folder.name, "NAME"): one.read_bytes().replace(
            folder.name.encode(), b"NAME"
        )
        for one in folder.iterdir()
    }


def answer(source, target, *arguments):
    return main([str(source), str(target), *arguments, *ARGUMENTS])


def said(capsys):
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).replace("│", "").split())


def interrupt_at(monkeypatch, number):
    """Ctrl-C while the frame of this number is answered; the next run is left in peace."""
    original, seen = FrameAnswers.answer, []

    def interrupted(self, message):
        seen.append(message)
        if len(seen) == number + 1:
            raise KeyboardInterrupt
        return original(self, message)

    monkeypatch.setattr(FrameAnswers, "answer", interrupted)


# What lies in the way.


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("ride", "ride"),
        ("ride", "ride/answers"),
        ("ride", "."),
        ("ride/ride.mcap", "ride"),
        ("ride", "link"),
        ("link", "ride"),
        ("link/ride.mcap", "ride"),
        ("other/../ride", "ride"),
        ("linked_file", "ride"),
        ("old.partial", "old"),
        ("old.partial/ride.mcap", "old"),
    ],
)
def test_the_recording_is_never_overwritten(tmp_path, capsys, source, target):
    record(tmp_path / "ride", frames(1))
    shutil.copytree(tmp_path / "ride", tmp_path / "old.partial")
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ride")
    (tmp_path / "linked_file").mkdir()
    for name in ("ride.mcap", "metadata.yaml"):
        (tmp_path / "linked_file" / name).symlink_to(tmp_path / "ride" / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert answer(tmp_path / source, tmp_path / target, "--overwrite") == 2
    assert "apart from the recording" in said(capsys)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_neighbours_are_apart(tmp_path):
    source = record(tmp_path / "ride", frames(1))
    for target in ("ride2", "rid", "new/ride"):
        check_apart(source, tmp_path / target)
        check_apart(source / "ride.mcap", tmp_path / target)
    check_apart(tmp_path / "missing", tmp_path / "out")


def test_only_a_bag_is_overwritten(tmp_path, capsys):
    source = record(tmp_path / "ride", frames(1))
    target = record(tmp_path / "out", frames(1))
    (target / "photograph.jpg").touch()
    assert answer(source, target, "--overwrite") == 2
    assert "photograph.jpg" in said(capsys)
    assert (target / "photograph.jpg").is_file()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert answer(source, tmp_path / "dangling") == 2
    (tmp_path / "file").touch()
    assert answer(source, tmp_path / "file" / "out") == 2
    assert answer(source, "/") == 2


def test_the_old_bag_stays_until_the_new_one_is_complete(tmp_path, monkeypatch):
    source = record(tmp_path / "ride", frames(4))
    target = record(tmp_path / "out", frames(1, topic="/precious"))
    interrupt_at(monkeypatch, 2)
    arguments = ("--overwrite", "--part-frames", "1")
    assert answer(source, target, *arguments) == 130
    assert stamps(target, "/precious") == [0]
    first = tmp_path / "out.partial" / "out_0.mcap"
    written = first.stat().st_mtime_ns
    assert answer(source, target, *arguments) == 0
    assert stamps(target) == [0, 1, 2, 3]
    assert (target / "out_0.mcap").stat().st_mtime_ns == written, "answered again"


def test_two_runs_do_not_write_one_bag(tmp_path, capsys, monkeypatch):
    source = record(tmp_path / "ride", frames(2))
    original, codes = FrameAnswers.answer, []

    def meanwhile(self, message):
        monkeypatch.setattr(FrameAnswers, "answer", original)
        codes.append(answer(source, tmp_path / "out"))
        return original(self, message)

    monkeypatch.setattr(FrameAnswers, "answer", meanwhile)
    assert answer(source, tmp_path / "out") == 0
    assert codes == [2]
    assert "no other run" in said(capsys)


# Recordings with faults.


def test_damaged_messages_are_told_and_passed_over(tmp_path, capsys, monkeypatch):
    messages = frames(5)
    messages[1] = (CAMERA, IMAGE, 2, cut_short(image(1)))
    messages += [("/cam/camera_info", INFO, 1, cut_short(image(0)))]
    source = record(tmp_path / "ride", messages)
    interrupt_at(monkeypatch, 2)  # counts what could be read: the fourth frame
    arguments = ("--part-frames", "1")
    assert answer(source, tmp_path / "out", *arguments) == 130
    assert (tmp_path / "out.partial" / "out_2.mcap").is_file()
    assert answer(source, tmp_path / "out", *arguments) == 1
    text = said(capsys)
    assert "1: AnyReaderError" in text
    assert "1 times: damaged messages on /cam/camera_info" in text
    assert stamps(tmp_path / "out") == [0, 2, 3, 4]
    assert answer(source, tmp_path / "whole", *arguments) == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_of_many_reasons_the_first_are_printed(tmp_path, capsys):
    source = record(
        tmp_path / "ride",
        [
            (CAMERA, IMAGE, n + 1, bytes(STORE.serialize_cdr(image(n), IMAGE))[: 40 + n])
            for n in range(30)
        ],
    )
    assert answer(source, tmp_path / "out[/b]") == 1  # brackets are no style
    text = said(capsys)
    assert "out[/b]" in text
    assert "other reasons" in text
    assert text.count("not answered") == 9


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_damaged_file_is_told(tmp_path, capsys, storage):
    source = record(tmp_path / "ride", frames(40), storage)
    (file,) = (one for one in source.iterdir() if one.suffix != ".yaml")
    data = bytearray(file.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    file.write_bytes(data)
    assert answer(source, tmp_path / "out") in (1, 2)
    assert "got" in said(capsys)


def test_files_without_metadata_are_taken_together(tmp_path):
    source = record(tmp_path / "ride", frames(2))
    later = [(topic, kind, seconds + 9, message) for topic, kind, seconds, message in frames(3)]
    second = record(tmp_path / "second", later)
    shutil.copy(second / "second.mcap", source / "ride_10.mcap")
    (source / "metadata.yaml").unlink()
    assert answer(source, tmp_path / "out") == 0
    assert stamps(tmp_path / "out") == [0, 1, 0, 1, 2]


def test_a_recording_that_was_cut_short_is_refused_with_advice(tmp_path, capsys):
    source = record(tmp_path / "ride", frames(3))
    (source / "metadata.yaml").unlink()
    file = source / "ride.mcap"
    file.write_bytes(file.read_bytes()[:-3000])
    assert answer(source, tmp_path / "out") == 2
    assert "mcap recover" in said(capsys)
    (tmp_path / "empty").mkdir()
    assert answer(tmp_path / "empty", tmp_path / "out") == 2
    assert "expected a ROS 2 bag" in said(capsys)


def test_messages_in_a_write_ahead_log_are_not_passed_over(tmp_path, capsys):
    source = record(tmp_path / "ride", frames(3), "sqlite3")
    database = sqlite3.connect(source / "ride.db3")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("DELETE FROM messages WHERE id = 1")
    database.commit()
    shutil.copytree(source, tmp_path / "killed")
    database.close()
    assert answer(tmp_path / "killed", tmp_path / "out") == 2
    assert "wal_checkpoint" in said(capsys)


def test_metadata_that_promises_more_than_there_is(tmp_path, capsys):
    source = record(tmp_path / "ride", frames(3))

    def more(info):
        info["topics_with_message_count"][0]["message_count"] = 5

    edit_metadata(source, more)
    assert answer(source, tmp_path / "out") == 1
    assert "2: metadata.yaml promises them" in said(capsys)

    def other_qos(info):
        info["topics_with_message_count"][0]["topic_metadata"]["offered_qos_profiles"] = [
            {
                "history": "keep_last", "depth": 3, "reliability": "reliable",
                "durability": "volatile", "deadline": {"sec": 0, "nsec": 0},
                "lifespan": {"sec": 0, "nsec": 0}, "liveliness": "automatic",
                "liveliness_lease_duration": {"sec": 0, "nsec": 0},
                "avoid_ros_namespace_conventions": False,
            }
        ]  # fmt: skip

    edit_metadata(source, other_qos)  # the reader then finds no message of the topic
    assert answer(source, tmp_path / "none") == 2
    assert "expected messages to write" in said(capsys)
    assert not (tmp_path / "none.partial").exists()


def test_topics_without_images(tmp_path, capsys):
    text = STORE.types["std_msgs/msg/String"](data="words")
    messages = [("/said", "std_msgs/msg/String", 1, text)]
    source = record(tmp_path / "ride", messages)
    assert answer(source, tmp_path / "out") == 2
    assert "expected images on some topic, got the topics /said (1 std_msgs" in said(capsys)
    assert answer(record(tmp_path / "empty", []), tmp_path / "out") == 2
    assert "got the topics none" in said(capsys)


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        *itertools.product(("mcap", "sqlite3"), (CompressionMode.MESSAGE, CompressionMode.FILE)),
        ("mcap", CompressionMode.STORAGE),
    ],
)
def test_compressed_bags(tmp_path, storage, compression):
    source = record(tmp_path / "ride", frames(2), storage, compression)
    assert answer(source, tmp_path / "out") == 0
    assert stamps(tmp_path / "out") == [0, 1]


def test_cameras_encodings_and_jumps_of_time(tmp_path, capsys):
    left = [frames(5, topic="/left/image_raw", encoding=one)[i] for i, one in enumerate(
        ("rgb8", "bayer_rggb8", "mono8", "bgr8", "32FC1"))]  # fmt: skip
    other = [
        ("/left/image_raw", "std_msgs/msg/String", 9, STORE.types["std_msgs/msg/String"](data=""))
    ]
    back = [("/left/image_raw", IMAGE, 1, image(0))]  # recorded after the others, stamped before
    source = record(
        tmp_path / "ride.bag", frames(2, topic="/right/image_raw") + left + other + back
    )
    assert answer(source, tmp_path / "out", "--part-frames", "2", "--namespace", "front/") == 1
    assert "1: ImageFormatError" in said(capsys)
    assert sorted(stamps(tmp_path / "out", "/front/depth/image_rect")) == [0, 0, 1, 2, 3]


# What is copied.


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("into", ["mcap", "sqlite3"])
def test_quality_of_service_is_copied(tmp_path, storage, into):
    static = ("/tf_static", TF, 1, STORE.types[TF](transforms=[]))
    latched, volatile = qos(QosDurability.TRANSIENT_LOCAL), qos(QosDurability.VOLATILE)
    profiles = {"/tf_static": [latched, volatile]}
    source = record(tmp_path / "ride", [static, *frames(1)], storage, profiles=profiles)
    (file,) = (one for one in source.iterdir() if one.suffix != ".yaml")
    for start in (source, file):  # a file without its folder, too
        target = tmp_path / f"out_{start.name}"
        assert answer(start, target, "--copy", "all", "--storage", into) == 0
        for written in (target, next(one for one in target.iterdir() if one.suffix != ".yaml")):
            with AnyReader([written]) as reader:
                found = {one.topic: one.ext.offered_qos_profiles for one in reader.connections}
            assert found["/tf_static"] == [latched, volatile]
            assert found["/depth/image_rect"] == []


def test_types_of_ones_own_are_copied_from_bags_without_hashes(tmp_path, capsys):
    winch = ("/winch", WINCH, 1, STORE.types[WINCH](tension=2.5))
    source = record(tmp_path / "ride", [winch, *frames(1)])
    target = tmp_path / "out"
    assert answer(source / "ride.mcap", target, "--copy", "all") == 0
    with AnyReader([target]) as reader:
        wanted = [one for one in reader.connections if one.topic == "/winch"]
        ((one, _, raw),) = reader.messages(connections=wanted)
        assert reader.deserialize(raw, one.msgtype).tension == 2.5
    # ROS 2 Humble writes sqlite3 without any definitions.
    old = record(tmp_path / "old", [winch, *frames(1)], "sqlite3")
    with sqlite3.connect(old / "old.db3") as database:
        database.executescript(
            "DELETE FROM message_definitions; UPDATE topics SET type_description_hash = ''"
        )

    def without(info):
        for one in info["topics_with_message_count"]:
            del one["topic_metadata"]["type_description_hash"]

    edit_metadata(old, without)
    assert answer(old, tmp_path / "old_out", "--copy", "all") == 0
    assert "/winch: not copied, the bag does not define rover_msgs/msg/Winch" in said(capsys)
    assert stamps(tmp_path / "old_out", CAMERA) == [0]


def test_a_topic_of_two_types_is_not_copied_wrongly(tmp_path, capsys):
    text = ("/mixed", "std_msgs/msg/String", 1, STORE.types["std_msgs/msg/String"](data="words"))
    winch = ("/mixed", WINCH, 1, STORE.types[WINCH](tension=2.5))
    source = record(tmp_path / "ride", [text, winch, *frames(1)])
    assert answer(source, tmp_path / "out", "--copy", "all") == 2
    assert "expected one type on /mixed" in said(capsys)
    assert answer(source, tmp_path / "out", "--copy", "camera") == 0


# What a run may go on with.


def test_another_calibration_is_not_mixed_in(tmp_path, capsys, monkeypatch):
    source, lens = record(tmp_path / "ride", frames(3)), tmp_path / "lens.yaml"
    lens.write_text(LENS.format(2.0))
    arguments = ("--part-frames", "1", f"lens_calibration={lens}")
    interrupt_at(monkeypatch, 2)
    assert answer(source, tmp_path / "out", *arguments) == 130
    lens.write_text(LENS.format(4.0))
    assert answer(source, tmp_path / "out", *arguments) == 2
    assert "another input, model or parameters" in said(capsys)
    lens.write_text(LENS.format(2.0))
    assert answer(source, tmp_path / "out", *arguments) == 0

    original = FrameAnswers.answer

    def change(self, message):
        lens.write_text(LENS.format(5.0))
        return original(self, message)

    monkeypatch.setattr(FrameAnswers, "answer", change)
    assert answer(source, tmp_path / "changing", *arguments) == 2
    assert "expected the calibration to stay" in said(capsys)


def test_another_recording_or_model_is_not_mixed_in(tmp_path, capsys, monkeypatch, repository):
    source, model = record(tmp_path / "ride", frames(3)), tmp_path / "model.onnx"
    shutil.copy(repository / "models" / "ddfd-lite-nyu-8m.onnx", model)
    run = [
        str(source),
        str(tmp_path / "out"),
        "--part-frames",
        "1",
        *ARGUMENTS,
        "--model",
        str(model),
    ]
    interrupt_at(monkeypatch, 2)
    assert main(run) == 130
    shutil.move(source, tmp_path / "first")
    record(source, frames(3, seed=1))  # as many messages, of the same sizes and times
    assert main(run) == 2
    assert "another input" in said(capsys)
    shutil.rmtree(source)
    shutil.move(tmp_path / "first", source)
    shutil.copy(repository / "models" / "ddfd-lite-dslr.onnx", model)
    assert main(run) == 2


def test_a_run_that_was_stopped_before_its_first_part_goes_on(tmp_path):
    source = record(tmp_path / "ride", frames(1))
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "run.json.new").write_text("{")
    assert answer(source, tmp_path / "out") == 0


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path, storage):
    source = record(tmp_path / "ride", frames(4))
    arguments = [str(source), str(tmp_path / "out"), *ARGUMENTS, "--storage", storage]
    code = f"import sys; from ddfd_ros.bag.cli import main; sys.exit(main({arguments!r}))"

    def little_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    ended = subprocess.run(
        [sys.executable, "-B", "-c", code], preexec_fn=little_space, capture_output=True, text=True
    )
    assert ended.returncode == 2, ended.stderr
    assert "free the disk" in " ".join(ended.stderr.split())
    assert not (tmp_path / "out.partial" / "part").exists()
    assert main(arguments) == 0
    assert stamps(tmp_path / "out") == [0, 1, 2, 3]


# What is not YAML.


def test_values_that_are_not_yaml(tmp_path):
    with pytest.raises(DdfdError, match="parameter max_sigma_m: expected a value"):
        read_parameters("", None, ["max_sigma_m=["])
    file = tmp_path / "params.yaml"
    file.write_text("ddfd: [")
    with pytest.raises(DdfdError, match="params.yaml: expected a value"):
        read_parameters("", file, [])
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DdfdError, match="params.yaml: expected YAML"):
        read_parameters("", file, [])
    with pytest.raises(DdfdError, match="max_sigma_m"):
        read_parameters("", None, ["max_sigma_m="])
