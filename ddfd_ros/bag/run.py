"""From bag to bag: what is answered, in which parts, and what the result depends on."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ddfd_ros.bag.answers import CLOUD, TOPICS, FrameAnswers
from ddfd_ros.bag.errors import BagError
from ddfd_ros.bag.source import IMAGE_TYPES, BagSource, Camera
from ddfd_ros.bag.writing import PartedBag, Put, Topic, Totals, check_apart
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.inference import Backend, open_backend
from ddfd_ros.inference.base import BackendOptions
from ddfd_ros.inference.deblur_stage import DeblurStage, TwoStageBackend
from ddfd_ros.inference.engine_manifest import file_sha256
from ddfd_ros.ros.parameters import NodeParameters

COPIES = ("none", "camera", "all")


@dataclass(frozen=True)
class BagJob:
    """What to do.

    Attributes:
        source: The recorded bag.
        target: The bag to write.
        image_topic: Of the camera; empty: the likeliest.
        info_topic: Its camera_info; empty: the image topic's sibling.
        heads: Outputs wanted; empty: all the model has.
        points: Whether to make a point cloud.
        namespace: In front of the topics.
        copy: Which recorded topics are copied: ``none``, ``camera`` or ``all``.
        storage: ``mcap`` or ``sqlite3``.
        part_frames: Frames per file; a killed run loses at most so many.
        overwrite: Whether to replace what is there.
    """

    source: Path
    target: Path
    image_topic: str = ""
    info_topic: str = ""
    heads: tuple[str, ...] = ()
    points: bool = False
    namespace: str = ""
    copy: str = "none"
    storage: str = "mcap"
    part_frames: int = 100
    overwrite: bool = False


@dataclass(frozen=True)
class BagResult:
    """What was done.

    Attributes:
        totals: What became of the frames, of earlier runs too.
        resumed_frames: Frames that an earlier run had answered.
        camera: The topics that were answered.
        topics: The topics written.
        problems: What was wrong, but did not keep a frame from being answered, and how often in
            this run.
    """

    totals: Totals
    resumed_frames: int
    camera: Camera
    topics: tuple[str, ...]
    problems: dict[str, int]


def convert(
    job: BagJob, parameters: NodeParameters, progress: Callable[[int, int], None]
) -> BagResult:
    """Answer every image of a bag.

    Args:
        job: What to do.
        parameters: The node's, as in its YAML file.
        progress: Called with frames done and frames in all.

    Raises:
        DdfdError: The bag or the model cannot be used.
    """
    check_apart(job.source, job.target)
    model = resolve_model(parameters.model_path, parameter="--model or model_path")
    with BagSource(job.source) as source:
        camera = source.camera(job.image_topic, job.info_topic)
        backend = open_backend(
            model,
            parameters.runtime,
            threads=parameters.threads,
            device=parameters.device,
            precision=parameters.precision,
        )
        try:
            backend = _with_deblurring(backend, parameters)
            if parameters.self_test:
                backend.self_test()
            return _Conversion(job, parameters, source, camera, backend).run(progress)
        finally:
            backend.close()


def _with_deblurring(backend: Backend, parameters: NodeParameters) -> Backend:
    """The backend, with the second model behind it if there is one."""
    if not parameters.deblur_model_path:
        return backend
    options = BackendOptions(threads=parameters.threads, precision=parameters.precision)
    path = resolve_model(parameters.deblur_model_path, parameter="deblur_model_path")
    return TwoStageBackend(backend, DeblurStage(path, parameters.runtime, options))


class _Conversion:
    """One run over an open bag with an open model."""

    def __init__(
        self,
        job: BagJob,
        parameters: NodeParameters,
        source: BagSource,
        camera: Camera,
        backend: Backend,
    ) -> None:
        self._job, self._source, self._camera = job, source, camera
        self._parameters = parameters
        self._problems: dict[str, int] = {}
        namespace = job.namespace.strip("/")
        infos = source.camera_infos(camera.info)
        if infos.damaged:
            self._problems[f"damaged messages on {camera.info} were passed over"] = infos.damaged
        self._answers = FrameAnswers(
            backend,
            parameters,
            _heads(job, backend.contract.outputs),
            job.points,
            f"/{namespace}" if namespace else "",
            infos,
            source.typestore,
            camera.image,
        )
        self._copied = self._copied_topics()
        answered = self._answers.topics()
        if both := {one.name for one in answered} & {one.name for one in self._copied}:
            raise BagError(
                f"{job.source}: expected no topic of the answers in the bag, got "
                f"{', '.join(sorted(both))}; give the answers a --namespace, or copy fewer topics"
            )
        self._topics = [*self._copied, *answered]
        self._run = _description(job, parameters, camera, backend, source)

    def run(self, progress: Callable[[int, int], None]) -> BagResult:
        job, frames = self._job, self._camera.frames
        store = self._source.typestore
        with PartedBag(
            job.target, self._topics, store, job.storage, self._run, job.overwrite
        ) as bag:
            done = bag.done
            resumed = min(done * job.part_frames, frames)
            progress(resumed, frames)
            for number, messages in self._parts():
                if number < done:
                    for _ in messages:
                        pass
                    continue
                fill = functools.partial(
                    self._fill, messages, number * job.part_frames, progress=progress
                )
                bag.write(number, fill)
            totals = bag.finish()
        if (missing := frames - totals.frames) > 0:
            totals.failed["metadata.yaml promises them, the files do not hold them"] = missing
        names = tuple(topic.name for topic in self._topics)
        problems = self._problems | self._answers.problems
        return BagResult(totals, resumed, self._camera, names, problems)

    def _parts(self) -> Iterator[tuple[int, Iterator[tuple[Any, int, bytes]]]]:
        """The bag's messages in parts, each beginning with one of its frames (but the first)."""
        topics = {self._camera.image, *(topic.name for topic in self._copied)}
        seen = itertools.count()
        number = 0

        def part_of(item: tuple[Any, int, bytes]) -> int:
            nonlocal number
            if self._is_frame(item[0]):
                number = next(seen) // self._job.part_frames
            return number

        yield from itertools.groupby(self._source.messages(topics), key=part_of)

    def _is_frame(self, connection: Any) -> bool:
        return connection.topic == self._camera.image and connection.msgtype in IMAGE_TYPES

    def _fill(
        self,
        messages: Iterator[tuple[Any, int, bytes]],
        first: int,
        put: Put,
        progress: Callable[[int, int], None],
    ) -> Totals:
        totals, failed = Totals(), Counter[str]()
        copied = {topic.name for topic in self._copied}
        for connection, time_ns, raw in messages:
            if connection.topic in copied:
                put(connection.topic, time_ns, raw)
            if not self._is_frame(connection):
                continue
            totals.frames += 1
            try:
                message = self._source.deserialize(raw, connection.msgtype)
                answer = list(self._answers.answer(message))
            except OSError:  # this machine's fault, not the message's
                raise
            except Exception as error:  # whatever a damaged message makes the decoders raise
                failed[f"{type(error).__name__}: {error}"] += 1
            else:
                totals.answered += 1
                for topic, content in answer:
                    put(topic, time_ns, content)
            progress(first + totals.frames, self._camera.frames)
        totals.failed = dict(failed)
        if _digest(self._parameters.lens_calibration) != self._run["lens_calibration"]:
            raise BagError(
                f"{self._parameters.lens_calibration}: expected the calibration to stay as it is, "
                "got another one during the run; begin anew with --overwrite"
            )
        return totals

    def _copied_topics(self) -> list[Topic]:
        names = {
            "none": set(),
            "camera": {self._camera.image, self._camera.info} - {""},
            "all": {one.topic for one in self._source.connections},
        }[self._job.copy]
        found: dict[str, Topic] = {}
        for one in self._source.connections:
            if one.topic not in names:
                continue
            if (definition := self._source.definition(one)) is None:
                reason = f"{one.topic}: not copied, the bag does not define {one.msgtype}"
                self._problems[reason] = one.msgcount
                continue
            before = found.get(one.topic, Topic(one.topic, one.msgtype, *definition))
            if before.msgtype != one.msgtype:
                raise BagError(
                    f"{self._source.path}: expected one type on {one.topic}, got "
                    f"{before.msgtype} and {one.msgtype}; copy fewer topics"
                )
            # Several publishers, each with its own quality of service.
            more = [qos for qos in one.ext.offered_qos_profiles if qos not in before.qos]
            found[one.topic] = replace(before, qos=(*before.qos, *more))
        return [found[name] for name in sorted(found)]


