"""Plain values (YAML) into frozen dataclasses, naming the key that does not fit."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from ddfd_ros.core.lens_calibration import LensCalibrationError
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training.calibration.files import CALIBRATION_SUFFIXES, read_calibration


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written 1e-4, as in YAML 1.2, and whose keys stand once."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"{key.value} twice; take one away", key.start_mark
                )
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    [*"-+0123456789"],
)


def read_yaml(text: str) -> Any:
    """Plain values from YAML; 1e-4 is a number.

    Raises:
        yaml.YAMLError: It is no YAML, or a mapping has a key twice, of which one would be ignored.
    """
    return yaml.load(text, _Loader)


def build_record(kind: Any, value: Any, where: str = "") -> Any:
    """Make ``value`` (plain YAML) the type ``kind``.

    Args:
        kind: A dataclass, ``LensConfig`` (a preset's name, or a calibration file, may stand
            for it), a tuple, or a plain type.
        value: What the file holds.
        where: The key, for messages.

    Raises:
        ValueError: An unknown key or a value of the wrong kind; the message names the key.
    """
    origin = typing.get_origin(kind)
    if kind is LensConfig and isinstance(value, str):
        return _lens(value, where)
    if is_dataclass(kind):
        return _build_record(kind, value, where)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), value, where)
    if origin is not None and origin is not types.UnionType:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected a mapping, got {value!r}")
        return dict(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        return _number(value, where)  # YAML reads 1e-4 as text
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def check_range(where: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside ``low`` to ``high``.

    Raises:
        ValueError: It is; the message names the key ``where``.
    """
    if not low <= value <= high:
        wanted = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        raise ValueError(f"{where}: expected {wanted}, got {value:g}")


def _build_record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'settings'}: expected a mapping, got {value!r}")
    known = typing.get_type_hints(kind)
    names = [item.name for item in fields(kind)]
    for key in value:
        if key not in names:
            raise ValueError(
                f"unknown setting {where}{'.' if where else ''}{key}; known: {', '.join(names)}"
            )
    required = [
        f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING
    ]
    if missing := [name for name in required if name not in value]:
        raise ValueError(f"{where}: expected also {', '.join(missing)}")
    inner = {
        key: build_record(known[key], item, f"{where}.{key}".lstrip("."))
        for key, item in value.items()
    }
    return kind(**inner)


def _build_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where}: expected a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        return tuple(build_record(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(kinds):
        raise ValueError(f"{where}: expected {len(kinds)} values, got {len(value)}")
    return tuple(
        build_record(kind, item, f"{where}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _lens(text: str, where: str) -> LensConfig:
    """A preset by its name, or the lens of a calibration file."""
    if text in LENS_PRESETS:
        return LENS_PRESETS[text]
    if Path(text).suffix not in CALIBRATION_SUFFIXES:
        known = ", ".join(LENS_PRESETS)
        raise ValueError(f"{where}: expected one of {known}, or a .yaml file, got {text!r}")
    try:
        return read_calibration(Path(text)).spread_lens
    except LensCalibrationError as error:
        raise ValueError(f"{where}: {error}") from error


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where}: expected a number, got {text!r}") from error
