"""The whole chain over real DDS, with the real node and a model whose answer is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddfd_demo import chain
from ddfd_demo.commands import ChainOptions
from ddfd_demo.errors import ChainError
from ddfd_demo.sources.base import DemoFrame
from ddfd_demo.spool import Spool
from ddfd_demo.video import count_frames

pytest.importorskip("rclpy")

ROOT = Path(__file__).resolve().parents[2]


def demo_command(*arguments):
    return [sys.executable, "-m", "ddfd_demo", "--runtime", "onnxruntime", *map(str, arguments)]


def demo_environment():
    paths = [str(ROOT / name) for name in (".", "training", "trt", "demo")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "140"}


def run_demo(*arguments):
    return subprocess.run(
        demo_command(*arguments),
        env=demo_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def processes_of(pid):
    """Command lines of the processes that a demo with this process id has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"/ddfd_demo_{pid}" in line:
            found.append(line)
    return found


def test_every_frame_of_a_stream_is_answered_or_counted(tmp_path, make, known_model):
    make.rgbd(tmp_path / "set", count=6)
    out = tmp_path / "out"
    run = run_demo(
        "--input", tmp_path / "set", "--model", known_model, "--out", out, "--keep-frames"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((out / "demo.json").read_text())
    frames = result["frames"]
    gone = sum(frames["dropped"].values()) + frames["lost_to_node"] + frames["lost_from_node"]
    assert frames["sent"] == 6 == frames["answered"] + gone
    assert frames["answered"] >= 1
    assert frames["unaccounted"] == 0
    assert cv2.imread(str(out / "demo.png")) is not None
    assert count_frames(out / "demo.mp4") == 6
    for text in ("subscription to publication", "answered per second", "rms (m)", "sent"):
        assert text in run.stdout
    _check_answers(out / "frames")


def _check_answers(folder):
    """What came back over DDS is the model's arithmetic on what was sent, pixel by pixel."""
    sent = [json.loads(line) for line in (folder / "sent.jsonl").read_text().splitlines()]
    stamps = {line["stamp_ns"]: line["index"] for line in sent if "stamp_ns" in line}
    checked = 0
    for stamp, index in stamps.items():
        path = folder / f"{stamp}.depth.npy"
        if not path.is_file():
            continue
        image = np.load(folder / f"{index:06d}.image.npy")
        expected = 1 + image[..., 1].astype(np.float64) / 100
        np.testing.assert_allclose(np.load(path), expected, rtol=1e-5)
        np.testing.assert_array_equal(np.load(folder / f"{stamp}.sharp.npy"), image)
        np.testing.assert_allclose(
            np.load(folder / f"{stamp}.sigma.npy"), 0.05 * expected, rtol=1e-5
        )
        checked += 1
    assert checked >= 1


def test_photographs_wait_for_their_answers(tmp_path, make, known_model):
    for index in range(3):
        make.image(tmp_path / f"set/{index}.png", make.pattern(64 + 16 * index, 96, index))
    out = tmp_path / "out"
    run = run_demo("--input", tmp_path / "set", "--model", known_model, "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((out / "demo.json").read_text())
    assert result["frames"]["answered"] == 3
    assert "the next one is sent when the last one is answered" in result["pacing"]
    assert not (out / "frames").exists()


def test_wrong_input_ends_with_one_message(tmp_path, known_model):
    run = run_demo("--input", tmp_path / "none.mp4", "--model", known_model, "--out", tmp_path)
    assert run.returncode == 1
    assert "does not exist" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


@pytest.fixture
def one_frame(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.add(DemoFrame("x", np.zeros((48, 64, 3), np.uint8)))
    return spool.folder


def test_a_node_that_dies_is_reported_with_its_log(tmp_path, one_frame, known_model, monkeypatch):
    dying = [sys.executable, "-c", "print('no more memory'); raise SystemExit(3)"]
    monkeypatch.setattr(chain, "node_command", lambda options: dying)
    with pytest.raises(ChainError, match=r"(?s)exit code 3.*no more memory"):
        chain.run_chain(one_frame, ChainOptions(known_model), tmp_path / "logs")


def test_a_node_that_cannot_start_is_reported_with_its_reason(tmp_path, one_frame):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    options = ChainOptions(broken, start_timeout_s=30.0)
    with pytest.raises(ChainError, match=r"configure itself.*broken\.onnx"):
        chain.run_chain(one_frame, options, tmp_path / "logs")


def test_camera_frames_are_played_and_kept(tmp_path, make, known_model):
    """OpenCV opens a video where a device's name is expected: a camera without a camera."""
    make.video(tmp_path / "clip.mp4", count=8)
    folder = Spool(tmp_path / "spool").folder
    options = ChainOptions(
        known_model,
        runtime="onnxruntime",
        camera=str(tmp_path / "clip.mp4"),
        total=5,
        silence_s=20,
    )
    record = chain.run_chain(folder, options, tmp_path / "logs")
    frames = Spool(folder).frames()
    assert sorted(record.sent.values()) == [0, 1, 2, 3, 4] == [f.index for f in frames]
    # The clip's blue rises by 40 from frame to frame; what was sent is what was kept.
    blue = [float(f.image_rgb()[..., 2].mean()) for f in frames]
    assert blue == pytest.approx([0, 40, 80, 120, 160], abs=12)
    assert set(record.received["depth"]) <= set(record.sent)


def test_a_node_that_never_answers_is_reported_with_its_reason(tmp_path, one_frame, known_model):
    # Every frame is too old at once: the node counts it as dropped and answers none.
    options = ChainOptions(
        known_model,
        runtime="onnxruntime",
        rate_hz=5.0,
        total=1000,
        silence_s=3.0,
        parameters={"max_age_s": "0.000001"},
    )
    with pytest.raises(ChainError, match=r"(?s)got 0 to \d+ frames.*max_age_s"):
        chain.run_chain(one_frame, options, tmp_path / "logs")


def test_interrupt_leaves_no_process_behind(tmp_path, make, known_model):
    make.image(tmp_path / "a.png", make.pattern())
    command = demo_command(
        "--input", tmp_path / "a.png", "--model", known_model, "--out", tmp_path / "out"
    )
    demo = subprocess.Popen(
        command,
        env=demo_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 40
    while len(processes_of(demo.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes_of(demo.pid)) >= 2
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    assert processes_of(demo.pid) == []
