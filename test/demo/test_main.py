"""What a run deletes, and what it refuses before it begins."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from ddfd_demo import main as demo
from ddfd_demo.chain import ChainRecord
from ddfd_demo.commands import ChainOptions
from ddfd_demo.errors import InputError
from ddfd_demo.options import DemoOptions, parse
from ddfd_demo.sources.base import DemoFrame, Source, SourceInfo
from ddfd_demo.spool import FOLDER, JsonLines, Spool


def fill(folder):
    """A spool as a run leaves it that keeps its frames."""
    spool = Spool(folder)
    depth_m = np.ones((48, 64), np.float32)
    spool.add(DemoFrame("x", np.zeros((48, 64, 3), np.uint8), depth_m=depth_m))
    for name in ("sent", "received"):
        with JsonLines(folder / f"{name}.jsonl") as lines:
            lines.write({"event": "done"})
    for name in ("depth", "sigma", "sharp"):
        np.save(folder / f"1700000000123456789.{name}.npy", depth_m)


class Camera(Source):
    """A camera whose frames only the player sees."""

    def __len__(self):
        return 4

    def frames(self):
        yield from ()


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("keep", [False, True])
def test_an_earlier_runs_frames_are_replaced_and_nothing_else(tmp_path, make, keep):
    make.image(tmp_path / "frames/mine.png", make.pattern())
    fill(tmp_path / FOLDER)
    with demo._spool_folder(DemoOptions(out=tmp_path, keep_frames=keep)) as folder:
        assert files(folder) == []
        fill(folder)
    assert folder.exists() == keep
    assert len(files(tmp_path)) == (9 if keep else 1)
    assert (tmp_path / "frames/mine.png").is_file()


def test_foreign_files_among_the_frames_end_the_run_and_nothing_is_deleted(tmp_path):
    fill(tmp_path / FOLDER)
    (tmp_path / FOLDER / "mine.png").touch()
    before = files(tmp_path)
    with (
        pytest.raises(InputError, match=r"expected nothing but the frames.*got mine\.png"),
        demo._spool_folder(DemoOptions(out=tmp_path)),
    ):
        pass
    assert files(tmp_path) == before


def test_what_others_put_among_the_frames_during_a_run_stays(tmp_path):
    with demo._spool_folder(DemoOptions(out=tmp_path)) as folder:
        fill(folder)
        (folder / "mine.png").touch()
    assert files(tmp_path) == [f"{FOLDER}/mine.png"]


@pytest.mark.parametrize("name", ["demo.png", "demo.mp4", FOLDER, f"{FOLDER}/mine/a.png"])
def test_an_input_that_the_run_would_replace_is_refused(tmp_path, monkeypatch, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.chdir(tmp_path)
    options = DemoOptions(input=str(path), out=Path("out"))
    with pytest.raises(InputError, match="choose another --out"):
        demo._run(options, Console())
    assert files(tmp_path) == [f"out/{name}"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rate_hz": 5.0}, "got --rate 5;"),
        ({"pacing": "wait"}, "got --pacing wait;"),
        ({"rate_hz": 5.0, "pacing": "wait"}, "got --rate 5 and --pacing wait;"),
    ],
)
def test_a_camera_plays_at_no_rate_but_its_own(options, says):
    with pytest.raises(InputError, match=f"camera /dev/video63: .*{says}"):
        demo._open(DemoOptions(input="/dev/video63", **options))


def test_options_of_another_kind_of_input_are_refused(tmp_path):
    picture = tmp_path / "a.png"
    picture.touch()
    for options, says in (
        ({"topic": "/x"}, "--topic: expected with a ROS 2 bag as INPUT, got it with"),
        ({"natural": True}, "--natural: expected with a folder of your own"),
    ):
        for given in (str(picture), None):
            with pytest.raises(InputError, match=says):
                demo._open(DemoOptions(input=given, **options))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rate", "abc"], "expected a number above zero, got abc"),
        (["--scale", "nan"], "expected a number above zero, got nan"),
        (["--max-frames", "2.5"], "expected a whole number from 1, got 2.5"),
        (["--param", "max_sigma=1"], "expected a parameter of config/ddfd.yaml, got max_sigma"),
    ],
)
def test_values_that_mean_nothing_are_refused_in_words(arguments, says, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert says in capsys.readouterr().err


def test_parameters_of_the_node_and_its_topics_are_taken():
    given = ("max_sigma_m=1", "qos_overrides./image_raw.subscription.reliability=reliable")
    assert parse([word for one in given for word in ("--param", one)]).params == given


def test_frames_that_wait_have_no_rate():
    waiting, stream = SourceInfo("folder", "", "wait"), SourceInfo("video", "", "stream")
    for info, pacing in ((waiting, "auto"), (stream, "wait")):
        with pytest.raises(InputError, match="--rate: .* add --pacing stream"):
            demo._refuse_rate(DemoOptions(rate_hz=5.0, pacing=pacing), info)
    demo._refuse_rate(DemoOptions(rate_hz=5.0, pacing="stream"), waiting)
    demo._refuse_rate(DemoOptions(rate_hz=5.0), stream)


def test_the_rate_of_a_camera_is_that_of_its_stamps(tmp_path):
    record = ChainRecord({10**18 + i * 125_000_000: i for i in range(5)}, {}, {}, {}, 1.0, 1.0)
    said = ChainOptions(tmp_path / "a.onnx", rate_hz=30.0, camera="0")
    assert demo._as_played(said, record).rate_hz == pytest.approx(8.0)
    one = ChainRecord({10**18: 0}, {}, {}, {}, 1.0, 1.0)
    assert demo._as_played(said, one).rate_hz == 30.0
    stream = ChainOptions(tmp_path / "a.onnx", rate_hz=30.0)
    assert demo._as_played(stream, record).rate_hz == 30.0


def test_the_film_of_a_camera_runs_at_the_rate_of_its_stamps(tmp_path, monkeypatch, known_model):
    """The camera promises 30 frames/s and delivers 8."""
    info = SourceInfo("camera", "a camera", "stream", rate_hz=30.0)
    monkeypatch.setattr(demo, "_open", lambda options: Camera(info))

    def run_chain(folder, *_):
        spool = Spool(folder)
        sent, lines = {}, {}
        for index in range(4):
            spool.add(DemoFrame(f"frame {index}", np.zeros((48, 64, 3), np.uint8)))
            stamp_ns = 10**18 + index * 125_000_000
            sent[stamp_ns] = index
            np.save(folder / f"{stamp_ns}.depth.npy", np.ones((48, 64), np.float32))
            lines[stamp_ns] = {"received_ns": stamp_ns + 10**6}
        counters = {"received": "4", "answered": "4"}
        return ChainRecord(sent, {"depth": lines}, counters, {"node": 0.1}, 0.5, 1.0)

    monkeypatch.setattr(demo, "run_chain", run_chain)
    options = DemoOptions(input="0", out=tmp_path, model=str(known_model))
    assert demo._run(options, Console(quiet=True)) == 0
    assert "at 8 frames/s" in json.loads((tmp_path / "demo.json").read_text())["pacing"]
    film = cv2.VideoCapture(str(tmp_path / "demo.mp4"))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(8.0)


@pytest.fixture
def run(monkeypatch, tmp_path, make, known_model, capsys):
    """Runs the command line on a picture; exit code and what was printed."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setenv("COLUMNS", "400")
    make.image(tmp_path / "a.png", make.pattern())

    def call(out):
        given = ["--input", tmp_path / "a.png", "--model", known_model, "--out", out]
        return demo.main([str(one) for one in given]), capsys.readouterr().out

    return call


def test_a_file_where_the_results_should_go_is_told_in_one_line(run, tmp_path):
    (tmp_path / "out").touch()
    code, said = run(tmp_path / "out")
    assert code == 1
    assert "demo stopped: " in said
    assert f"File exists: '{tmp_path / 'out'}'" in said


def test_a_full_disk_is_told_in_one_line_and_leaves_no_frames(run, tmp_path, monkeypatch):
    def save(path, array):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(np, "save", save)
    code, said = run(tmp_path / "out")
    assert code == 1
    assert "demo stopped: [Errno 28] No space left on device" in said
    assert not (tmp_path / "out" / FOLDER).exists()
