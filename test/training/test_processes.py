"""Training in processes of its own: killed for good and gone on with, and on two at once."""

from __future__ import annotations

import csv
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
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_training import evaluate_cli
from ddfd_training.cli import train
from ddfd_training.config import load_config
from ddfd_training.paper_table import our_rows
from ddfd_training.sync_norm import SharedBatchNorm2d, synchronise

STEPS = 60
CPU = {"accelerator": "cpu", "devices": 1}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of some seconds on four frames of noise over slanted depth."""
    root = tmp_path_factory.mktemp("nyuv2")
    random = np.random.default_rng(0)
    for name in ("rgb", "depth"):
        (root / name).mkdir()
    for frame in range(4):
        coarse = random.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        rgb = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_LINEAR)
        levels = np.linspace(30 + 20 * frame, 120, 640)[None].repeat(480, 0).astype(np.uint8)
        cv2.imwrite(str(root / "rgb" / f"{frame:04d}.jpg"), rgb)
        cv2.imwrite(str(root / "depth" / f"{frame:04d}.png"), levels)
    (root / "train.txt").write_text("0000\n0001\n0002\n0003\n", encoding="ascii")
    (root / "test.txt").write_text("0001\n", encoding="ascii")
    path = root / "recipe.yaml"
    path.write_text(
        f"""
name: tiny
network:
  options: {{heads: depth, widths: [8, 8, 8, 8, 8], depths: [1, 1, 1, 1, 1]}}
data:
  sources: [{{dataset: nyuv2, root: {root}, size: [96, 128]}}]
  cache: {root / "cache"}
  crop_px: 64
  batch_size: 4
  held_out: 0
optimizer: {{warmup_steps: 5}}
steps: {STEPS}
save_every: 5
validate_every: {STEPS}
precision: 32-true
threads: 1
sync_batch_norm: true
evaluate: {{data: nyuv2, root: {root}, input: sharp, size: [96, 128], paper: [d3net/sharp]}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unbroken training in one process; also fills the cache."""
    out = tmp_path_factory.mktemp("whole")
    assert train(load_config(recipe), out, dict(CPU)) is not None
    return out / "tiny"


def start(recipe: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ddfd_training.cli", "--config", str(recipe)]
    command += ["--out", str(out), "--accelerator", "cpu", *more]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def losses(run: Path) -> np.ndarray:
    with (run / "csv/version_0/metrics.csv").open(encoding="utf-8") as file:
        rows = [row["train/total"] for row in csv.DictReader(file) if row["train/total"]]
    return np.array(rows, dtype=float)


def test_sigkill_costs_nothing(recipe: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint, then the same command: the unbroken run's weights."""
    process = start(recipe, tmp_path, "--devices", "1")
    last, weights = tmp_path / "tiny/last.ckpt", tmp_path / "tiny/tiny.pt"
    end = time.monotonic() + 300
    while not last.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0].decode(errors="replace")
    assert last.is_file(), output
    assert not weights.is_file(), "it was done before it could be killed"
    assert train(load_config(recipe), tmp_path, dict(CPU)) == weights
    expected = load_checkpoint(whole / "tiny.pt")[0].state_dict()
    for name, value in load_checkpoint(weights)[0].state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


def test_two_processes_follow_one(recipe: Path, whole: Path, tmp_path: Path) -> None:
    """Half the batch each, the same losses: rounding alone parts them, and Adam widens that."""
    process = start(recipe, tmp_path, "--devices", "2", "--strategy", "ddp", "data.batch_size=2")
    output = process.communicate(timeout=300)[0].decode(errors="replace")
    assert process.returncode == 0, output
    expected, got = losses(whole), losses(tmp_path / "tiny")
    assert len(got) == len(expected) == STEPS // 5
    np.testing.assert_allclose(got[0], expected[0], rtol=5e-3)
    np.testing.assert_allclose(got, expected, rtol=5e-2)
    assert expected[-3:].mean() < 0.8 * expected[0]
    assert load_checkpoint(tmp_path / "tiny/tiny.pt")[1].training["crops"] == STEPS * 4


def test_a_recipe_ends_in_a_row_beside_the_papers(
    recipe: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``ddfd-evaluate --config`` takes weights, test and paper from the recipe alone."""
    report = tmp_path / "tiny.json"
    arguments = ["--config", str(recipe), "--runs", str(whole.parent), "--json", str(report)]
    assert evaluate_cli.main([*arguments, "--cache", str(tmp_path / "cache"), "--no-edges"]) == 0
    table = capsys.readouterr().out.rpartition("NYUv2, sharp images")[2]
    assert table.index("0.706") < table.index("tiny")
    (row,) = our_rows([tmp_path])
    assert row.test == "nyuv2-sharp"
    assert row.how == f"{4 * STEPS} crops of 64 px; 1 test images, seen at 96x128 px"
    content = json.loads(report.read_text(encoding="utf-8"))
    assert row.values["rmse"] == content["result"]["depth"]["mean_over_images"]["rmse"]


def _norm_on_a_half(rank: int, address: str, folder: str) -> None:
    """Normalise this process's half of a batch; save answer and gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    norm = SharedBatchNorm2d(3)
    values = torch.load(f"{folder}/values.pt")[2 * rank : 2 * rank + 2].requires_grad_()
    answer = norm(values)
    (answer * torch.load(f"{folder}/slopes.pt")[2 * rank : 2 * rank + 2]).sum().backward()
    kept = (answer.detach(), values.grad, norm.weight.grad, norm.running_var)
    torch.save(kept, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_shared_batch_norm_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """Answers, gradients and running statistics of torch's batch norm on all four images."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 3, 5, 6, generator=generator) * 2 + 1
    slopes = torch.randn(4, 3, 5, 6, generator=generator)
    torch.save(values, tmp_path / "values.pt")
    torch.save(slopes, tmp_path / "slopes.pt")
    mp.start_processes(
        _norm_on_a_half, (f"file://{tmp_path}/meet", str(tmp_path)), nprocs=2, start_method="fork"
    )
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    norm = torch.nn.BatchNorm2d(3)
    values.requires_grad_()
    answer = norm(values)
    (answer * slopes).sum().backward()
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), answer.detach())
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), values.grad)
    torch.testing.assert_close(parts[0][2] + parts[1][2], norm.weight.grad)
    torch.testing.assert_close(parts[1][3], norm.running_var)


def test_synchronise_keeps_names_and_answers() -> None:
    """Every norm is replaced; in one process nothing else changes."""
    block = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    names = list(block.state_dict())
    expected = block(image)
    found = synchronise(block)
    assert type(found[1]) is not torch.nn.BatchNorm2d
    assert list(found.state_dict()) == names
    torch.testing.assert_close(found(image), expected)
