"""The contract as a file beside a model file, with the size and digest that file must have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import ModelContract


def sidecar_path(model_path: str | Path) -> Path:
    """Where the sidecar of ``model_path`` lies: ``ddfd.onnx`` has ``ddfd.onnx.contract.json``."""
    path = Path(model_path)
    return path.with_name(path.name + ".contract.json")


def write_sidecar(model_path: str | Path, contract: ModelContract) -> Path:
    """Write the sidecar of an existing model file and return its path."""
    digest, size = _file_digest(Path(model_path))
    values = json.loads(contract.to_json())
    values |= {"file_sha256": digest, "file_bytes": size}
    path = sidecar_path(model_path)
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def require_model_file(path: Path) -> None:
    """ModelLoadError where there is no file."""
    if not path.is_file():
        raise ModelLoadError(
            f"model file: expected a file at {path}, got none; check the path "
            "(absolute ones are safest in launch files)"
        )


def read_sidecar(model_path: str | Path) -> ModelContract | None:
    """Check ``model_path`` against its sidecar and return the contract; None without a sidecar.

    Raises:
        ModelLoadError: The model file is missing, or not the one the sidecar was written for.
        ContractError: The sidecar itself is malformed.
    """
    path = Path(model_path)
    require_model_file(path)
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return None
    try:
        values = json.loads(sidecar.read_text(encoding="utf-8"))
        digest, size = str(values.pop("file_sha256")), int(values.pop("file_bytes"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"{sidecar}: expected JSON with file_sha256 and file_bytes, got {error!r}; "
            "export the model again"
        ) from error
    got_digest, got_size = _file_digest(path)
    if got_size != size:
        raise ModelLoadError(
            f"{path}: expected {size} bytes, got {got_size}; the file is incomplete or another "
            "one: copy or export it again, with its sidecar"
        )
    if got_digest != digest:
        raise ModelLoadError(
            f"{path}: expected sha256 {digest[:16]}..., got {got_digest[:16]}...; the file was "
            "altered: copy or export it again, with its sidecar"
        )
    return ModelContract.from_dict(values)


def _file_digest(path: Path) -> tuple[str, int]:
    """SHA-256 (hexadecimal) and size in bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
