"""From a source to the spool: scale to the model's pixels, blur what is still sharp, store."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ddfd_demo.errors import InputError
from ddfd_demo.sources.base import DemoFrame, Source
from ddfd_demo.spool import Spool
from ddfd_ros.core.thin_lens import LensConfig

_In = TypeVar("_In")
_Out = TypeVar("_Out")

LARGEST_PX = 1024
"""Pictures of unknown cameras with a longer side than this are scaled down to ``TYPICAL_PX``."""
TYPICAL_PX = 640
"""Longer side of the pictures that the shipped models were trained on."""


@dataclass(frozen=True)
class Prepared:
    """What is in the spool now.

    Attributes:
        count: Number of frames.
        notes: What was done to them on the way, in words for the report.
        lens: Lens that took them, real or simulated, at their size there; None: unknown.
    """

    count: int
    notes: tuple[str, ...]
    lens: LensConfig | None = None


def scale_to_model(
    width: int, height: int, lens: LensConfig | None, model_lens: LensConfig | None
) -> tuple[float, str | None]:
    """By how much a picture must be resized for the model, and why, in words.

    Blur in pixels is what the model measures: resizing a picture changes it. A known lens is
    therefore brought to exactly the pixel pitch the model was trained at. Of an unknown one
    nothing is known that resizing could spoil; only large pictures are made smaller.
    """
    size = f"{width}x{height}"
    if lens is not None and model_lens is not None:
        scale = lens.pixel_pitch_m / model_lens.pixel_pitch_m
        if abs(scale - 1) < 0.01:
            return 1.0, None
        return scale, (
            f"{size} pictures scaled by {scale:.3g}: pixel pitch {lens.pixel_pitch_m * 1e6:.3g} "
            f"um, the model's is {model_lens.pixel_pitch_m * 1e6:.3g} um"
        )
    longest = max(width, height)
    if longest <= LARGEST_PX:
        return 1.0, None
    scale = TYPICAL_PX / longest
    return scale, (
        f"{size} pictures scaled by {scale:.3g} (longer side {TYPICAL_PX}, as the model was "
        "trained on); --scale 1 feeds them whole"
    )


def prepare(
    source: Source,
    spool: Spool,
    model_lens: LensConfig | None,
    *,
    any_lens: bool = False,
    scale: float | None = None,
    progress: Callable[[int, str], None] = lambda done, name: None,
) -> Prepared:
    """Read every frame of ``source`` into ``spool``, ready to be played.

    Args:
        source: Any input but a camera, whose frames do not exist yet.
        spool: Where the frames go.
        model_lens: Lens of the model's contract; needed to blur sharp RGB-D frames.
        any_lens: Whether the model takes the camera's lens: its pixels may have any pitch.
        scale: Resize by this instead of what :func:`scale_to_model` says.
        progress: Called with the number of frames done and the latest one's name.

    Raises:
        InputError: A frame cannot be prepared, or there is none.
    """
    notes: dict[str, None] = {}
    count = 0
    lens = source.info.lens
    fitting = lens if any_lens else model_lens
    taken_with: LensConfig | None = None

    def ready(frame: DemoFrame) -> tuple[DemoFrame, LensConfig | None, str | None]:
        scaled, by, why = _fit(frame, lens, fitting, scale)
        if scaled.image_rgb is None:
            return blur(scaled, model_lens), model_lens, why
        return scaled, None if lens is None else lens.scaled(by), why

    for frame, frame_lens, why in _side_by_side(ready, source.frames()):
        if why is not None:
            notes[why] = None
        if not spool.add(frame):
            notes[
                f"cut after {count} of {len(source)} frames: they would take more than "
                f"{spool.max_bytes / 2**30:.2g} GiB of disk; --max-frames chooses"
            ] = None
            break
        count += 1
        taken_with = taken_with or frame_lens
        progress(count, frame.name)
    notes |= dict.fromkeys(source.remarks())
    if count == 0:
        raise InputError(
            f"{source.info.title}: expected at least one frame, got none; is the input complete?"
        )
    return Prepared(count, tuple(notes), taken_with)


def _side_by_side(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """``work`` of each item in order, on all processors; only a few items ahead are held."""
    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def blur(frame: DemoFrame, lens: LensConfig | None) -> DemoFrame:
    """Photograph a sharp frame of known depth with ``lens`` (``ddfd_training.optics``).

    Raises:
        InputError: The frame has no sharp picture or no depth, or the model names no lens.
    """
    if lens is None:
        raise InputError(
            f"{frame.name}: expected a model whose contract names the lens to simulate, got one "
            "without; choose another with --model, or feed the pictures as they are (--natural)"
        )
    if frame.sharp_rgb is None or frame.depth_m is None:
        raise InputError(
            f"{frame.name}: expected a picture with depth to simulate the lens, got only one of "
            "them; feed the pictures as they are (--natural)"
        )
    import torch

    from ddfd_training.depth_fill import fill_depth
    from ddfd_training.optics import render_defocus

    torch.set_num_threads(1)  # frames are rendered side by side: that scales better
    # The simulator needs depth everywhere; scores use only what was measured.
    depth_m = fill_depth(np.where(frame.depth_m > 0, frame.depth_m, np.float32(np.nan)))
    rgb = torch.from_numpy(frame.sharp_rgb).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        image = render_defocus(rgb, torch.from_numpy(depth_m)[None, None], lens)[0]
    image_rgb = (image.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return replace(frame, image_rgb=np.ascontiguousarray(image_rgb))


def _fit(
    frame: DemoFrame, lens: LensConfig | None, model_lens: LensConfig | None, scale: float | None
) -> tuple[DemoFrame, float, str | None]:
    """The frame at the size it is played at, by how much it was resized, and why."""
    picture = frame.image_rgb if frame.image_rgb is not None else frame.sharp_rgb
    if picture is None:
        raise InputError(f"{frame.name}: expected a picture, got none; remove it from the input")
    height, width = picture.shape[:2]
    why = None
    if scale is None:
        scale, why = scale_to_model(width, height, lens, model_lens)
    elif scale != 1.0:
        why = f"{width}x{height} pictures scaled by {scale:.3g} (--scale)"
    return frame.resized(scale), scale, why
