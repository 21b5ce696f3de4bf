"""From bag to bag: what is answered, in which parts, and what the result depends on."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddfd_ros.bag.answers import CLOUD, TOPICS, FrameAnswers
from ddfd_ros.bag.errors import BagError
from ddfd_ros.bag.source import BagSource, Camera
from ddfd_ros.bag.writing import PartedBag, Put, Topic, Totals
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.inference import Backend, open_backend
from ddfd_ros.inference.base import BackendOptions
from ddfd_ros.inference.deblur_stage import DeblurStage, TwoStageBackend
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
        problems: What was wrong with camera_info or lens, with the number of frames of this run.
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
    model = resolve_model(parameters.model_path)
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
            return _Conversion(job, parameters, source, camera, backend).run(progress)
        finally:
            backend.close()


def _with_deblurring(backend: Backend, parameters: NodeParameters) -> Backend:
    """The backend, with the second model behind it if there is one."""
    if not parameters.deblur_model_path:
        return backend
    options = BackendOptions(threads=parameters.threads, precision=parameters.precision)
    path = resolve_model(parameters.deblur_model_path)
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
        self._answers = FrameAnswers(
            backend,
            parameters,
            _heads(job, backend.contract.outputs),
            job.points,
            job.namespace.rstrip("/"),
            source.camera_infos(camera.info),
            source.typestore,
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
        bag = PartedBag(
            job.target,
            self._topics,
            self._source.typestore,
            job.storage,
            self._run,
            job.overwrite,
        )
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
        names = tuple(topic.name for topic in self._topics)
        return BagResult(totals, resumed, self._camera, names, self._answers.problems)

    def _parts(self) -> Iterator[tuple[int, Iterator[tuple[Any, int, bytes]]]]:
        """The bag's messages in parts, each beginning with one of its frames (but the first)."""
        topics = {self._camera.image, *(topic.name for topic in self._copied)}
        seen = itertools.count()
        number = 0

        def part_of(item: tuple[Any, int, bytes]) -> int:
            nonlocal number
            if item[0].topic == self._camera.image:
                number = next(seen) // self._job.part_frames
            return number

        yield from itertools.groupby(self._source.messages(topics), key=part_of)

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
            if connection.topic != self._camera.image:
                continue
            totals.frames += 1
            try:
                message = self._source.deserialize(raw, connection.msgtype)
                answer = list(self._answers.answer(message))
            except DdfdError as error:
                failed[f"{type(error).__name__}: {error}"] += 1
            else:
                totals.answered += 1
                for topic, content in answer:
                    put(topic, time_ns, content)
            progress(first + totals.frames, self._camera.frames)
        totals.failed = dict(failed)
        return totals

    def _copied_topics(self) -> list[Topic]:
        names = {
            "none": set(),
            "camera": {self._camera.image, self._camera.info} - {""},
            "all": {one.topic for one in self._source.connections},
        }[self._job.copy]
        found = {}
        for one in self._source.connections:
            if one.topic in names:
                found[one.topic] = Topic(
                    one.topic, one.msgtype, one.msgdef.data or "", one.digest or ""
                )
        return [found[name] for name in sorted(found)]


def _heads(job: BagJob, available: tuple[str, ...]) -> tuple[str, ...]:
    """The heads to answer, those that have a topic."""
    heads = job.heads or tuple(head for head in TOPICS if head in available)
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
    deblur = parameters.deblur_model_path
    digest = hashlib.sha256(resolve_model(deblur).read_bytes()).hexdigest() if deblur else ""
    kept = {name: getattr(job, name) for name in ("heads", "points", "namespace", "copy")}
    return {
        "input": {
            "topics": {one.topic: one.msgcount for one in source.connections},
            "camera": asdict(camera),
        },
        "job": kept | {"storage": job.storage, "part_frames": job.part_frames},
        "parameters": asdict(parameters),
        "model": backend.contract.weights_sha256,
        "deblur_model": digest,
        "runtime": f"{backend.runtime}, {backend.device}",
    }
