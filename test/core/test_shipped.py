"""Models by path or name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.core.shipped import resolve_model


@pytest.mark.parametrize("model", ["~no-such-user/m.onnx", "m" * 5000, "m\0.onnx"])
def test_a_path_that_no_system_takes_is_refused_as_any_other(model):
    with pytest.raises(ModelLoadError, match=r"^model_path: expected a model file or one of"):
        resolve_model(model)


def test_a_folder_that_is_closed_to_us_is_told(monkeypatch):
    usual = Path.is_file

    def closed(self: Path) -> bool:
        if self.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return usual(self)

    monkeypatch.setattr(Path, "is_file", closed)
    with pytest.raises(ModelLoadError, match=r"'/closed/m\.onnx' \(.*Permission denied"):
        resolve_model("/closed/m.onnx", ".none")
