"""How much work one frame is: operations and bytes of an ONNX graph at one size."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx
from onnx import numpy_helper

_HALF_BYTES = 2


@dataclass(frozen=True)
class Work:
    """One frame's work.

    Attributes:
        operations: Multiplications and additions of all convolutions.
        weight_bytes: Weights, in half precision.
        tensor_bytes: Every convolution's input read and output written once, in half precision.
            Layers between them can be fused, so this is what must move at least unless
            convolutions are fused with each other.
    """

    operations: int
    weight_bytes: int
    tensor_bytes: int

    @property
    def moved_bytes(self) -> int:
        """What must move at least, in half precision."""
        return self.weight_bytes + self.tensor_bytes

    def floor_ms(self, operations_per_s: float, bytes_per_s: float) -> float:
        """The shortest time a frame can take on a machine with these rates."""
        return 1e3 * max(self.operations / operations_per_s, self.moved_bytes / bytes_per_s)


def count_work(model: onnx.ModelProto, height: int, width: int) -> Work:
    """Count a model's work for an image of ``height`` x ``width`` pixels.

    Args:
        model: With the exported signature (``image`` uint8 ``[H, W, 3]``); not changed.
        height: A multiple of what the network needs.
        width: Likewise.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    sides = sized.graph.input[0].type.tensor_type.shape.dim
    for side, value in zip(sides[-3:-1], (height, width), strict=True):
        side.dim_value = value
    for output in sized.graph.output:  # named sides would contradict the numbers
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
    shapes = {
        item.name: [side.dim_value for side in item.type.tensor_type.shape.dim]
        for item in [*inferred.value_info, *inferred.input, *inferred.output]
    }
    weights = {item.name: numpy_helper.to_array(item) for item in sized.graph.initializer}
    operations = tensors = 0
    for node in sized.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        kernel = weights[node.input[1]].shape
        source, target = shapes[node.input[0]], shapes[node.output[0]]
        if not prod(source) or not prod(target):
            raise ValueError(f"{node.name}: expected a known size, got {source} and {target}")
        # A weight meets every pixel of the output; of a transposed convolution, of the input.
        pixels = prod((target if node.op_type == "Conv" else source)[2:])
        operations += 2 * prod(kernel) * pixels
        tensors += _HALF_BYTES * (prod(source) + prod(target))
    total = sum(value.size for value in weights.values())
    return Work(operations, _HALF_BYTES * total, tensors)
