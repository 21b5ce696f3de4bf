"""The loaded model: opened, checked and warmed up in the worker's thread, which then owns it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.pipeline import Pipeline
from ddfd_ros.inference import Backend
from ddfd_ros.inference.base import BackendOptions
from ddfd_ros.inference.deblur_stage import DeblurStage, TwoStageBackend
from ddfd_ros.inference.switching import SwitchingBackend
from ddfd_ros.ros.engine_open import open_serving
from ddfd_ros.ros.engine_plan import EnginePlan, check_calibration, plan_engine
from ddfd_ros.ros.environment import resolve_model
from ddfd_ros.ros.lens import cloud_options, thresholds
from ddfd_ros.ros.outputs import TOPICS
from ddfd_ros.ros.parameters import NodeParameters


@dataclass(frozen=True)
class LoadedModel:
    """A backend with its pipeline and what is worth telling about it.

    Attributes:
        backend: The open backend.
        pipeline: Thresholds over the backend.
        path: The model's file.
        heads: Heads of the model that have a topic.
        warm_up_ms: Duration of a warm inference of all heads in milliseconds; NaN: not warmed up.
        self_test: In words, how the golden sample fared.
        plan: Whether a TensorRT engine is wanted, and what became of it.
        switch: Where an engine is swapped in; None where none is wanted.
    """

    backend: Backend
    pipeline: Pipeline
    path: str
    heads: tuple[str, ...]
    warm_up_ms: float
    self_test: str
    plan: EnginePlan
    switch: SwitchingBackend | None

    def close(self) -> None:
        """Release the backend."""
        self.backend.close()

    @property
    def contract(self) -> ModelContract:
        """What the model promises."""
        return self.backend.contract


def load_model(parameters: NodeParameters, check: Callable[[], None]) -> LoadedModel:
    """Open, verify and warm up the model that ``parameters`` name.

    Args:
        parameters: The node's parameters.
        check: Called between the steps; what it raises ends the loading.

    Raises:
        DdfdError: The model cannot serve; the message names expected, got and remedy.
    """
    plan = plan_engine(resolve_model(parameters.model_path), parameters)
    check_calibration(plan)
    check()
    backend, plan = open_serving(plan, parameters, check)
    switch = backend if isinstance(backend, SwitchingBackend) else None
    try:
        check()
        backend = _with_deblurring(backend, parameters)
        cloud_options(parameters).check_heads(backend.contract.outputs)
        pipeline = Pipeline(backend, thresholds(parameters))
        self_test = _self_test(backend) if parameters.self_test else "switched off"
        check()
        warm_up_ms = _warm_up(backend, parameters)
    except BaseException:
        backend.close()
        raise
    heads = tuple(head for head in TOPICS if head in backend.contract.outputs)
    path = str(plan.model_path)
    return LoadedModel(backend, pipeline, path, heads, warm_up_ms, self_test, plan, switch)


def _with_deblurring(backend: Backend, parameters: NodeParameters) -> Backend:
    """The backend, with the second model behind it if there is one."""
    if not parameters.deblur_model_path:
        return backend
    options = BackendOptions(threads=parameters.threads, precision=parameters.precision)
    path = resolve_model(parameters.deblur_model_path, parameter="deblur_model_path")
    return TwoStageBackend(backend, DeblurStage(path, parameters.runtime, options))


def _self_test(backend: Backend) -> str:
    result = backend.self_test()
    if not result["checked"]:
        return "no golden sample in the contract"
    worst = max(result["mismatch"].values(), default=0.0)
    return f"passed, worst error {worst:.2g} of the tolerance"


def _warm_up(backend: Backend, parameters: NodeParameters) -> float:
    """Warm up the selections of heads that are likely first: depth alone, and everything."""
    height, width = parameters.warm_up_height, parameters.warm_up_width
    if not height or not width:
        return math.nan
    contract = backend.contract  # larger images are cropped or scaled to a fixed size
    height = min(height, contract.input_height or height)
    width = min(width, contract.input_width or width)
    outputs = contract.outputs
    if "depth_m" in outputs and len(outputs) > 1:
        backend.warm_up(height, width, ("depth_m",))
    return backend.warm_up(height, width, tuple(head for head in TOPICS if head in outputs))
