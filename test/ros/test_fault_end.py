"""The process is told to end at the worst moment: while the runtime's own code loads a model."""

from __future__ import annotations

import os
import signal

import pytest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_loads(stage, tools, number):
    """The runtime cannot be interrupted; the process neither waits for it nor crashes over it."""
    slow = tools.write_model(stage.folder / "slow.onnx", slow=True)
    # A warm-up with so large an image that it lasts for seconds.
    node = stage.start(model_path=slow, warm_up_height=1792, warm_up_width=1792)
    stage.peer.report(state="configuring")
    stage.peer.spin_for(1.0)  # inside the warm-up by now
    status, duration_s = node.stop(number)
    assert status == 0, node.log[-1000:]
    assert "terminate called" not in node.log
    assert "Traceback" not in node.log
    assert "got a stop request" in node.log
    overload = max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
    assert duration_s < 2.0 * overload
