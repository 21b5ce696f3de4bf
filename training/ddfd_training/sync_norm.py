"""Batch norm over all processes, also on CPUs, where torch's own does not go.

With it, training on n processes is what one process would do with n times the batch: without it
each process would normalise by the statistics of its own share.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce


def synchronise(network: nn.Module) -> nn.Module:
    """Replace every ``BatchNorm2d``; parameters, buffers and their names stay.

    A GPU gets torch's ``SyncBatchNorm``. In a single process the answers are those of before.
    """
    if torch.cuda.is_available():
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return converted
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SharedBatchNorm2d.like(child))
    return network


class SharedBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` whose mean and variance are those of the whole batch of all processes."""

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> SharedBatchNorm2d:
        """One with the settings, parameters and buffers of ``norm`` (the same tensors)."""
        shared = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        shared._parameters, shared._buffers = norm._parameters, norm._buffers
        return shared.train(norm.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` of this process, normalised."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        values = input.float()
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
        sums = all_reduce(sums)
        channels = self.num_features
        total = sums[-1]
        mean = sums[:channels] / total
        variance = (sums[channels:-1] / total - mean.square()).clamp(min=0)
        self._remember(mean.detach(), variance.detach(), float(total.detach()))
        shape = (1, channels, 1, 1)
        scale = (variance + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        return (values * scale.reshape(shape) + shift.reshape(shape)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, count: float) -> None:
        """Update the running statistics as torch does, the variance without bias."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1.0, 1.0)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
