"""Puts the stand-ins in place of TensorRT and pycuda, within one process."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
_BOUND = ("cuda_session", "tensorrt_backend")  # they hold on to pycuda once imported


def install(monkeypatch, **settings: str) -> None:
    """From here on to the end of ``monkeypatch``, there is a GPU with TensorRT.

    Args:
        monkeypatch: pytest's fixture.
        settings: Environment variables of the stand-ins, such as ``STANDIN_TENSORRT``.
    """
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(HERE))
    for name in list(sys.modules):
        bound = any(name == f"ddfd_ros.inference.{item}" for item in _BOUND)
        if bound or name.partition(".")[0] in ("tensorrt", "pycuda"):
            monkeypatch.delitem(sys.modules, name)
    from ddfd_ros.inference import cuda_graph

    monkeypatch.setattr(cuda_graph, "load_driver", cuda_graph.load_driver)  # restored at the end
    import pycuda.driver
    import tensorrt

    for name in ("tensorrt", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    for item in _BOUND:
        monkeypatch.setitem(sys.modules, f"ddfd_ros.inference.{item}", None)
        del sys.modules[f"ddfd_ros.inference.{item}"]
    assert Path(tensorrt.__file__).parent.parent == HERE
    assert Path(pycuda.driver.__file__).parent.parent == HERE
