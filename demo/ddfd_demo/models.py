"""Which model fits an input, and what its contract promises."""

from __future__ import annotations

from pathlib import Path

from ddfd_demo.errors import InputError
from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.sidecar import read_sidecar
from ddfd_ros.ros.environment import resolve_model, shipped_models

SHIPPED_PREFIX = "ddfd-lite-"


def choose_model(wanted: str | None, lens_name: str) -> Path:
    """The model file to use.

    Args:
        wanted: A path, or the name of a shipped model; None chooses the shipped one that fits.
        lens_name: Lens preset the input calls for, ``nyu-8m`` or ``dslr``.

    Raises:
        ModelLoadError: There is no such file.
    """
    try:
        return resolve_model(wanted or f"{SHIPPED_PREFIX}{lens_name}")
    except ModelLoadError as error:
        if wanted is not None:
            raise InputError(
                f"--model: expected a model file or one of the shipped models "
                f"{sorted(shipped_models())}, got {wanted!r}; check the path"
            ) from error
        raise


def model_contract(path: Path) -> ModelContract:
    """The model's contract, from its sidecar or from the ONNX file itself.

    Raises:
        ModelLoadError, ContractError: The file is damaged, or has no contract.
    """
    contract = read_sidecar(path)
    if contract is not None:
        return contract
    from ddfd_ros.inference import open_backend

    backend = open_backend(path)
    try:
        return backend.contract
    finally:
        backend.close()
