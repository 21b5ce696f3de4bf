"""The lifecycle node: transitions, subscriptions, parameters and diagnostics over a ``Runner``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from ddfd_ros.core.errors import DdfdError, InferenceError
from ddfd_ros.core.platform_health import PlatformMonitor
from ddfd_ros.ros.bond import NodeBond, make_bond
from ddfd_ros.ros.diagnostics import NodeStatus, diagnostics
from ddfd_ros.ros.environment import active_profile
from ddfd_ros.ros.inputs import IMAGE_TOPIC, Inputs
from ddfd_ros.ros.lifecycle import answer_impossible_transitions, transition
from ddfd_ros.ros.outputs import Outputs
from ddfd_ros.ros.parameters import declare, unknown_overrides
from ddfd_ros.ros.reporter import Reporter
from ddfd_ros.ros.runner import Runner
from ddfd_ros.ros.statistics import Statistics
from ddfd_ros.ros.throttle import ThrottledLog

DEFAULT_NAME = "ddfd"
_STOP_TIMEOUT_S = 1.0
_NO_CLOCK = (
    "use_sim_time is set, and nothing came on /clock: ages are not known, and no frame is too "
    "old; start what publishes /clock, or set use_sim_time to false"
)


class DdfdNode(LifecycleNode):
    """Depth and all-in-focus images from one camera.

    Args:
        stop_requested: Tells whether the process is to end, so that loading does not delay that.
        name: The node's name.
        options: Further arguments of ``rclpy.node.Node``.

    Raises:
        ParameterError, rclpy.exceptions.ParameterException: A start value is refused.
    """

    def __init__(
        self,
        stop_requested: Callable[[], bool] = lambda: False,
        name: str = DEFAULT_NAME,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._stop_requested = stop_requested
        self._settings = declare(self)
        if unknown := unknown_overrides(self):
            self.get_logger().warning(
                f"parameters: expected those of config/ddfd.yaml, got also {', '.join(unknown)}, "
                "which nothing reads; check the spelling"
            )
        self._statistics = Statistics()
        self._runner: Runner | None = None
        self._all_ended = True
        self._inputs: Inputs | None = None
        self._bond: NodeBond | None = None
        self._load_error = ""
        self._log = ThrottledLog()
        self._platform = PlatformMonitor()
        self._configuring_since = time.monotonic()
        answer_impossible_transitions(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: with use_sim_time the node's own stands still until the first /clock.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        period_s = self._settings.diagnostics_period_s
        self._reporter = Reporter(self._report, period_s, self._report_failed)
        self._autostart_timer: Any | None = None
        if self._settings.autostart:
            self._autostart_timer = self.create_timer(
                1e-3, self._autostart, clock=self._steady_clock
            )
        self._reporter.start()

    @property
    def state(self) -> str:
        """The lifecycle state's label."""
        return str(self._state_machine.current_state[1])

    @transition
    def on_configure(self) -> None:
        """Load, verify and warm up the model; advertise the topics of its heads."""
        self._load_error = ""
        start = self._configuring_since = time.monotonic()
        runner = Runner(self, self._settings, self._statistics)
        self._runner = runner
        try:
            model = runner.load(self._stop_requested)
            runner.outputs = Outputs(
                self,
                model.heads,
                self._statistics,
                self._settings.compressed_output,
                self._settings.zones_output,
            )
        except Exception as error:
            self._load_error = f"configure failed: {error}"
            self._release()
            raise
        contract, warm_ms = model.contract, model.warm_up_ms
        warm = "no warm-up" if math.isnan(warm_ms) else f"warm-up {warm_ms:.0f} ms per frame"
        self.get_logger().info(
            f"{model.path}: {contract.network}, {contract.parameter_count} parameters, heads "
            f"{', '.join(model.heads)}, {contract.depth_min_m:g} to {contract.depth_max_m:g} m; "
            f"{model.backend.device}; self-test {model.self_test}; {warm}; ready after "
            f"{time.monotonic() - start:.1f} s"
        )

    @transition
    def on_activate(self) -> None:
        """Subscribe to the camera."""
        runner = self._runner
        if runner is None:
            raise InferenceError("activate: expected a loaded model, got none; configure again")
        self._load_error = ""
        runner.activate()
        transport = runner.parameters.image_transport
        try:
            self._inputs = Inputs(
                self, transport, runner.submit, runner.take_camera_info, self._statistics
            )
            self._bond = make_bond(self, self._settings.bond_heartbeat_period_s)
        except Exception as error:  # the node is unconfigured then; the diagnostics say why
            self._load_error = f"activate failed: {error}"
            raise

    @transition
    def on_deactivate(self) -> None:
        """Leave the camera's topics."""
        self._leave()
        if self._runner is not None:
            self._runner.deactivate()

    @transition
    def on_cleanup(self) -> None:
        """Free the model and withdraw the topics."""
        self._release()

    @transition
    def on_shutdown(self) -> None:
        """Free everything, from any state."""
        self._release()

    @transition
    def on_error(self) -> None:
        """Free everything; the node is unconfigured afterwards."""
        self._release()

    def close(self) -> bool:
        """Free everything without a transition, at the process's end.

        Returns:
            Whether the worker's thread has ended, and every one before it.
        """
        return self._release()

    def destroy_node(self) -> None:
        """Free the model and end the reports, then withdraw from the network."""
        self._release()
        self._reporter.close()
        super().destroy_node()

    def _release(self) -> bool:
        self._leave()
        runner, self._runner = self._runner, None
        if runner is not None:
            # As long as it takes, but a stop request may come meanwhile: a GPU may never answer.
            while not (ended := runner.close(_STOP_TIMEOUT_S)) and not self._stop_requested():
                pass
            # A stop request while the model loads releases in on_configure, before close() asks.
            self._all_ended = ended and self._all_ended
        return self._all_ended

    def _leave(self) -> None:
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.close()
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            inputs.destroy()

    def _autostart(self) -> None:
        timer, self._autostart_timer = self._autostart_timer, None
        if timer is None:
            return
        self.destroy_timer(timer)
        if self.state != "unconfigured":  # somebody was faster
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _on_parameters(self, changes: list[Any]) -> SetParametersResult:
        values = {change.name: change.value for change in changes}
        try:
            parameters = self._settings.changed(values, self._runner is not None)
            if self._runner is not None:
                self._runner.update(parameters)
        except DdfdError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # what is asked for from outside must not end the node
            reason = f"{type(error).__name__}: {error}"
            return SetParametersResult(successful=False, reason=reason)
        self._settings = parameters
        return SetParametersResult(successful=True)

    def _report_failed(self, error: Exception) -> None:
        self._log(self.get_logger().error, f"no diagnostics: {type(error).__name__}: {error}")

    def _report(self) -> None:
        """Publish the diagnostics; called in the reporter's thread."""
        runner = self._runner
        model = None if runner is None else runner.model
        state = self.state
        now, inputs = self.get_clock().now(), self._inputs
        topic = self.resolve_topic_name(IMAGE_TOPIC) if inputs is None else inputs.image_topic
        status = NodeStatus(
            state=state,
            profile=active_profile(),
            image_topic=topic,
            image_publishers=self.count_publishers(topic),
            clock_problem="" if now.nanoseconds else _NO_CLOCK,
            load_error=self._load_error if state == "unconfigured" else "",
            platform=self._platform.read(),
        )
        if state == "configuring":
            duration_s = time.monotonic() - self._configuring_since
            status = replace(status, progress=f"loading the model for {duration_s:.0f} s")
        snapshot = self._statistics.snapshot() if runner is None else runner.snapshot()
        if runner is not None and model is not None:
            engine = runner.engine_status
            status = replace(
                status,
                degraded=engine.degraded,
                progress=engine.progress or status.progress,
                engine_sha256=engine.sha256,
                model=model.path,
                model_sha256=model.contract.weights_sha256,
                runtime=model.backend.runtime,
                device=model.backend.device,
                camera_problem=runner.camera_problem,
                lens_problem=runner.lens_problem,
                last_failure=runner.last_failure,
            )
        name = self.get_fully_qualified_name().lstrip("/")
        self._diagnostics.publish(diagnostics(name, status, snapshot, now.to_msg()))
