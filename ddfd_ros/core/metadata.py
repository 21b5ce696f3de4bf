"""The model contract: what a model file promises, and the deterministic sample that proves it.

The contract travels with the weights (checkpoint, ONNX metadata under ``CONTRACT_KEY``, sidecar
beside an engine), so trainer, exporter and node cannot disagree on sizes, heads, depth range or
lens. Golden samples live in ``golden`` and are re-exported here; files beside a model are written
and checked by ``sidecar``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.golden import (
    GOLDEN_TOLERANCE,
    Golden,
    golden_image,
    golden_mismatch,
    golden_samples,
    make_golden,
)
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.types import HEADS

__all__ = [
    "CONTRACT_KEY",
    "FORMAT_VERSION",
    "GOLDEN_TOLERANCE",
    "Golden",
    "ModelContract",
    "golden_image",
    "golden_mismatch",
    "golden_samples",
    "make_golden",
]

CONTRACT_KEY = "ddfd_contract"
"""Key in the ONNX ``metadata_props`` whose value is the contract as JSON text."""

FORMAT_VERSION = 1
"""Newest contract format that this code reads and the one it writes."""


@dataclass(frozen=True)
class ModelContract:
    """What a model takes, gives, and was made of.

    Attributes:
        format_version: Format of the contract, ``FORMAT_VERSION`` when written by this code.
        network: Name of the network for ``ddfd_ros.model.build_network``.
        network_options: Its options, JSON values only.
        parameter_count: Number of trained parameters.
        input_height: Height in pixels the graph is fixed to; None: any multiple of
            ``size_multiple``.
        input_width: Width in pixels, likewise.
        size_multiple: Both sides of the input are multiples of this.
        outputs: Heads the model has, a subset of ``HEADS`` in its order.
        depth_min_m: Nearest depth in metres the model can answer.
        depth_max_m: Farthest depth in metres the model can answer.
        lens: Camera it was trained for, at the resolution it was trained at; None when unknown.
        training: Data, command, seed, steps and source revision.
        metrics: Per evaluation set, metric name to value.
        weights_sha256: Digest of the weights, hexadecimal.
        golden: Deterministic self-test; None in a checkpoint.
        inputs: Inputs of the graph: ``image``, then what it takes beside it. ``lens`` (float32
            ``[2]``: pixels of blur per dioptre, focus in dioptres) makes ``lens`` above the
            default, to be replaced by the camera's own.
        lens_range: What ``lens`` may be, from the training: ``px_per_dioptre`` and
            ``focus_distance_m``, each (smallest, largest). Empty: only ``lens`` itself.
        sigma_0_px: How far its training pictures spread a point in focus, standard deviation in
            pixels: images of a sharper camera are softened to it (``core.sharpness``). 0: unknown.

    Raises:
        ContractError: A value does not make sense; the message names the field.
    """

    format_version: int
    network: str
    network_options: dict[str, Any]
    parameter_count: int
    input_height: int | None
    input_width: int | None
    size_multiple: int
    outputs: tuple[str, ...]
    depth_min_m: float
    depth_max_m: float
    lens: LensConfig | None
    training: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    weights_sha256: str
    golden: Golden | None = None
    inputs: tuple[str, ...] = ("image",)
    lens_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    sigma_0_px: float = 0.0

    def __post_init__(self) -> None:
        """Refuse contracts that contradict themselves, naming the field."""
        _check_version(self.format_version)
        object.__setattr__(self, "outputs", tuple(self.outputs))
        if not self.outputs or self.outputs != tuple(h for h in HEADS if h in self.outputs):
            raise ContractError(
                f"outputs: expected a subset of {list(HEADS)} in this order, "
                f"got {list(self.outputs)}"
            )
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if self.inputs[:1] != ("image",) or len(set(self.inputs)) != len(self.inputs):
            raise ContractError(
                f"inputs: expected 'image' and then other names, got {list(self.inputs)}"
            )
        object.__setattr__(self, "lens_range", _checked_range(self.lens_range))
        if not (type(self.sigma_0_px) in (int, float) and 0 <= self.sigma_0_px < math.inf):
            raise ContractError(
                f"sigma_0_px: expected a number of pixels from 0, got {self.sigma_0_px!r}"
            )
        if self.size_multiple < 1:
            raise ContractError(f"size_multiple: expected 1 or more, got {self.size_multiple}")
        for name in ("input_height", "input_width"):
            value = getattr(self, name)
            if value is not None and (value < 1 or value % self.size_multiple):
                raise ContractError(
                    f"{name}: expected a positive multiple of {self.size_multiple} or null, "
                    f"got {value}"
                )
        if not 0 < self.depth_min_m < self.depth_max_m < math.inf:
            raise ContractError(
                "depth_min_m, depth_max_m: expected 0 < min < max in metres, "
                f"got {self.depth_min_m} and {self.depth_max_m}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The contract as JSON values; what most models lack is left out."""
        result: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        result["outputs"] = list(self.outputs)
        result["lens"] = None if self.lens is None else _lens_to_dict(self.lens)
        result["golden"] = None if self.golden is None else self.golden.to_dict()
        result["inputs"] = list(self.inputs)
        result["lens_range"] = {name: list(ends) for name, ends in self.lens_range.items()}
        # What most models have no use for is left out, so that older readers take their files.
        unused: dict[str, Any] = {
            "golden": None,
            "inputs": ["image"],
            "lens_range": {},
            "sigma_0_px": 0.0,
        }
        for name, usual in unused.items():
            if result[name] == usual:
                del result[name]
        return result

    def to_json(self) -> str:
        """The contract as JSON text; a NaN or infinite number raises ContractError."""
        try:
            return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ContractError(
                f"contract: expected finite numbers, text, lists and dictionaries, got: {error}; "
                "convert arrays and tensors to Python values first"
            ) from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelContract:
        """Read a contract from JSON values, refusing unknown and missing keys by name."""
        if not isinstance(values, Mapping):
            raise ContractError(f"contract: expected a JSON object, got {type(values).__name__}")
        if "format_version" in values:  # a newer format may well have other keys: say that first
            _check_version(values["format_version"])
        known = {item.name for item in fields(cls)}
        required = {
            item.name
            for item in fields(cls)
            if item.default is MISSING and item.default_factory is MISSING
        }
        _refuse_keys("contract", set(values), known, required)
        arguments = dict(values)
        for name, kinds in _KINDS.items():
            if type(arguments[name]) not in kinds:
                wanted = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
                raise ContractError(f"{name}: expected {wanted}, got {arguments[name]!r}")
        lens = arguments["lens"]
        arguments["lens"] = None if lens is None else _lens_from_dict(lens)
        golden = arguments.get("golden")
        arguments["golden"] = None if golden is None else Golden.from_dict(golden)
        try:
            return cls(**arguments)
        except TypeError as error:  # of "inputs", which may be absent and so has no kind above
            raise ContractError(f"contract: {error}; export the model again") from error

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Read a contract from JSON text; every problem is a ContractError."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ContractError(
                f"contract: expected JSON, got {text[:40]!r} ({error}); export the model again"
            ) from error
        return cls.from_dict(values)


