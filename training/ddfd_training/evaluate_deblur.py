"""A deblurring model that must be told the depth, under evaluation: whose depth it is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import ContractError
from ddfd_ros.inference.base import Backend, BackendOptions
from ddfd_ros.inference.deblur_stage import DeblurStage, TwoStageBackend
from ddfd_training.evaluate import Model
from ddfd_training.evaluate_items import Item

DEPTHS = ("model", "data", "none")
"""Depth of the first model, of the data set's files, or none."""


class ToldByData:
    """The first model's answers, and a sharp image that was told the data set's depth, or none.

    Args:
        first: Answers everything else.
        stage: The deblurring model.
        known: Whether it is told the data set's depth.
    """

    def __init__(self, first: Model, stage: DeblurStage, *, known: bool) -> None:
        self._first, self._stage, self._known = first, stage, known
        self._depth_m: np.ndarray | None = None

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the one handed out last is the one that is asked about."""
        for item in items:
            self._depth_m = item.depth_m if self._known else np.full_like(item.depth_m, np.nan)
            yield item

    def infer(
        self, image: np.ndarray, heads: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Answer the watched item's image, uint8 ``[H, W, 3]``.

        Raises:
            ContractError: No item is watched, or it is of another size.
        """
        if self._depth_m is None or self._depth_m.shape != image.shape[:2]:
            raise ContractError(
                f"depth from the data set: expected depth of the image's size "
                f"{image.shape[:2]}, got {None if self._depth_m is None else self._depth_m.shape}"
            )
        outputs = self._first.infer(image, heads)
        return {**outputs, "sharp_rgb": self._stage.sharpen(image, self._depth_m)}


def with_deblurring(
    first: Backend, path: str, depth: str, items: Iterable[Item], options: BackendOptions
) -> tuple[Model, Iterable[Item]]:
    """The first model with a deblurring model behind it, and the items to ask it about.

    Args:
        first: The depth model.
        path: The deblurring model (``.onnx`` with inputs ``image`` and ``depth_m``); empty: none.
        depth: One of ``DEPTHS``.
        items: The evaluation set.
        options: For its runtime.

    Raises:
        DdfdError: The deblurring model cannot be used.
    """
    if not path:
        return first, items
    stage = DeblurStage(Path(path), "auto", options)
    if depth == "model":
        return TwoStageBackend(first, stage), items
    told = ToldByData(first, stage, known=depth == "data")
    return told, told.watch(items)
