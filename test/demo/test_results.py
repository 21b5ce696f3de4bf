"""Counting: every frame sent is answered, dropped, failed or lost, and nothing is left over."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ddfd_demo.chain import ChainRecord
from ddfd_demo.results import join, keep_books, latency_table
from ddfd_demo.scores import gain, mean_over_frames, score
from ddfd_demo.sources.base import DemoFrame, Intrinsics, SourceInfo
from ddfd_demo.spool import JsonLines, Spool, read_lines
from ddfd_ros.core.json_values import clean

STAGES_MS = {"queue": 1.0, "decode": 0.5, "infer": 40.0, "encode": 0.75, "publish": 2.0}


def line(topic, stamp_ns, delay_ms, **more):
    return {
        "topic": topic,
        "stamp_ns": stamp_ns,
        "received_ns": stamp_ns + delay_ms * 10**6,
        **more,
    }


def record_of(sent, answered, counters):
    """A run in which the frames of ``sent`` went out and those of ``answered`` came back."""
    received = {
        "depth": {s: line("depth", s, 50) for s in answered},
        "sharp": {s: line("sharp", s, 60) for s in answered},
        "latency": {
            s: line("latency", s, 55, stages_ms={**STAGES_MS, "total": 45.0}) for s in answered
        },
    }
    stamps = {stamp: index for index, stamp in enumerate(sent)}
    return ChainRecord(stamps, received, counters, {"node": 1.0}, 2.0, 3.0)


@pytest.fixture
def spool(tmp_path):
    result = Spool(tmp_path / "spool")
    for index in range(10):
        image = np.full((32, 40, 3), index, np.uint8)
        result.add(
            DemoFrame(f"f{index}", image, Intrinsics(50, 50, 19.5, 15.5), time_s=index / 10)
        )
    return result


def test_books_explain_every_frame(spool):
    sent = [1000 + i for i in range(10)]
    counters = {
        "received": "9",
        "answered": "6",
        "dropped_replaced": "2",
        "failed_ImageFormatError": "1",
    }
    record = record_of(sent, sent[:5], counters)
    books = keep_books(record, join(record, spool.frames()))
    # 10 sent = 5 answered + 1 lost coming back + 2 dropped + 1 failed + 1 lost going there
    assert (books.sent, books.answered, books.lost_from_node, books.lost_to_node) == (10, 5, 1, 1)
    assert books.dropped == {"replaced": 2}
    assert books.failed == {"ImageFormatError": 1}
    assert books.balanced
    explained = books.answered + books.lost_from_node + books.lost_to_node
    assert explained + sum(books.dropped.values()) + sum(books.failed.values()) == books.sent


@pytest.mark.parametrize(
    "counters",
    [
        {"received": "10", "answered": "5"},  # five received and never settled
        {"received": "11", "answered": "11"},  # more than were sent
        {"received": "10", "answered": "4", "dropped_replaced": "6"},  # fewer than came back
    ],
)
def test_books_that_cannot_be_true_do_not_balance(spool, counters):
    sent = [1000 + i for i in range(10)]
    record = record_of(sent, sent[:5], counters)
    assert not keep_books(record, join(record, spool.frames())).balanced


def test_join_is_by_stamp_and_repeats_a_frame_sent_twice(spool):
    record = record_of([], [], {})
    record.sent.update({5: 3, 6: 3, 7: 0})
    record.received["depth"][6] = line("depth", 6, 1)
    answers = join(record, spool.frames())
    assert [a.frame.name for a in answers] == ["f3", "f3", "f0"]
    assert [a.answered for a in answers] == [False, True, False]


def test_latency_from_stamp_to_the_last_image(spool):
    sent = [10**18 + i * 10**8 for i in range(10)]
    record = record_of(sent, sent, {})
    table = latency_table(join(record, spool.frames()))
    assert table["stamp_to_recorder"] == pytest.approx((60.0, 60.0))  # the sharp image, not depth
    assert table["messages"] == pytest.approx((3.25, 3.25))  # 0.5 + 0.75 + 2
    assert table["total"] == pytest.approx((45.0, 45.0))
    assert all(math.isnan(v) for v in table["pad"])  # the node said nothing about it


def test_scores_ignore_unknown_pixels_and_clip_the_truth(tmp_path):
    spool = Spool(tmp_path / "spool")
    truth = np.full((48, 64), 4.0, np.float32)
    truth[:, :32] = 50.0  # beyond the model's 10 m
    truth[0] = np.nan
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (48, 64, 3), np.uint8)
    image = np.clip(sharp.astype(int) + 20, 0, 255).astype(np.uint8)
    spool.add(DemoFrame("a", image, None, depth_m=truth, sharp_rgb=sharp))
    predicted = np.full((48, 64), 5.0, np.float32)
    predicted[:, :32] = 10.0
    predicted[-1] = np.nan  # the node was not sure
    np.save(tmp_path / "spool/77.depth.npy", predicted)
    np.save(
        tmp_path / "spool/77.sharp.npy", np.clip(sharp.astype(int) + 2, 0, 255).astype(np.uint8)
    )
    record = record_of([77], [77], {})
    info = SourceInfo("rgbd", "", "wait", depth_limit_m=5.0)
    scores = score(join(record, spool.frames()), info, (0.5, 10.0))
    everything = mean_over_frames(scores, "depth")
    near = mean_over_frames(scores, "depth_near")
    assert everything["rmse"] == pytest.approx(math.sqrt(0.5))  # half exact, half 1 m too far
    assert near["rmse"] == pytest.approx(1.0)
    assert near["delta1"] == pytest.approx(0.0)  # 5 / 4 is not below 1.25
    assert scores[0].valid == pytest.approx(47 / 48)
    assert 17 < gain(scores)["psnr"] < 21  # an error ten times smaller is 20 dB


def test_lines_are_read_once_and_only_when_complete(tmp_path):
    path = tmp_path / "lines.jsonl"
    with JsonLines(path) as lines:
        lines.write({"a": 1})
    with path.open("ab") as file:
        file.write(b'{"a": 2')
    first, offset = read_lines(path)
    with path.open("ab") as file:
        file.write(b"}\n")
    second, _ = read_lines(path, offset)
    assert (first, second) == ([{"a": 1}], [{"a": 2}])


def test_spool_refuses_more_than_its_size(tmp_path):
    spool = Spool(tmp_path, max_bytes=100_000)
    frame = DemoFrame("x", np.zeros((48, 64, 3), np.uint8))
    added = [spool.add(frame) for _ in range(5)]
    # 48 * 64 pixels of 3 bytes, and 11 bytes per pixel for what comes back: 43 kB each
    assert added == [True, True, False, False, False]
    assert len(spool) == 2


def test_json_has_no_nan():
    text = json.dumps(clean({"a": float("nan"), "b": [1.0, float("inf")]}), allow_nan=False)
    assert json.loads(text) == {"a": None, "b": [1.0, None]}
