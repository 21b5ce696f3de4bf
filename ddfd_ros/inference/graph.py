"""The signature every exported graph must have, whatever runtime reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference.base import HEAD_DTYPES
from ddfd_ros.inference.lens_input import LENS_NAME

INPUT_NAME = "image"


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: Its name.
        dtype: numpy's name of its type, such as ``uint8``.
        shape: Its sides; None where dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """As in ``image uint8 [?, ?, 3]``."""
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.dtype} [{sides}]"


def check_graph(contract: ModelContract, inputs: Sequence[Port], outputs: Sequence[Port]) -> bool:
    """Compare a graph's ports with the contract.

    Returns:
        Whether the graph wants a batch axis in front (``[1, H, W, 3]``).

    Raises:
        ContractError: Names expected and got ports.
    """
    wanted = (contract.input_height, contract.input_width, 3)
    got = ", ".join(map(str, inputs)) or "none"
    beside = [Port(LENS_NAME, "float32", (2,))] if LENS_NAME in contract.inputs else []
    expected = f"one input {Port(INPUT_NAME, 'uint8', wanted)}"
    expected += "".join(f" and {port}" for port in beside)
    remedy = "export the model with ddfd-export"
    problem = ContractError(f"graph inputs: expected {expected}, got {got}; {remedy}")
    images = [port for port in inputs if port.name == INPUT_NAME]
    # An engine without the heads that need the lens may not have that input any more.
    if len(images) != 1 or images[0].dtype != "uint8":
        raise problem
    if any(port not in beside for port in inputs if port.name != INPUT_NAME):
        raise problem
    shape = images[0].shape
    batched = len(shape) == 4
    if batched:
        if shape[0] not in (1, None):
            raise problem
        shape = shape[1:]
    if shape != wanted:
        raise problem
    got_outputs = {port.name: port.dtype for port in outputs}
    wanted_outputs = {name: HEAD_DTYPES[name].__name__ for name in contract.outputs}
    if got_outputs != wanted_outputs:
        raise ContractError(
            f"graph outputs: expected {wanted_outputs}, got {got_outputs}; {remedy}"
        )
    return batched