def _heads(job: BagJob, available: tuple[str, ...]) -> tuple[str, ...]:
    """The heads to answer, those that have a topic."""
    heads = tuple(dict.fromkeys(job.heads)) or tuple(head for head in TOPICS if head in available)
    missing = [head for head in heads if head not in available]
    if missing or (job.points and "depth_m" not in available):
        raise BagError(
            f"heads: expected some of {list(available)}, which the model has, got "
            f"{', '.join(missing) or CLOUD}; leave them out or use another model"
        )
    return heads


def _description(
    job: BagJob,
    parameters: NodeParameters,
    camera: Camera,
    backend: Backend,
    source: BagSource,
) -> dict[str, Any]:
    """Everything that the written bytes depend on."""
    kept = {name: getattr(job, name) for name in ("heads", "points", "namespace", "copy")}
    models = (parameters.model_path, parameters.deblur_model_path)
    # The files, not the weights alone: one network's weights make several graphs.
    model, deblur = (_digest(str(resolve_model(name))) if name else "" for name in models)
    return {
        "input": {
            "topics": {one.topic: one.msgcount for one in source.connections},
            "camera": asdict(camera),
            "files": source.digest(),
        },
        "job": kept | {"storage": job.storage, "part_frames": job.part_frames},
        "parameters": asdict(parameters),
        "model": model,
        "deblur_model": deblur,
        "lens_calibration": _digest(parameters.lens_calibration),
        "runtime": f"{backend.runtime}, {backend.device}",
    }


def _digest(path: str) -> str:
    """SHA-256 of a file; empty where there is none."""
    file = Path(path).expanduser()
    return file_sha256(file) if file.is_file() else ""
