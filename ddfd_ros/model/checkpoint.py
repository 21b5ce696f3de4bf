"""Checkpoint files: weights, how to rebuild their network, and their contract, in one file.

The file is ``torch.save`` of plain values only, so that it loads with ``weights_only=True`` (no
code from the file runs): ``{"format", "network", "options", "state_dict", "contract"}``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.model.networks import build_network, plain_options

CHECKPOINT_FORMAT = 1
_KEYS = {"format", "network", "options", "state_dict", "contract"}
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
)
"""What torch's unpickler raises at damaged bytes: they are instructions to it."""


def weights_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Return the digest that names a set of weights, the same on every machine.

    SHA-256 over, for each tensor in order of its name: the name in UTF-8, a zero byte, the dtype
    and shape as text (``float32[64, 3, 3, 3]``), a zero byte, and the little-endian C-order bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        kind = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        digest.update(name.encode() + b"\0" + kind.encode() + b"\0")
        # Seen as bytes, every dtype works (numpy knows no bfloat16).
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values (buffers such as running means do not count)."""
    return sum(item.numel() for item in network.parameters())


def save_checkpoint(
    path: str | Path,
    network: nn.Module,
    name: str,
    options: Mapping[str, Any],
    contract: ModelContract,
) -> ModelContract:
    """Write a checkpoint; an interrupted write leaves no half file at ``path``.

    Args:
        path: Where to write (``.pt``).
        network: The network whose weights are saved.
        name: Its name in the registry.
        options: The options it was built with.
        contract: What the weights promise. Network, options, parameter count and digest are
            filled in here, and a golden answer, which belongs to one graph, is dropped.

    Returns:
        The contract as written.

    Raises:
        ContractError: The weights do not fit the network that ``name`` and ``options`` build.
    """
    state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    plain = plain_options(options)
    _load_state(build_network(name, **plain), state, f"{name} with options {plain}")
    written = dataclasses.replace(
        contract,
        network=name,
        network_options=plain,
        parameter_count=count_parameters(network),
        weights_sha256=weights_sha256(state),
        golden=None,
    )
    content = {
        "format": CHECKPOINT_FORMAT,
        "network": name,
        "options": plain,
        "state_dict": state,
        # By way of JSON: plain values only, and what JSON cannot hold is refused here.
        "contract": json.loads(written.to_json()),
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    torch.save(content, partial)
    partial.replace(target)
    return written


def load_checkpoint(path: str | Path, heads: str | None = None) -> tuple[nn.Module, ModelContract]:
    """Rebuild a network with its weights, in evaluation mode on the CPU.

    Args:
        path: A file written by ``save_checkpoint``.
        heads: ``both``, ``depth`` or ``sharp`` to build the network with these heads in place of
            those it was saved with; weights of a head left out are dropped.

    Returns:
        The network and its contract (always the contract of the whole file).

    Raises:
        ModelLoadError: The file is missing, damaged, or its weights do not fit its network.
        ContractError: The contract inside is malformed or names an unknown network or option.
    """
    content = read_checkpoint(path)
    contract = ModelContract.from_dict(content["contract"])
    state = content["state_dict"]
    digest = weights_sha256(state)
    if digest != contract.weights_sha256:
        raise ModelLoadError(
            f"{path}: expected weights with sha256 {contract.weights_sha256}, got {digest}; "
            "the file was altered, fetch or train it again"
        )
    options = dict(content["options"])
    if heads is not None:
        options["heads"] = heads
    network = build_network(content["network"], **options)
    if heads is not None:
        state = _drop_removed_heads(network, state, content)
    _load_state(network, state, str(path))
    return network.eval(), contract


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's plain content without building its network.

    Raises:
        ModelLoadError: The file is missing, damaged, or not a checkpoint of this format.
    """
    source = Path(path)
    if not source.is_file():
        raise ModelLoadError(f"{source}: expected a checkpoint file, got none; check the path")
    if source.suffix in (".onnx", ".engine", ".plan"):
        raise ModelLoadError(
            f"{source}: expected a checkpoint (.pt), got a model that is exported already; give "
            "the weights it was made from"
        )
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelLoadError(
            f"{source}: expected a whole checkpoint written by save_checkpoint, got a file of "
            f"{source.stat().st_size} bytes that does not load ({reason}); fetch or train it again"
        ) from error
    if not isinstance(content, dict) or not set(content) >= _KEYS:
        got = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ModelLoadError(
            f"{source}: expected a checkpoint with the keys {sorted(_KEYS)}, got {got}; "
            "convert it with save_checkpoint"
        )
    version = content["format"]
    if type(version) is not int or version != CHECKPOINT_FORMAT:
        raise ModelLoadError(
            f"{source}: expected checkpoint format {CHECKPOINT_FORMAT}, got "
            f"{version!r}; use the version of ddfd_ros that wrote it"
        )
    state, options, network = (content[key] for key in ("state_dict", "options", "network"))
    if not isinstance(state, dict) or not all(map(_is_weight, state, state.values())):
        raise ModelLoadError(
            f"{source}: expected a state_dict of tensors, got {type(state).__name__} with other "
            "values; write the file with save_checkpoint"
        )
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ModelLoadError(
            f"{source}: expected options by name, got {options!r}; write the file with "
            "save_checkpoint"
        )
    if not isinstance(network, str):
        raise ModelLoadError(
            f"{source}: expected the name of a network, got {network!r}; write the file with "
            "save_checkpoint"
        )
    return content


def read_state_dict(path: Path, kind: str, remedy: str) -> dict[str, torch.Tensor]:
    """Weights that others' code saved: tensors by name.

    Args:
        path: The file.
        kind: Whose weights are expected, in words.
        remedy: What to do where they are not there.

    Raises:
        ModelLoadError: The file is damaged, or no state dict.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {str(key): value for key, value in loaded.items()}
    except _UNREADABLE as error:
        raise ModelLoadError(
            f"expected a state dict of {kind} at {path}, got a file that does not load as one "
            f"({error}); {remedy}"
        ) from error


def _is_weight(name: object, value: object) -> bool:
    """Whether it is a named tensor whose values are all there."""
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
    )


def _drop_removed_heads(
    network: nn.Module, state: Mapping[str, torch.Tensor], content: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Keep the weights of the heads that are left; refuse heads the checkpoint never had."""
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise ContractError(
            f"heads: expected a part of what the checkpoint has (heads="
            f"{content['options'].get('heads', 'both')!r}), but {len(missing)} tensors are not in "
            f"it (first: {missing[0]}); choose other heads"
        )
    return {key: value for key, value in state.items() if key in wanted}


def _load_state(network: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Load weights by exact key and shape, naming the first ones that do not fit."""
    wanted = network.state_dict()
    shapes = [
        f"{key} expected {list(wanted[key].shape)}, got {list(state[key].shape)}"
        for key in wanted
        if key in state and wanted[key].shape != state[key].shape
    ]
    problems = {
        "missing": [key for key in wanted if key not in state],
        "not in the network": [key for key in state if key not in wanted],
        "of another shape": shapes,
    }
    found = [f"{len(keys)} {what} (first: {keys[0]})" for what, keys in problems.items() if keys]
    if found:
        raise ModelLoadError(
            f"{origin}: expected weights for exactly this network's {len(wanted)} tensors, got "
            f"{'; '.join(found)}; network, options and weights must belong together"
        )
    network.load_state_dict(dict(state))
