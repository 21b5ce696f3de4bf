"""The whole chain over real DDS, with the real node and a model whose answer is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ddfd_demo import chain, player
from ddfd_demo.commands import ChainOptions, lens_parameters, node_command, player_command
from ddfd_demo.errors import ChainError
from ddfd_demo.main import _chain_options
from ddfd_demo.models import model_contract
from ddfd_demo.options import DemoOptions
from ddfd_demo.sources.base import DemoFrame, SourceInfo
from ddfd_demo.spool import JsonLines, Spool, read_lines
from ddfd_demo.video import count_frames
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.ros.parameters import NodeParameters

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
    _check_answers(out / "demo-frames")


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
    assert not (out / "demo-frames").exists()


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


def test_a_model_without_depth_is_waited_for_by_what_it_publishes(tmp_path, make):
    """With depth/camera_info awaited, each photograph would take the 15 s of its time-out."""
    model = make.model(tmp_path / "sharp.onnx", heads=("sharp_rgb",))
    for index in range(3):
        make.image(tmp_path / f"set/{index}.png", make.pattern(64, 96, index))
    out = tmp_path / "out"
    run = run_demo("--input", tmp_path / "set", "--model", model, "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((out / "demo.json").read_text())
    assert result["frames"]["answered"] == 3
    assert result["play_s"] < 15


@pytest.mark.parametrize(
    ("heads", "awaited"),
    [(("sigma_m", "depth_m"), "depth"), (("sigma_m", "sharp_rgb"), "sharp")],
)
def test_the_player_awaits_a_head_that_the_model_has(known_model, heads, awaited):
    command = player_command(Path("spool"), ChainOptions(known_model, heads))
    assert command[command.index("--awaited") + 1] == awaited


def test_the_node_is_told_the_lens_of_the_pictures(known_model):
    lens = LensConfig(0.035, 8.0, float("inf"), 36e-6)
    told = lens_parameters(lens)
    assert all("." in value for value in told.values())  # what ROS takes for a double
    NodeParameters(**{name: float(value) for name, value in told.items()})
    assert (told["camera_focus_distance_m"], told["camera_f_number"]) == ("1000000.0", "8.0")
    contract = model_contract(known_model)

    def parameters(*params, lens=LENS_PRESETS["dslr"]):
        info = SourceInfo("dfd_dslr", "", "wait")
        options = DemoOptions(params=params)
        return _chain_options(info, options, known_model, contract, lens, 1).parameters

    assert parameters()["camera_pixel_pitch_um"] == "36.0"
    assert parameters("camera_f_number=4.0")["camera_f_number"] == "4.0"
    assert parameters("lens_calibration=/a.yaml") == {"lens_calibration": "/a.yaml"}
    assert parameters(lens=None) == {}
    command = node_command(ChainOptions(known_model, parameters=told))
    assert "camera_pixel_pitch_um:=36.0" in command


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


def play(folder, monkeypatch, sent, answered, silence_s, until_s):
    """Follow a player whose frames go out, and are answered, at these times."""
    clock = Clock()
    monkeypatch.setattr(chain, "time", clock)
    log = SimpleNamespace(log="node.log", tail=lambda: "...")
    children = SimpleNamespace(first=log, check=lambda what: None)
    waiting = [(t, "sent", {"index": i, "stamp_ns": i}) for i, t in enumerate(sent)]
    waiting += [(t, "received", {"topic": "depth", "stamp_ns": i}) for t, i in answered]
    waiting.append((until_s, "sent", {"event": "done"}))
    waiting.sort(key=lambda event: event[0])

    def write(frames, answers):
        while waiting and waiting[0][0] <= clock.now_s:
            _, name, line = waiting.pop(0)
            with JsonLines(folder / f"{name}.jsonl") as lines:
                lines.write(line)

    followed = [chain._Followed(folder / f"{name}.jsonl") for name in ("sent", "received")]
    chain._play(children, *followed, silence_s, write)
    return clock.now_s


@pytest.mark.parametrize("last_is_answered", [True, False])
def test_a_pause_of_the_stream_is_no_silence(tmp_path, monkeypatch, last_is_answered):
    sent = [0, 1, 2, 100, 101]
    answered = [(t + 0.5, i) for i, t in enumerate(sent) if last_is_answered or t != 2]
    assert play(tmp_path, monkeypatch, sent, answered, 30.0, 102) == pytest.approx(102, abs=0.2)


@pytest.mark.parametrize("period_s", [0.2, 15.0])
def test_frames_without_answers_are_silence(tmp_path, monkeypatch, period_s):
    sent = [i * period_s for i in range(1000)]
    with pytest.raises(ChainError, match="got 1 to .* 30 s of silence"):
        play(tmp_path, monkeypatch, sent, [(0.1, 0)], 30.0, 100)


def test_a_camera_frame_that_does_not_fit_is_not_sent(tmp_path, monkeypatch):
    """The node would count it, and the books would not balance."""
    frames = [DemoFrame(str(i), np.zeros((48, 64, 3), np.uint8)) for i in range(5)]
    monkeypatch.setattr(
        "ddfd_demo.sources.camera.CameraSource",
        lambda device, total: SimpleNamespace(frames=lambda: iter(frames)),
    )
    stamps = []

    def send(image_rgb, intrinsics):
        stamps.append(len(stamps))
        return stamps[-1]

    spool = Spool(tmp_path, max_bytes=100_000)  # room for two
    options = SimpleNamespace(camera="0", total=5, scale=1.0)
    with JsonLines(tmp_path / "sent.jsonl") as lines:
        player._play_camera(SimpleNamespace(send=send), spool, options, lines)
    said = read_lines(tmp_path / "sent.jsonl")[0]
    assert [line.get("stamp_ns") for line in said] == [0, 1, None] == [*stamps, None]
    assert said[-1] == {"event": "spool full"}
    assert len(spool) == 2


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
