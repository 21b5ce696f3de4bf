"""The worker between the camera's messages and the published answers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from ddfd_ros.core.errors import DdfdError, InferenceError
from ddfd_ros.core.worker import LatestWorker
from ddfd_ros.ros import diagnostics
from ddfd_ros.ros.answers import Answer, Answers, Job
from ddfd_ros.ros.camera_infos import stamp_ns
from ddfd_ros.ros.engine_keeper import EngineKeeper, EngineStatus, keep_engine
from ddfd_ros.ros.inputs import IMAGE_TOPIC
from ddfd_ros.ros.lens import cloud_options
from ddfd_ros.ros.model import LoadedModel, load_model, thresholds
from ddfd_ros.ros.outputs import Outputs
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_ros.ros.statistics import Snapshot, Statistics
from ddfd_ros.ros.throttle import ThrottledLog

_POLL_S = 0.05


class Runner:
    """Owns the worker and, through it, the model; lives from configure to cleanup.

    The worker's thread decodes, infers, encodes and publishes. rclpy publishers are thread-safe,
    and a result handed back to the executor would wait there behind the next image's arrival, so
    it publishes itself; the executor's thread only puts messages into the mailbox.

    Attributes:
        parameters: The parameters in force; replaced as a whole, from any thread.
        model: The loaded model; None before ``load``.
        outputs: The publishers; set by the node after ``load``.
        last_failure: The last frame's error; empty when the last frame was answered, or was
            dropped.
    """

    def __init__(self, node: Any, parameters: NodeParameters, statistics: Statistics) -> None:
        self.parameters = parameters
        self.model: LoadedModel | None = None
        self.outputs: Outputs | None = None
        self.last_failure = ""
        self._node = node
        self._statistics = statistics
        self._log = ThrottledLog()
        topic = node.resolve_topic_name(IMAGE_TOPIC)
        self._answers = Answers(self._warn, statistics, topic)
        self._active = False
        self._counting = threading.Lock()
        self._counted: dict[str, int] = {}
        self._activation = 0
        self._cancelled = False
        self._keeper: EngineKeeper | None = None
        self._worker: LatestWorker[LoadedModel, Job, Answer | None] = LatestWorker(
            self._load, self._process, self._publish, self._failed
        )

    @property
    def camera_problem(self) -> str:
        """What is wrong with camera_info, in words; empty when nothing is."""
        return self._answers.camera_problem

    @property
    def lens_problem(self) -> str:
        """How the camera's lens differs from the model's; empty when it does not."""
        return self._answers.lens_problem

    def load(self, stop_requested: Callable[[], bool]) -> LoadedModel:
        """Start the worker and wait until its model is ready, or until the process is to stop.

        Raises:
            DdfdError: The model cannot serve, or the process is to stop.
        """
        started: Future[None] = Future()

        def start() -> None:
            try:
                self._worker.start()
            except BaseException as error:
                started.set_exception(error)
            else:
                started.set_result(None)

        # start() waits without end (an engine may take minutes to build); a signal must not.
        threading.Thread(target=start, name="ddfd-start", daemon=True).start()
        while not wait([started], _POLL_S).done:
            if stop_requested():
                self._cancelled = True
                raise InferenceError("loading the model: expected to finish, got a stop request")
        started.result()
        if self.model is None:
            raise InferenceError("loading the model: expected a model, got none")
        self._keeper = keep_engine(self.model, self._worker, self._node.get_logger())
        return self.model

    def update(self, parameters: NodeParameters) -> None:
        """Take over live parameters; they hold from the next frame on.

        Raises:
            ContractError: The model cannot fulfil them; nothing has changed then.
        """
        if self.model is not None:
            cloud_options(parameters).check_heads(self.model.contract.outputs)
            self.model.pipeline.thresholds = thresholds(parameters)
        self.parameters = parameters

    def activate(self) -> None:
        """Answer frames from now on."""
        self.last_failure = ""
        self._statistics.listen()
        self._answers.activate()
        self._activation += 1
        self._active = True

    def deactivate(self) -> None:
        """Answer no more frames; the one at hand is finished, but not published."""
        self._active = False
        self._worker.wait_idle(1.0)

    def submit(self, message: Any) -> None:
        """Offer an image message; called in the executor's thread."""
        received_ns = time.monotonic_ns()
        self._statistics.count_received(stamp_ns(message.header.stamp))
        self._worker.submit(Job(message, received_ns, self._activation))
        self._count_drops()

    def take_camera_info(self, info: Any) -> None:
        """Keep a ``CameraInfo``; called in the executor's thread."""
        self._answers.camera_infos.add(info)

    def snapshot(self) -> Snapshot:
        """The statistics, with what the worker's mailbox dropped."""
        self._count_drops()
        return self._statistics.snapshot()

    @property
    def engine_status(self) -> EngineStatus:
        """How it stands with the TensorRT engine, for the diagnostics."""
        if self._keeper is not None:
            return self._keeper.status
        return EngineStatus(degraded="" if self.model is None else self.model.plan.reason)

    def close(self, timeout_s: float) -> bool:
        """End the worker, which closes the model, and withdraw the topics.

        Returns:
            Whether that succeeded in ``timeout_s``; if not, it may be asked for again.
        """
        self._active = False
        if self._keeper is not None:
            self._keeper.ask_to_end()
        stopped = self._worker.stop(timeout_s)
        if self._keeper is not None:
            stopped = self._keeper.wait(timeout_s) and stopped
        self._count_drops()
        if stopped and self.outputs is not None:  # a frame at hand may just be published
            self.outputs.destroy()
            self.outputs = None
        return stopped

    def _count_drops(self) -> None:
        """Take what the worker's mailbox dropped since the last call into the statistics.

        At once, not at the end: a report while the worker ends would find it in neither, and a
        counter that falls means a restarted node to whoever sums up.
        """
        with self._counting:
            counts = self._worker.counts
            for name, number in (("replaced", counts.replaced), ("inactive", counts.refused)):
                if more := number - self._counted.get(name, 0):
                    self._statistics.count_dropped(name, more)
                    self._counted[name] = number

    def _load(self) -> LoadedModel:
        def check() -> None:
            if self._cancelled:
                raise InferenceError("loading the model: cancelled")

        self.model = load_model(self.parameters, check)
        return self.model

    def _process(self, model: LoadedModel, job: Job) -> Answer | None:
        """Answer one frame; None when it is dropped (and counted)."""
        parameters, outputs = self.parameters, self.outputs
        if not self._wanted(job) or outputs is None:
            self._statistics.count_dropped("inactive")
            return None
        stamp = job.message.header.stamp
        if 0 < parameters.max_age_s < (age_s := self._age_s(stamp)):
            self._drop_stale(f"{age_s:.3g} s" if stamp_ns(stamp) else "no stamp", parameters)
            self.last_failure = ""  # of another frame: this one's age is the trouble now
            return None
        answer = self._answers.answer(job, model, parameters, outputs)
        if answer is None:
            self._statistics.count_dropped("idle")
            self.last_failure = ""  # of a frame that somebody wanted, who has left
        return answer

    def _wanted(self, job: Job) -> bool:
        """Whether the node is active, and has been ever since the frame came."""
        return self._active and job.activation == self._activation

    def _publish(self, job: Job, answer: Answer | None) -> None:
        outputs = self.outputs
        if answer is None:
            return
        if not self._wanted(job) or outputs is None:  # deactivated meanwhile
            self._statistics.count_dropped("inactive")
            return
        begin_ns = time.monotonic_ns()
        outputs.send(answer.messages)
        if answer.estimate is None:  # camera_infos alone
            self._statistics.count_dropped("idle")
            self.last_failure = ""
            return
        end_ns = time.monotonic_ns()
        stages_ms = answer.stages_ms
        stages_ms["publish"] = (end_ns - begin_ns) / 1e6
        stages_ms["total"] = (end_ns - job.received_ns) / 1e6
        stamp = job.message.header.stamp
        self._statistics.count_answered(answer.estimate, self._age_s(stamp) * 1e3, stages_ms)
        self.last_failure = ""
        if outputs.wants_latency():
            name = self._node.get_fully_qualified_name().lstrip("/")
            message = diagnostics.latency(name, stages_ms, stamp)
            outputs.send_latency(message)

    def _failed(self, job: Job | None, error: Exception) -> None:
        """A frame, or the closing of the model, raised; the worker lives on."""
        text = str(error) if isinstance(error, DdfdError) else f"{type(error).__name__}: {error}"
        if job is None:
            self._node.get_logger().error(f"closing the model: {text}")
            return
        self._statistics.count_failed(type(error).__name__)
        self.last_failure = f"frame not answered: {text}"
        self._log(self._node.get_logger().error, self.last_failure)

    def _warn(self, text: str) -> None:
        """Not more than now and then: a camera may change its mind with every frame."""
        self._log(self._node.get_logger().warning, text)

    def _drop_stale(self, got: str, parameters: NodeParameters) -> None:
        self._statistics.count_dropped("stale")
        self._log(
            self._node.get_logger().warning,
            f"frame dropped: expected an age of at most {parameters.max_age_s} s (max_age_s), got "
            f"{got}; synchronise the clocks, set use_sim_time for a bag, let the driver stamp its "
            "images, or raise max_age_s",
        )

    def _age_s(self, stamp: Any) -> float:
        """Age by the node's clock; NaN while that waits for its first /clock (use_sim_time)."""
        now_ns = self._node.get_clock().now().nanoseconds
        return (now_ns - stamp_ns(stamp)) / 1e9 if now_ns else math.nan
