"""Checkpoints in torch: for development and for GPUs without an engine, not for robots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference.base import Backend, BackendOptions
from ddfd_ros.model.byte_graph import ByteGraph
from ddfd_ros.model.checkpoint import load_checkpoint


class TorchBackend(Backend):
    """A checkpoint, run as it was trained.

    Networks compute whole decoders, not single outputs: when only one decoder's heads are asked
    for, the network is rebuilt without the other one (when first needed).
    """

    runtime = "torch"

    def __init__(self, path: Path, contract: ModelContract, options: BackendOptions) -> None:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ModelLoadError(
                "torch: expected a CUDA device, got none; use device cpu or install torch for CUDA"
            )
        if options.threads:
            torch.set_num_threads(options.threads)  # torch has one setting for the whole process
        threads = f"{torch.get_num_threads()} threads"
        super().__init__(contract, f"torch {torch.__version__}, {options.device}, {threads}")
        self._path = path
        self._device = torch.device(options.device)
        self._graphs: dict[str | None, ByteGraph] = {}
        self._graph(None)

    @classmethod
    def from_file(cls, path: Path, options: BackendOptions) -> TorchBackend:
        """Load a ``.pt`` checkpoint."""
        _, contract = load_checkpoint(path)
        return cls(path, contract, options)

    def _infer(self, image: np.ndarray, heads: tuple[str, ...]) -> dict[str, np.ndarray]:
        graph = self._graph(self._part(heads))
        # A copy: torch warns about arrays that must not be written to.
        source = torch.from_numpy(np.array(image)).to(self._device)
        beside = [torch.from_numpy(value).to(self._device) for value in self._beside().values()]
        with torch.inference_mode():
            answers = dict(zip(graph.outputs, graph(source, *beside), strict=True))
        return {name: np.ascontiguousarray(answers[name].cpu().numpy()) for name in heads}

    def _part(self, heads: tuple[str, ...]) -> str | None:
        """The value of the networks' option ``heads`` that suffices; None: all of the network."""
        outputs = self.contract.outputs
        if "sharp_rgb" not in outputs or outputs == ("sharp_rgb",):
            return None
        if "sharp_rgb" not in heads:
            return "depth"
        return "sharp" if heads == ("sharp_rgb",) else None

    def _graph(self, part: str | None) -> ByteGraph:
        if part not in self._graphs:
            network, contract = load_checkpoint(self._path, heads=part)
            kept = [
                name
                for name in contract.outputs
                if part is None or (name == "sharp_rgb") == (part == "sharp")
            ]
            self._graphs[part] = ByteGraph(network.to(self._device), kept).to(self._device)
        return self._graphs[part]

    def _close(self) -> None:
        self._graphs.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
