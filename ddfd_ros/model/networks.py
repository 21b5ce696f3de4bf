"""The registry of networks: names and options in, a ``torch.nn.Module`` out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any

from torch import nn

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig

NETWORKS: dict[str, tuple[str, str]] = {
    "ddfd-lite": ("ddfd_ros.model.lite", "DdfdLite"),
    "2hded": ("ddfd_ros.model.two_headed", "TwoHeaded"),
    "d3net": ("ddfd_ros.model.d3net", "D3Net"),
    "2hded-selfsup": ("ddfd_ros.model.selfsup", "SelfSupervised"),
    "deddnet": ("ddfd_ros.model.deddnet", "Deddnet"),
}
"""Network name -> module and class. A class's keyword arguments are the network's options."""


def network_names() -> tuple[str, ...]:
    """Return every name that ``build_network`` accepts."""
    return tuple(NETWORKS)


def network_class(name: str) -> type[nn.Module]:
    """Return the class behind a network's name.

    Raises:
        ContractError: There is no network of that name.
    """
    if name not in NETWORKS:
        raise ContractError(
            f"network: expected one of {', '.join(NETWORKS)}, got {name!r}; correct the name"
        )
    module_name, class_name = NETWORKS[name]
    return getattr(import_module(module_name), class_name)


def default_options(name: str) -> dict[str, Any]:
    """Return the options of a network with their defaults (``None`` where one has no default).

    Raises:
        ContractError: There is no network of that name.
    """
    parameters = inspect.signature(network_class(name)).parameters.values()
    return {
        item.name: None if item.default is inspect.Parameter.empty else item.default
        for item in parameters
        if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
    }


def optics_options(
    name: str, options: Mapping[str, Any], lens: LensConfig, depth_range_m: tuple[float, float]
) -> dict[str, Any]:
    """Return ``lens`` and ``depth_range_m`` as far as a network with these options uses them.

    One that answers metres by itself (``answer: metres``) uses neither.

    Raises:
        ContractError: There is no network of that name.
    """
    known = default_options(name)
    if {**known, **options}.get("answer") == "metres":
        return {}
    values = {"lens": lens, "depth_range_m": depth_range_m}
    return {key: value for key, value in values.items() if key in known}


def build_network(name: str, **options: Any) -> nn.Module:
    """Build a network by name.

    Args:
        name: One of ``network_names()``.
        options: Keyword arguments of the network's class. What YAML and checkpoints hold is
            understood too: ``lens`` as a mapping of its fields or the name of a preset, and lists
            in place of tuples.

    Returns:
        The network, freshly initialised, in training mode. ``forward(image)`` takes RGB
        ``[N, 3, H, W]`` in [0, 1] and returns a dict of the heads it has.

    Raises:
        ContractError: No such network, no such option, or a value the network refuses.
    """
    cls = network_class(name)
    known = default_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ContractError(
            f"options of network {name!r}: expected only {', '.join(known) or 'none'}, "
            f"got {', '.join(unknown)}; remove or rename them"
        )
    try:
        return cls(**{key: _from_plain(key, value) for key, value in options.items()})
    except (TypeError, ValueError) as error:
        raise ContractError(f"options of network {name!r}: {error}") from error


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON-like values (the inverse of what ``build_network`` understands)."""
    return {key: _to_plain(value) for key, value in options.items()}


def _to_plain(value: Any) -> Any:
    if isinstance(value, LensConfig):
        # JSON has no infinity: a lens focused there says "inf", which float() reads.
        return {k: "inf" if math.isinf(v) else v for k, v in asdict(value).items()}
    if isinstance(value, (tuple, list)):
        return [_to_plain(item) for item in value]
    return value


def _from_plain(key: str, value: Any) -> Any:
    if key == "lens" and isinstance(value, str):
        if value not in LENS_PRESETS:
            raise ValueError(f"lens: expected one of {', '.join(LENS_PRESETS)}, got {value!r}")
        return LENS_PRESETS[value]
    if key == "lens" and isinstance(value, Mapping):
        known = {item.name for item in fields(LensConfig)}
        if set(value) != known:
            raise ValueError(f"lens: expected the fields {sorted(known)}, got {sorted(value)}")
        return LensConfig(**{name: float(number) for name, number in value.items()})
    return tuple(value) if isinstance(value, list) else value
