"""Optimisers and schedules of the learning rate, by the names a recipe gives them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from ddfd_training.config import OptimizerConfig

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "constant", "steps", "linear")


def build_optimizer(
    parameters: Iterable[nn.Parameter], wanted: OptimizerConfig, steps: int
) -> OptimizerLRSchedulerConfig:
    """Optimiser and schedule; the rate follows the step's number alone, so a training can resume.

    Args:
        parameters: What to train.
        wanted: The recipe's settings.
        steps: Length of the training.

    Raises:
        ValueError: An unknown name, or milestones that are no shares in rising order.
    """
    for key, value, known in (
        ("name", wanted.name, OPTIMIZERS),
        ("schedule", wanted.schedule, SCHEDULES),
    ):
        if value not in known:
            raise ValueError(f"optimizer.{key}: expected one of {', '.join(known)}, got {value!r}")
    marks = wanted.milestones
    if any(not 0 <= mark <= 1 for mark in marks) or list(marks) != sorted(marks):
        raise ValueError(
            f"optimizer.milestones: expected rising shares of the training, 0 to 1, got {marks}"
        )
    optimizer = _optimizer(parameters, wanted)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_share(step, steps, wanted)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _optimizer(
    parameters: Iterable[nn.Parameter], wanted: OptimizerConfig
) -> torch.optim.Optimizer:
    rate, decay = wanted.learning_rate, wanted.weight_decay
    if wanted.name == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=wanted.betas[0], weight_decay=decay)
    kind = torch.optim.Adam if wanted.name == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, betas=wanted.betas, weight_decay=decay)


def rate_share(step: int, steps: int, wanted: OptimizerConfig) -> float:
    """Learning rate at ``step`` over the full rate: a line up, then the schedule."""
    if step < wanted.warmup_steps:
        return (step + 1) / wanted.warmup_steps
    share = min(step / max(steps, 1), 1.0)
    final = wanted.final_share
    if wanted.schedule == "constant":
        return 1.0
    if wanted.schedule == "steps":
        return wanted.factor ** sum(share >= mark for mark in wanted.milestones)
    if wanted.schedule == "linear":
        start = wanted.milestones[0] if wanted.milestones else 0.0
        done = (share - start) / max(1.0 - start, 1e-9)
        return 1.0 + (final - 1.0) * min(max(done, 0.0), 1.0)
    left = max(steps - wanted.warmup_steps, 1)
    done = min((step - wanted.warmup_steps) / left, 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