_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "network": (str,),
    "network_options": (dict,),
    "parameter_count": (int,),
    "input_height": (int, _NONE),
    "input_width": (int, _NONE),
    "size_multiple": (int,),
    "outputs": (list, tuple),
    "depth_min_m": (float, int),
    "depth_max_m": (float, int),
    "lens": (dict, _NONE),
    "training": (dict,),
    "metrics": (dict,),
    "weights_sha256": (str,),
}


_LENS_RANGES = ("px_per_dioptre", "focus_distance_m")


def _checked_range(values: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Both ends of each range as numbers, smallest first."""
    try:
        result = {name: (float(low), float(high)) for name, (low, high) in values.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            f"lens_range: expected two numbers for each of {list(_LENS_RANGES)}, got {values!r}"
        ) from error
    if result and (
        set(result) != set(_LENS_RANGES) or any(not 0 < a <= b for a, b in result.values())
    ):
        raise ContractError(
            f"lens_range: expected {list(_LENS_RANGES)}, 0 < smallest <= largest, got {result}"
        )
    return result


def _check_version(version: object) -> None:
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ContractError(
            f"format_version: expected a number from 1 to {FORMAT_VERSION}, got {version!r}; "
            "a newer format needs a newer ddfd_ros"
        )


def _refuse_keys(what: str, got: set[str], known: set[str], required: set[str]) -> None:
    unknown, missing = sorted(got - known), sorted(required - got)
    if unknown or missing:
        raise ContractError(
            f"{what}: expected the keys {sorted(known)}, got unknown {unknown} and missing "
            f"{missing}; export the model again with this version"
        )


def _lens_to_dict(lens: LensConfig) -> dict[str, float | str]:
    """JSON has no infinity: a lens focused there says "inf"."""
    values = {item.name: getattr(lens, item.name) for item in fields(lens)}
    return {name: "inf" if math.isinf(value) else value for name, value in values.items()}


def _lens_from_dict(values: Mapping[str, Any]) -> LensConfig:
    names = {item.name for item in fields(LensConfig)}
    _refuse_keys("lens", set(values), names, names)
    try:
        return LensConfig(**{name: float(value) for name, value in values.items()})
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError(f"lens: {error}") from error
