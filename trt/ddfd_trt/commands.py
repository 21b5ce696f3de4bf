"""The console scripts of export and TensorRT; only the export needs torch."""

from __future__ import annotations

from ddfd_ros.core.commands import LateCommand

export = LateCommand("ddfd_trt.cli", "export_main", "training.txt")
engine = LateCommand("ddfd_trt.engine_cli", "main", "runtime.txt")
verify = LateCommand("ddfd_trt.cli", "verify_main", "runtime.txt")
bench = LateCommand("ddfd_trt.benchmark", "main", "runtime.txt")
bundle = LateCommand("ddfd_trt.bundle.cli", "main", "runtime.txt")
