"""Every data set by name: the one place where recipes and command lines look them up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import RgbdDataset


@dataclass(frozen=True)
class Entry:
    """Where a data set's class is, and what it is in a few words.

    Attributes:
        home: ``module:Class`` in this package.
        summary: What it has, for lists.
        folder: Name of its folder below ``$DDFD_DATA``.
    """

    home: str
    summary: str
    folder: str = ""

    def load(self) -> Callable[..., RgbdDataset]:
        """The class."""
        module, _, name = self.home.partition(":")
        found: Callable[..., RgbdDataset] = vars(import_module(f"{__package__}.{module}"))[name]
        return found


DATASETS: Mapping[str, Entry] = {
    "nyuv2": Entry("nyuv2:Nyuv2", "rooms, sharp, depth; folders or the .mat file", "nyuv2"),
    "nyuv2_mat": Entry("nyuv2_mat:Nyuv2Mat", "the same, from the .mat file", "nyuv2"),
    "idfd": Entry("idfd:Idfd", "rooms, defocused and sharp, depth", "idfd"),
    "dfd_dslr": Entry("dfd_dslr:DfdDslr", "rooms, f/2.8 and f/8, depth", "dfd_dslr"),
    "dfd_outdoor": Entry("dfd_outdoor:DfdOutdoor", "outdoors, f/2.8 and f/8", "dfd_outdoor"),
    "diode": Entry("diode:Diode", "rooms and streets, sharp, depth", "diode"),
    "make3d": Entry("make3d:Make3D", "outdoors, sharp, coarse depth", "make3d"),
    "dpdd": Entry("dpdd:Dpdd", "16 bit, defocused and sharp, dual-pixel views", "dpdd"),
    "realdof": Entry("realdof:RealDof", "defocused and sharp, for testing", "realdof"),
    "syndof": Entry("syndof:Syndof", "simulated defocus with its map", "syndof"),
    "rtf": Entry("rtf:Rtf", "light field: defocused, sharp, defocus map", "rtf"),
    "ded": Entry("ded:Ded", "light field: defocused, sharp, defocus map", "ded"),
    "cuhk": Entry("cuhk:Cuhk", "photographs with masks of blur", "cuhk"),
    "diw": Entry("diw:Diw", "photographs with pairs of points in order of depth", "diw"),
    "folder": Entry("rgbd_folder:RgbdFolder", "your own: rgb/, depth/, sharp/"),
    "bag": Entry("bag:Bag", "your own: a ROS 2 bag with colour and depth"),
    "synthetic": Entry("synthetic_scenes:SyntheticScenes", "rendered rooms, sharp, depth"),
}
"""Data sets by the name that recipes and command lines use."""


def dataset_class(name: str) -> Callable[..., RgbdDataset]:
    """The class of a data set.

    Raises:
        DatasetError: No such data set.
    """
    if name not in DATASETS:
        raise DatasetError(f"data set: expected one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name].load()


def open_dataset(
    name: str, root: str | Path = "", split: str | None = None, **options: Any
) -> RgbdDataset:
    """Open a data set in its own layout.

    Args:
        name: One of :data:`DATASETS`.
        root: Its folder (or file); ``synthetic`` has none.
        split: One of the set's splits; ``None`` for its first.
        options: Keyword arguments of the set's class.

    Raises:
        DatasetError: Unknown name or option, or the folder is not as expected.

    Example:
        >>> pairs = open_dataset("dpdd", "data/dpdd", "test", views=True)  # doctest: +SKIP
    """
    if name == "nyuv2":
        from ddfd_training.datasets.nyuv2_mat import find_mat

        name = "nyuv2_mat" if find_mat(Path(root)) else name
    make = dataset_class(name)
    known = option_names(name)
    for option in options:
        if option not in known:
            raise DatasetError(
                f"{name}: expected options among {', '.join(known) or 'none'}, got {option!r}"
            )
    if "root" not in inspect.signature(make).parameters:
        return make(**options)
    if not str(root):
        raise DatasetError(f"{name}: expected its folder as root (--root), got none")
    return make(root, **options) if split is None else make(root, split, **options)


def option_names(name: str) -> list[str]:
    """The options that :func:`open_dataset` takes for a data set.

    Raises:
        DatasetError: No such data set.
    """
    parameters = inspect.signature(dataset_class(name)).parameters
    return [key for key in parameters if key not in ("root", "split")]
