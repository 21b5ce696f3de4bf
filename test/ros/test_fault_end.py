"""The process is told to end at the worst moment: while the runtime's own code loads a model."""

from __future__ import annotations

import os
import signal

import pytest

from ddfd_ros.core.shipped import shipped_models


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_loads(stage, tools, number):
    """The runtime cannot be interrupted; the process neither waits for it nor crashes over it.

    With a shipped model where there is one: its many calls of the runtime come back to Python
    while that shuts down, which ended the process with SIGABRT.
    """
    model = shipped_models().get("ddfd-lite-nyu-8m")
    model = model or tools.write_model(stage.folder / "slow.onnx", slow=True)
    node = stage.start(
        model_path=model, runtime="auto", warm_up_height=960, warm_up_width=1280, threads=0
    )
    stage.peer.report(state="configuring")
    status, duration_s = node.stop(number)
    assert status == 0, node.log[-1000:]
    assert "terminate called" not in node.log
    assert "Traceback" not in node.log
    assert "got a stop request" in node.log
    overload = max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
    assert duration_s < 2.0 * overload
