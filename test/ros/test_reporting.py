"""Diagnostics while the node is busy with something else."""

from __future__ import annotations


def test_diagnostics_go_on_while_a_model_loads(stage, tools):
    # Computing the warm-up image takes seconds, all of them inside on_configure.
    path = tools.write_model(stage.folder / "slow.onnx", slow=True)
    stage.start(model_path=path, warm_up_height=896, warm_up_width=1216)
    peer = stage.peer
    first = peer.report(state="configuring")
    assert "loading the model" in first["message"]
    count = len(peer.diagnostics)
    peer.wait_for_camera()
    states = [values["state"] for values in peer.diagnostics[count:]]
    assert states.count("configuring") >= 3  # one every 0.2 s
    assert peer.report(state="active")["progress"] == ""
