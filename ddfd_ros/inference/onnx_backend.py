"""ONNX Runtime, on the CPU or (where its CUDA provider is installed) on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference.base import Backend, BackendOptions
from ddfd_ros.inference.graph import INPUT_NAME, Port, check_graph
from ddfd_ros.inference.onnx_file import keep_outputs, load_onnx
from ddfd_ros.inference.precision import HALF

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxBackend(Backend):
    """An ONNX model in ONNX Runtime.

    Every selection of heads has a session of its own over the part of the graph it needs, made
    when first asked for; warm up the selections that will be used. Weights are small here, and
    ONNX Runtime cannot skip part of a session's graph.
    """

    runtime = "onnxruntime"

    def __init__(self, model: bytes, contract: ModelContract, options: BackendOptions) -> None:
        provider = _PROVIDERS[options.device]
        if provider not in onnxruntime.get_available_providers():
            raise ModelLoadError(
                f"onnxruntime: expected {provider} for device {options.device!r}, got "
                f"{onnxruntime.get_available_providers()}; install onnxruntime-gpu or use cpu"
            )
        threads = f"{options.threads} threads" if options.threads else "automatic threads"
        super().__init__(
            contract, f"onnxruntime {onnxruntime.__version__}, {options.device}, {threads}"
        )
        self._model = model
        self._options = _session_options(options)
        self._providers = [(provider, _provider_options(options))]
        self._sessions: dict[tuple[str, ...], Any] = {}
        whole = onnxruntime.InferenceSession(model, self._options, providers=self._providers)
        # Without its libraries (cuDNN, cuBLAS) a provider is left out with a warning only.
        if provider not in whole.get_providers():
            raise ModelLoadError(
                f"onnxruntime: expected {provider} to start for device {options.device!r}, got a "
                f"session on {whole.get_providers()}; install the CUDA and cuDNN libraries that "
                "this onnxruntime-gpu needs (its log names them) or use cpu"
            )
        if options.device == "cuda":
            single = whole.get_provider_options()[provider].get("use_tf32") == "0"
            self.device += ", float32" if single else ", tf32"
            self.tolerance_scale = 1.0 if single else HALF.scale  # as many bits of the mantissa
        self._batched = check_graph(
            contract, _ports(whole.get_inputs()), _ports(whole.get_outputs())
        )
        self._sessions[contract.outputs] = whole

    @classmethod
    def from_file(cls, path: Path, options: BackendOptions) -> OnnxBackend:
        """Load an ``.onnx`` file that carries a contract."""
        model, contract = load_onnx(path)
        return cls(model, contract, options)

    def _infer(self, image: np.ndarray, heads: tuple[str, ...]) -> dict[str, np.ndarray]:
        session = self._sessions.get(heads)
        if session is None:
            part = keep_outputs(self._model, heads)
            session = onnxruntime.InferenceSession(part, self._options, providers=self._providers)
            self._sessions[heads] = session
        feed = {INPUT_NAME: image[None] if self._batched else image, **self._beside()}
        answers = session.run(list(heads), feed)
        if self._batched:
            answers = [answer[0] for answer in answers]
        return dict(zip(heads, answers, strict=True))

    def _close(self) -> None:
        self._sessions.clear()
        self._model = b""


def _session_options(options: BackendOptions) -> Any:
    session = onnxruntime.SessionOptions()
    session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session.intra_op_num_threads = options.threads
    session.inter_op_num_threads = 1
    session.log_severity_level = 3  # errors only
    session.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spin)))
    return session


def _provider_options(options: BackendOptions) -> dict[str, str]:
    # Left alone, the CUDA provider rounds what convolutions take to ten bits of the mantissa.
    # Before 1.18 it cannot be told: it starts without its options then, and with TF32.
    return {"use_tf32": str(int(options.precision == "auto"))} if options.device == "cuda" else {}


def _ports(arguments: Iterable[Any]) -> list[Port]:
    return [
        Port(
            argument.name,
            _DTYPES.get(argument.type, argument.type),
            tuple(side if isinstance(side, int) else None for side in argument.shape),
        )
        for argument in arguments
    ]
