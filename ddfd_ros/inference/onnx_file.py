"""Reading an ONNX file as the protobuf message it is, without the ``onnx`` package.

A robot has a runtime but not ``onnx``. Two things need the file itself: the contract in its
metadata (whatever the runtime), and cutting away heads that nobody listens to, because ONNX
Runtime computes a graph's every node whichever outputs are asked for (measured with 1.31: asking
for one of two heads takes as long as both, also with ``only_execute_path_to_fetches``).

Protobuf's wire format is a row of fields, each a key (field number times 8 plus wire type) and a
value; only length-delimited values (wire type 2) can hold what we look for. Field numbers are
those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract
from ddfd_ros.core.sidecar import read_sidecar

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_TENSOR_NAME, _VALUE_NAME = 8, 1

Field = tuple[int, memoryview, memoryview]
"""Number, payload, and the whole field with its key, of one field of a message."""


class WireError(ValueError):
    """The bytes are not a protobuf message."""


def load_onnx(path: Path) -> tuple[bytes, ModelContract]:
    """Read an ONNX file and its contract.

    The contract comes from the metadata, or from the sidecar where the metadata has none. A
    sidecar, when there, is also checked against the file's size and digest.

    Raises:
        ModelLoadError: Missing, truncated or altered file, or no ONNX at all.
        ContractError: No contract, or one that is malformed.
    """
    beside = read_sidecar(path)
    data = path.read_bytes()
    try:
        metadata = read_metadata(data)
    except WireError as error:
        raise ModelLoadError(
            f"{path}: expected an ONNX model, got {len(data)} bytes that end or break early "
            f"({error}); the file is incomplete or something else: copy or export it again"
        ) from error
    if CONTRACT_KEY in metadata:
        return data, ModelContract.from_json(metadata[CONTRACT_KEY])
    if beside is not None:
        return data, beside
    raise ContractError(
        f"{path}: expected a contract under {CONTRACT_KEY!r} in the ONNX metadata, got the keys "
        f"{sorted(metadata)}; export the model with ddfd-export"
    )


def read_metadata(data: bytes) -> dict[str, str]:
    """The ``metadata_props`` of an ONNX model; WireError when ``data`` is none."""
    metadata, has_graph = {}, False
    for number, payload, _ in _fields(memoryview(data)):
        if number == _MODEL_METADATA:
            metadata[_text(payload, 1)] = _text(payload, 2)
        elif number == _MODEL_GRAPH:
            has_graph = True
            for _ in _fields(payload):  # a cut inside the graph shows here
                pass
    if not has_graph:
        raise WireError("no graph in it")
    return metadata


def keep_outputs(data: bytes, outputs: Collection[str]) -> bytes:
    """The same model with only ``outputs`` and the nodes and weights these depend on."""
    parts: list[bytes | memoryview] = []
    for number, payload, whole in _fields(memoryview(data)):
        if number == _MODEL_GRAPH:
            graph = _prune_graph(payload, set(outputs))
            parts += [_key(number), _varint(len(graph)), graph]
        else:
            parts.append(whole)
    return b"".join(parts)


def _prune_graph(graph: memoryview, outputs: set[str]) -> bytes:
    fields = list(_fields(graph))
    nodes = [(payload, whole) for number, payload, whole in fields if number == _GRAPH_NODE]
    needed, kept = set(outputs), []
    for payload, whole in reversed(nodes):  # ONNX nodes are sorted: makers before users
        inputs, made = _node_names(payload)
        if needed & made:
            needed |= inputs
            kept.append(whole)
    parts: list[memoryview] = kept[::-1]
    for number, payload, whole in fields:
        if number == _GRAPH_NODE:
            continue
        if number == _GRAPH_OUTPUT and _text(payload, _VALUE_NAME) not in outputs:
            continue
        if number == _GRAPH_INITIALIZER and _text(payload, _TENSOR_NAME) not in needed:
            continue
        parts.append(whole)
    return b"".join(parts)


def _node_names(node: memoryview) -> tuple[set[str], set[str]]:
    """Names a node reads (those its subgraphs read from outside included) and makes."""
    inputs, outputs = set(), set()
    for number, payload, _ in _fields(node):
        if number == _NODE_INPUT:
            inputs.add(bytes(payload).decode())
        elif number == _NODE_OUTPUT:
            outputs.add(bytes(payload).decode())
        elif number == _NODE_ATTRIBUTE:
            for attribute, subgraph, _ in _fields(payload):
                if attribute in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                    for kind, inner, _ in _fields(subgraph):
                        if kind == _GRAPH_NODE:
                            inputs |= _node_names(inner)[0]
    inputs.discard("")  # an optional input that is absent
    return inputs, outputs


def _text(message: memoryview, field: int) -> str:
    for number, payload, _ in _fields(message):
        if number == field:
            return bytes(payload).decode("utf-8", "replace")
    return ""


def _fields(message: memoryview) -> Iterator[Field]:
    position, end = 0, len(message)
    while position < end:
        start = position
        key, position = _read_varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 2:
            size, position = _read_varint(message, position)
        elif kind == 0:
            size = _read_varint(message, position)[1] - position
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise WireError(f"wire type {kind} at byte {start}")
        if number == 0 or position + size > end:
            raise WireError(f"a field of {size} bytes at byte {start} of {end}")
        yield number, message[position : position + size], message[start : position + size]
        position += size


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise WireError(f"a number that does not end before byte {position}")


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _key(number: int) -> bytes:
    return _varint(number << 3 | 2)
