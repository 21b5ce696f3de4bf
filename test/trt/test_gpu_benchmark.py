"""``make bench-gpu`` runs to its end over the stand-in; its figures mean nothing there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_count import count_work
from ddfd_ros.model.byte_graph import ByteGraph
from ddfd_trt.export_onnx import trace_to_onnx

ROOT = Path(__file__).resolve().parents[2]


def test_operations_are_counted_as_by_hand():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.b = torch.nn.Conv2d(8, 8, 3, padding=1, groups=4)
            self.c = torch.nn.ConvTranspose2d(8, 1, 2, stride=2)

        def forward(self, image):
            return {"depth_m": self.c(self.b(self.a(image)))}

    model = trace_to_onnx(ByteGraph(Net()), None, None)
    work = count_work(model, 64, 96)
    inside = 32 * 48  # pixels of the inner layers
    assert work.operations == 2 * inside * (3 * 8 * 9 + 8 * 2 * 9 + 8 * 1 * 4)
    moved = 3 * 64 * 96 + 8 * inside, 8 * inside + 8 * inside, 8 * inside + 64 * 96
    assert work.tensor_bytes == 2 * sum(map(sum, zip(moved, strict=True)))
    assert work.floor_ms(1e12, 1e30) == pytest.approx(work.operations / 1e9)


def test_the_whole_benchmark_over_the_stand_in(repository, tmp_path):
    models = sorted((repository / "models").glob("*nyu*.onnx"))
    if not models:
        pytest.skip("no shipped model")
    paths = [str(ROOT / "test" / "standin"), str(ROOT), *(str(ROOT / p) for p in
             ("trt", "training", "demo"))]  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.gpu", "--models", models[0].stem]
    command += ["--size", "96x64", "--precisions", "fp16", "--repeats", "5"]
    command += ["--growth-frames", "20", "--out", str(tmp_path)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=repository,
                         check=False)  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    engines = found["models"][models[0].stem]["engines"]
    assert set(engines) == {"fp16 both", "fp16 depth", "fp16 sharp"}
    for values in engines.values():
        assert 0 < values["p50_ms"] <= values["p95_ms"] <= values["p99_ms"]
    assert engines["fp16 both"]["growth"]["frames"] == 20
    assert engines["fp16 depth"]["heads"] == ["depth_m"]
    assert "sees no CUDA device" in found["models"][models[0].stem]["others"]["torch"]
    assert (tmp_path / "gpu.png").stat().st_size > 1000
