"""The lens as an input of the graph, for models that answer for more than one."""

from __future__ import annotations

import numpy as np

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.lens_guard import focus_within, out_of_range
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.thin_lens import LensConfig

LENS_NAME = "lens"
"""Name of that input: float32 ``[2]``, pixels of blur per dioptre and focus in dioptres."""


def own_lens(contract: ModelContract) -> np.ndarray | None:
    """The values of the contract's own lens; None for a model that takes none.

    Raises:
        ContractError: The model takes a lens, but its contract has none.
    """
    if LENS_NAME not in contract.inputs:
        return None
    if contract.lens is None:
        raise ContractError(
            "contract: expected a lens, since the model takes one beside the image, got none; "
            "export the model again"
        )
    return _vector(contract.lens)


def lens_values(contract: ModelContract, lens: LensConfig) -> np.ndarray:
    """The values of ``lens`` for a model's input.

    A focus just beyond the model's range, which hardly moves the blur, is told as the range's end.

    Raises:
        ContractError: The model takes no lens, or none like this.
    """
    if LENS_NAME not in contract.inputs:
        raise ContractError(
            f"lens: expected a model that takes one beside the image, got one with the inputs "
            f"{list(contract.inputs)}; use such a model, or the lens it was trained for"
        )
    beyond = out_of_range(contract.lens_range, lens)
    if lens != contract.lens:
        if beyond:
            low, high = contract.lens_range[beyond[0]]
            raise ContractError(
                f"lens {beyond[0]}: expected {low:g} to {high:g}, for which the model was "
                f"trained, got {getattr(lens, beyond[0]):g}; change the lens, its focus or the "
                "image's scale"
            )
        if not contract.lens_range:
            raise ContractError(
                "lens: expected the model's own, since its contract names no range, got another"
            )
    values = _vector(lens)
    if not beyond:
        values[1] = focus_within(contract.lens_range, lens)
    return values


def _vector(lens: LensConfig) -> np.ndarray:
    return np.array([lens.px_per_dioptre, lens.focus_dioptre], np.float32)
