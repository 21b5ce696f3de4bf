"""Training DEDDNet (Zhai 2024): depth from the data set, and the depth network inside.

    python -m ddfd_training.deblurring own.pt given.pt

takes the depth network out of a trained one, for use as a second stage behind another depth model.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ddfd_ros.core.errors import ContractError, DdfdError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import read_checkpoint, save_checkpoint
from ddfd_ros.model.deddnet import Deddnet
from ddfd_training.config import TrainConfig

Tensors = dict[str, Tensor]


def given_depth_step(
    network: nn.Module, batch: Tensors, config: TrainConfig
) -> tuple[Tensors, Tensors]:
    """Shows the network the image and the data set's own depth: depth from a file."""
    del config
    image = batch["image"].contiguous(memory_format=torch.channels_last)
    answer = network(image, depth_m=batch["depth_m"])
    return {key: value.float() for key, value in answer.items()}, batch


def load_guide(network: nn.Module, path: str | Path) -> None:
    """Give a DEDDNet with ``depth: own`` the weights of its depth network.

    Args:
        network: Changed in place.
        path: A checkpoint of the network that the option ``guide`` names; heads that the guide
            lacks are passed over.

    Raises:
        ContractError: The network has no guide, or the checkpoint is of another network.
        ModelLoadError: There is no such checkpoint.
    """
    if not isinstance(network, Deddnet) or network.guide is None:
        raise ContractError(
            "network.guide: expected network deddnet with the option depth: own, got "
            f"{type(network).__name__} without a depth network; leave network.guide empty"
        )
    content = read_checkpoint(path)
    state, wanted = content["state_dict"], network.guide.state_dict()
    wrong = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
    if wrong:
        raise ContractError(
            f"{path}: expected weights of the depth network that option guide names, got those of "
            f"{content['network']!r}: {len(wrong)} tensors missing or of another shape (first: "
            f"{wrong[0]}); set guide and guide_options to what they were trained with"
        )
    network.guide.load_state_dict({key: state[key] for key in wanted})


def without_guide(path: str | Path, target: str | Path) -> ModelContract:
    """Save the deblurring part of a DEDDNet with ``depth: own`` as one with ``depth: given``.

    Args:
        path: A trained checkpoint.
        target: The checkpoint to write.

    Returns:
        The new checkpoint's contract.

    Raises:
        ContractError: The checkpoint is not a DEDDNet with a depth network inside.
        ModelLoadError: There is no such checkpoint.
    """
    content = read_checkpoint(path)
    options = dict(content["options"])
    if content["network"] != "deddnet" or options.get("depth") != "own":
        raise ContractError(
            f"{path}: expected a deddnet with the option depth: own, got {content['network']!r} "
            f"with depth: {options.get('depth')!r}; only such a one has a network to take out"
        )
    options |= {"depth": "given", "heads": "both"}
    network = build_network("deddnet", **options)
    network.load_state_dict(
        {k: v for k, v in content["state_dict"].items() if not k.startswith("guide.")}
    )
    contract = ModelContract.from_dict(content["contract"])
    contract = dataclasses.replace(contract, outputs=("sharp_rgb",))
    return save_checkpoint(target, network, "deddnet", options, contract)


def main(argv: Sequence[str] | None = None) -> int:
    """Take the depth network out of a checkpoint; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ddfd_training.deblurring", description=(__doc__ or "").partition("\n")[2]
    )
    parser.add_argument("checkpoint", help="trained deddnet with depth: own (.pt)")
    parser.add_argument("target", help="checkpoint to write (.pt)")
    arguments = parser.parse_args(argv)
    try:
        contract = without_guide(arguments.checkpoint, arguments.target)
    except DdfdError as error:
        print(f"deblurring: {error}", file=sys.stderr)
        return 2
    print(f"written: {arguments.target}, {contract.parameter_count:,} parameters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
