"""Opens what an ``EnginePlan`` says, at configure, in the worker's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.inference import Backend, open_backend
from ddfd_ros.inference.base import ParityError
from ddfd_ros.inference.switching import SwitchingBackend
from ddfd_ros.ros.engine_plan import EnginePlan
from ddfd_ros.ros.parameters import NodeParameters


def open_serving(
    plan: EnginePlan, parameters: NodeParameters, check: Callable[[], None]
) -> tuple[Backend, EnginePlan]:
    """The backend that serves from now on, and the plan with what became of its engine.

    Args:
        plan: From ``plan_engine``.
        parameters: The node's.
        check: Called between the steps; what it raises ends the loading.

    Raises:
        DdfdError: The model cannot serve. ParityError: its engine answers wrongly, by how much.
    """
    standby = open_backend(
        plan.model_path,
        plan.runtime,
        threads=parameters.threads,
        device="cpu" if parameters.device == "auto" else parameters.device,
        precision=parameters.precision,
    )
    if plan.wish is None:
        return standby, plan
    backend = SwitchingBackend(standby)
    if plan.engine_path is None:
        return backend, plan
    try:
        check()
        reason = _install(plan.engine_path, backend, parameters.self_test)
    except BaseException:
        backend.close()
        raise
    return backend, replace(plan, engine_path=None, reason=reason) if reason else plan


def _install(path: Path, backend: SwitchingBackend, self_test: bool) -> str:
    """Let an engine answer; why it cannot, or nothing when it does."""
    try:
        engine = backend.stage(open_backend(path, "tensorrt"))
        if self_test:
            engine.self_test()
        backend.install(engine)
    except ParityError:
        raise  # an engine that answers wrongly is a fault of this machine: not to be passed over
    except DdfdError as error:
        backend.unstage()
        return str(error)  # served without it, and built again or tried again later
    return ""
