"""A second model behind the first: the first one's depth guides the sharp image (DEDDNet).

The second model's graph takes ``image`` and ``depth_m`` (a ``deddnet`` exported with ``depth:
given``). Together they are one backend, so that nothing above knows of two; what the second one
costs is a stage of its own, ``deblur``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import ContractError, DdfdError, InferenceError, ModelLoadError
from ddfd_ros.core.metadata import ModelContract, golden_mismatch
from ddfd_ros.core.preprocessing import pad_to_size, padded_side
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.types import HEADS
from ddfd_ros.inference.base import Backend, BackendOptions, ParityError, one_line
from ddfd_ros.inference.onnx_file import load_onnx

INPUTS = ("image", "depth_m")
FAR_M = 1e6
"""Depth in metres that stands for unknown, as in training: no disparity."""
RUNTIMES = ("openvino", "onnxruntime")
_KEPT = 4

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""uint8 ``[H, W, 3]`` and float32 ``[H, W]``, padded and contiguous, to uint8 ``[H, W, 3]``."""


class DeblurStage:
    """A depth-guided deblurring model.

    Args:
        path: ``.onnx`` file with a contract.
        runtime: ``onnxruntime``, ``openvino``, or ``auto`` for the first one installed.
        options: As of any backend; only the CPU serves here.

    Attributes:
        contract: What the model promises.
        runtime: What runs it.

    Raises:
        ModelLoadError: The file or the runtime cannot be used.
        ContractError: The model is not one that takes depth and gives a sharp image.
    """

    def __init__(
        self, path: str | Path, runtime: str = "auto", options: BackendOptions | None = None
    ) -> None:
        options = options or BackendOptions()
        if options.device != "cpu":
            raise ModelLoadError(
                f"deblurring stage: expected device 'cpu', got {options.device!r}; give its own "
                "device in the options"
            )
        model, self.contract = load_onnx(Path(path))
        if self.contract.inputs != INPUTS or "sharp_rgb" not in self.contract.outputs:
            raise ContractError(
                f"{path}: expected a model that takes {list(INPUTS)} and answers sharp_rgb, got "
                f"one that takes {list(self.contract.inputs)} and answers "
                f"{list(self.contract.outputs)}; export a deddnet trained with depth: given"
            )
        makers = {"openvino": _openvino, "onnxruntime": _onnxruntime}
        wanted = RUNTIMES if runtime not in makers else (runtime,)
        self.runtime, self._run = _first_installed(wanted, makers, model, options)
        self._tolerance_scale = 8.0 if options.precision == "auto" else 1.0

    def sharpen(self, image: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
        """The sharp image.

        Args:
            image: uint8 ``[H, W, 3]``.
            depth_m: float32 ``[H, W]``; what is not positive and finite is unknown.

        Returns:
            uint8 ``[H, W, 3]``.

        Raises:
            InferenceError: The runtime failed, or the model's fixed size is too small.
        """
        multiple = self.contract.size_multiple
        fixed = (self.contract.input_height, self.contract.input_width)
        sides = [
            size or padded_side(side, multiple)
            for size, side in zip(fixed, image.shape[:2], strict=True)
        ]
        known = np.isfinite(depth_m) & (depth_m > 0)
        depth_m = np.where(known, depth_m, np.float32(FAR_M)).astype(np.float32)
        try:
            padded, crop = pad_to_size(image, *sides)
            guide, _ = pad_to_size(depth_m, *sides)
            answer = self._run(np.ascontiguousarray(padded), np.ascontiguousarray(guide))
        except DdfdError:
            raise
        except Exception as error:  # runtimes raise types of their own without a common base
            raise InferenceError(
                f"deblurring on {self.runtime}: expected an answer for an image of "
                f"{image.shape[1]}x{image.shape[0]}, got {one_line(error)}"
            ) from error
        return answer[crop]

    def self_test(self) -> dict[str, Any]:
        """As :meth:`Backend.self_test`: the golden image, at a depth of 1 m everywhere.

        Raises:
            ParityError: The answer is beyond the tolerance.
        """
        golden = self.contract.golden
        if golden is None:
            return {"checked": False, "mismatch": {}}
        image = golden.image()
        sharp = self.sharpen(image, np.ones(image.shape[:2], np.float32))
        mismatch = golden_mismatch(golden, {"sharp_rgb": sharp}, self._tolerance_scale)
        if mismatch["sharp_rgb"] > 1.0:
            raise ParityError(
                f"deblurring on {self.runtime}, self-test: expected the contract's golden answer, "
                f"got one off by {mismatch['sharp_rgb']:.3g} times the tolerance; try another "
                "runtime or export the model again"
            )
        return {"checked": True, "mismatch": mismatch}


class TwoStageBackend(Backend):
    """A backend whose sharp image comes from a second model that is told the first one's depth.

    Args:
        first: Answers everything else; its own ``sharp_rgb``, if it has one, is not computed.
        stage: The second model.

    Raises:
        ContractError: The first model has no depth.
    """

    def __init__(self, first: Backend, stage: DeblurStage) -> None:
        if "depth_m" not in first.contract.outputs:
            raise ContractError(
                f"deblurring stage: expected a first model with depth_m, got one with "
                f"{list(first.contract.outputs)}; choose another model"
            )
        super().__init__(_joined(first.contract), "")
        self._first, self._stage = first, stage
        self._describe()

    @classmethod
    def from_file(cls, path: Path, options: BackendOptions) -> Backend:
        """Not available: two files are needed; see the constructor."""
        raise ModelLoadError(f"{path}: expected two model files, got one; open them one by one")

    def set_lens(self, lens: LensConfig | None) -> None:
        """Of the first model; see ``Backend.set_lens``."""
        self._first.set_lens(lens)

    def infer(
        self,
        image: np.ndarray,
        heads: Collection[str] | None = None,
        timings_ms: MutableMapping[str, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """As of any backend; ``timings_ms`` also receives ``deblur``."""
        wanted = self._check_heads(heads)
        outputs = self._first.infer(image, self._of_first(wanted), timings_ms)
        self._describe()
        if "sharp_rgb" in wanted:
            start = time.perf_counter()
            outputs["sharp_rgb"] = self._stage.sharpen(image, outputs["depth_m"])
            if timings_ms is not None:
                timings_ms["deblur"] = (time.perf_counter() - start) * 1e3
        return {name: outputs[name] for name in wanted}

    def _infer(self, image: np.ndarray, heads: tuple[str, ...]) -> dict[str, np.ndarray]:
        return self.infer(image, heads)

    def warm_up(self, height: int, width: int, heads: Collection[str] | None = None) -> float:
        """Warm up both models, and all that may run the first one; see ``Backend.warm_up``."""
        self._first.warm_up(height, width, self._of_first(self._check_heads(heads)))
        return super().warm_up(height, width, heads)

    def self_test(self) -> dict[str, Any]:
        """Both models' golden samples."""
        results = [self._first.self_test(), self._stage.self_test()]
        mismatch = {name: value for item in results for name, value in item["mismatch"].items()}
        return {"checked": all(item["checked"] for item in results), "mismatch": mismatch}

    def takes(self, height: int, width: int) -> bool:
        """Whether both models answer images of this size in pixels."""
        contract = self._stage.contract
        fits = all(
            fixed is None or side <= fixed
            for fixed, side in ((contract.input_height, height), (contract.input_width, width))
        )
        return fits and self._first.takes(height, width)

    def _close(self) -> None:
        self._first.close()

    def _of_first(self, wanted: tuple[str, ...]) -> set[str]:
        """The heads that the first model has to compute for these."""
        return {"depth_m" if head == "sharp_rgb" else head for head in wanted}

    def _describe(self) -> None:
        """As the first model, which may change what runs it (``switching``)."""
        self.runtime = self._first.runtime
        self.device = f"{self._first.device}; deblurring {self._stage.runtime}"


def _joined(contract: ModelContract) -> ModelContract:
    """The first model's contract with the sharp image among its answers."""
    heads = {*contract.outputs, "sharp_rgb"}
    return dataclasses.replace(contract, outputs=tuple(h for h in HEADS if h in heads))


def _first_installed(
    names: Collection[str],
    makers: Mapping[str, Callable[[bytes, BackendOptions], Run]],
    model: bytes,
    options: BackendOptions,
) -> tuple[str, Run]:
    """The first of the runtimes that is there, with the model in it."""
    problems = []
    for name in names:
        try:
            return name, makers[name](model, options)
        except ImportError as error:
            problems.append(f"{name}: {error}")
        except Exception as error:  # runtimes raise types of their own without a common base
            raise ModelLoadError(
                f"deblurring stage: expected a model that {name} can load, got {one_line(error)}; "
                "export it again"
            ) from error
    raise ModelLoadError(
        f"deblurring stage: expected one of {list(names)} to be installed, got "
        f"{'; '.join(problems)}; see requirements/runtime.txt"
    )


def _onnxruntime(model: bytes, options: BackendOptions) -> Run:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spin)))
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])

    def run(image: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
        feed = dict(zip(INPUTS, (image, depth_m), strict=True))
        answer: np.ndarray = session.run(["sharp_rgb"], feed)[0]
        return answer

    return run


def _openvino(model: bytes, options: BackendOptions) -> Run:
    import openvino

    core = openvino.Core()
    read = core.read_model(model, b"")
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if options.threads:
        config["INFERENCE_NUM_THREADS"] = options.threads
    if options.precision == "float32":
        config["INFERENCE_PRECISION_HINT"] = "f32"
    requests: dict[tuple[int, ...], Any] = {}

    def run(image: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
        request = requests.get(image.shape)
        if request is None:  # static shapes let OpenVINO plan memory and choose kernels
            part = read.clone()
            shapes = {"image": list(image.shape), "depth_m": list(depth_m.shape)}
            part.reshape(shapes)
            request = core.compile_model(part, "CPU", config).create_infer_request()
            while len(requests) >= _KEPT:
                del requests[next(iter(requests))]
            requests[image.shape] = request
        feed = {"image": image, "depth_m": depth_m}
        answer: np.ndarray = request.infer(feed, share_inputs=True, share_outputs=False)[
            "sharp_rgb"
        ]
        return answer

    return run
