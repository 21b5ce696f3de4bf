"""OpenVINO on the CPU: on x86 machines usually faster than ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference.base import Backend, BackendOptions
from ddfd_ros.inference.graph import INPUT_NAME, Port, check_graph
from ddfd_ros.inference.onnx_file import load_onnx

_KEPT_COMPILED = 8
"""Compiled models kept for selections of heads and sizes; the oldest goes first."""

_DTYPES = {"u8": "uint8", "f32": "float32"}


class OpenvinoBackend(Backend):
    """An ONNX model in OpenVINO.

    A compiled model belongs to one selection of heads and one size: static shapes let OpenVINO
    plan memory and choose kernels, and it computes nothing the selection does not need. The first
    image of a new size or selection therefore waits for a compilation (about a second); warm up
    those that will be used.
    """

    runtime = "openvino"

    def __init__(self, path: Path, contract: ModelContract, options: BackendOptions) -> None:
        if options.device != "cpu":
            raise ModelLoadError(
                f"openvino: expected device 'cpu', got {options.device!r}; use runtime onnxruntime"
            )
        self._core = openvino.Core()
        self._config = _config(options)
        threads = f"{options.threads} threads" if options.threads else "automatic threads"
        version = openvino.__version__.split("-")[0]
        super().__init__(contract, f"openvino {version}, cpu, {threads}, {options.precision}")
        if options.precision == "auto":
            self.tolerance_scale = 8.0  # bfloat16 keeps 8 bits of the mantissa
        self._model = self._core.read_model(path)
        self._batched = check_graph(
            contract, _ports(self._model.inputs), _ports(self._model.outputs)
        )
        self._requests: dict[tuple[tuple[str, ...], tuple[int, ...]], Any] = {}

    @classmethod
    def from_file(cls, path: Path, options: BackendOptions) -> OpenvinoBackend:
        """Load an ``.onnx`` file that carries a contract."""
        _, contract = load_onnx(path)
        return cls(path, contract, options)

    def _infer(self, image: np.ndarray, heads: tuple[str, ...]) -> dict[str, np.ndarray]:
        key = (heads, image.shape)
        request = self._requests.get(key)
        if request is None:
            request = self._compile(heads, image.shape)
            while len(self._requests) >= _KEPT_COMPILED:
                del self._requests[next(iter(self._requests))]
            self._requests[key] = request
        # The input is read in place; outputs are copied, for the request writes over its own.
        inputs = {INPUT_NAME: image[None] if self._batched else image, **self._beside()}
        answers = request.infer(inputs, share_inputs=True, share_outputs=False)
        values = [answers[index] for index in range(len(heads))]
        if self._batched:
            values = [value[0] for value in values]
        return dict(zip(heads, values, strict=True))

    def _compile(self, heads: tuple[str, ...], shape: tuple[int, ...]) -> Any:
        model = self._model.clone()
        results = [model.output(name).get_node() for name in heads]
        part = openvino.Model(results, model.get_parameters(), "ddfd")
        part.reshape({INPUT_NAME: [1, *shape] if self._batched else list(shape)})
        return self._core.compile_model(part, "CPU", self._config).create_infer_request()

    def _close(self) -> None:
        self._requests.clear()
        self._model = None


def _config(options: BackendOptions) -> dict[str, Any]:
    # Pinned threads wait for their own core while another process holds it, though others idle:
    # beside one busy process a frame took 8 s instead of 0.5 s.
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if options.threads:
        config["INFERENCE_NUM_THREADS"] = options.threads
    if options.precision == "float32":
        # Left alone, OpenVINO computes in bfloat16 where the CPU can: depth moves by centimetres.
        config["INFERENCE_PRECISION_HINT"] = "f32"
    return config


def _ports(ports: Iterable[Any]) -> list[Port]:
    return [
        Port(
            port.get_any_name(),
            _DTYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple(
                side.get_length() if side.is_static else None for side in port.get_partial_shape()
            ),
        )
        for port in ports
    ]
