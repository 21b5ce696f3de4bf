"""The disk runs full: while answers are recorded, and under the running node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

MIB = 1 << 20
FRAMES = 12


class Disk:
    """A small file system of its own."""

    def __init__(self, folder, size_mib):
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs")

    def _mount(self, *how):
        command = ["mount", *how, str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def grow(self, size_mib):
        self._mount("-o", f"remount,size={size_mib}m")

    def fill(self):
        """Leave not a byte."""
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    def close(self):
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    try:
        made = Disk(tmp_path / "disk", 5)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root and CAP_SYS_ADMIN")
    yield made
    made.close()


def _write_bag(path, tools):
    """A bag of images; their stamps."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kinds = store.types
    stamps = [10**18 + i * 33_333_333 for i in range(FRAMES)]
    with rosbag2.Writer(path, version=8) as writer:
        kind = "sensor_msgs/msg/Image"
        connection = writer.add_connection("/camera/image_raw", kind, typestore=store)
        for index, stamp in enumerate(stamps):
            time = kinds["builtin_interfaces/msg/Time"](*divmod(stamp, 10**9))
            header = kinds["std_msgs/msg/Header"](stamp=time, frame_id="camera")
            rgb = tools.picture(240, 320, seed=index)
            message = kinds[kind](header, 240, 320, "rgb8", 0, 960, rgb.ravel())
            writer.write(connection, stamp, store.serialize_cdr(message, kind))
    return stamps


def _read_bag(path):
    """By topic, the stamps of its messages."""
    from rosbags.highlevel import AnyReader

    found = {}
    with AnyReader([path]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            stamp = message.header.stamp
            found.setdefault(connection.topic, []).append(stamp.sec * 10**9 + stamp.nanosec)
    return found


def _ddfd_bag(source, target, model):
    command = [sys.executable, "-m", "ddfd_ros.bag.cli", str(source), str(target)]
    command += ["--model", str(model), "--part-frames", "4", "runtime=onnxruntime", "threads=1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_disk_is_full_while_answers_are_recorded(disk, tmp_path, tools):
    """The run ends with the reason, keeps what is whole, and goes on once there is room."""
    stamps = _write_bag(tmp_path / "recorded", tools)
    model = tools.write_model(tmp_path / "tiny.onnx")
    target = disk.folder / "answered"

    full = _ddfd_bag(tmp_path / "recorded", target, model)
    said = " ".join((full.stdout + full.stderr).split())
    assert full.returncode == 2, said
    assert "No space left on device" in said
    assert "free the disk" in said
    assert "Traceback" not in said
    assert not target.exists()  # nothing that looks like a whole bag

    disk.grow(64)
    done = _ddfd_bag(tmp_path / "recorded", target, model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by an earlier run" in done.stdout
    found = _read_bag(target)
    assert found["/depth/image_rect"] == stamps
    for topic, got in found.items():
        assert Counter(got) == Counter(stamps), topic
    assert not list(disk.folder.glob("*.partial"))


def test_the_node_goes_on_when_its_log_has_no_room(disk, stage, tools, monkeypatch):
    """Its log lies on the full disk; depth is what it is there for."""
    disk.fill()
    monkeypatch.setenv("ROS_LOG_DIR", str(disk.folder / "log"))
    with contextlib.suppress(OSError):
        (disk.folder / "log").mkdir()
    assert os.statvfs(disk.folder).f_bavail == 0
    node = stage.start()
    peer = stage.peer
    peer.wait_for_camera()
    peer.listen("depth")
    bad = tools.image_message(tools.picture())
    bad.step = 1
    for seed in range(5):
        peer.send(bad)  # makes the node write to its log
        peer.spin_for(0.05)
        rgb = tools.picture(seed=seed)
        depth = peer.answer("depth", peer.send(tools.image_message(rgb)))
        got = np.frombuffer(depth.data, np.float32).reshape(48, 64)
        np.testing.assert_allclose(got, tools.reference(rgb)["depth_m"], rtol=1e-6)
    assert peer.report(in_flight="0")["answered"] == "5"
    status, _ = node.stop()
    assert status == 0


def test_the_summary_of_a_field_test_outlives_a_full_disk(disk, stage):
    """The recording beside it fills the disk; whole summaries before and after."""
    stage.start()
    output = disk.folder / "summary.json"
    environ = os.environ | {"ROS_DOMAIN_ID": str(stage.domain_id)}
    command = [sys.executable, "-m", "ddfd_ros.ros.field_summary", "--output", str(output)]
    log = stage.folder / "summary.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environ, stdout=file, stderr=file)
    try:
        assert stage.peer.spin_until(output.is_file)
        first = json.loads(output.read_text())
        disk.fill()
        assert stage.peer.spin_until(lambda: "cannot be renewed" in log.read_text())
        assert process.poll() is None
        assert json.loads(output.read_text())["started"] == first["started"]  # whole, not cut
        (disk.folder / "ballast").unlink()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert json.loads(output.read_text()) != first
    assert sorted(path.name for path in disk.folder.iterdir()) == ["summary.json"]
