"""The node with a second model behind the first."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract, golden_image, make_golden


def deblurred(rgb: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """What the second tiny model answers: half the image's value and the depth in decimetres."""
    return np.floor(rgb / 2 + depth_m[..., None] * 10).astype(np.uint8)


def write_second(path):
    node, info = helper.make_node, helper.make_tensor_value_info
    constants = {"half": np.float32(0.5), "ten": np.float32(10), "axis2": np.array([2])}
    nodes = [
        node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        node("Mul", ["float", "half"], ["dimmed"]),
        node("Mul", ["depth_m", "ten"], ["decimetres"]),
        node("Unsqueeze", ["decimetres", "axis2"], ["plane"]),
        node("Add", ["dimmed", "plane"], ["sum"]),
        node("Floor", ["sum"], ["whole"]),
        node("Cast", ["whole"], ["sharp_rgb"], to=TensorProto.UINT8),
    ]
    picture = (TensorProto.UINT8, ["height", "width", 3])
    depth = info("depth_m", TensorProto.FLOAT, ["height", "width"])
    model = helper.make_model(
        helper.make_graph(
            nodes, "second", [info("image", *picture), depth], [info("sharp_rgb", *picture)],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=8,
    )  # fmt: skip
    image = golden_image(64, 96, 1)
    answer = {"sharp_rgb": deblurred(image, np.ones((64, 96)))}
    contract = ModelContract(
        format_version=1, network="tiny", network_options={}, parameter_count=1, input_height=None,
        input_width=None, size_multiple=32, inputs=("image", "depth_m"), outputs=("sharp_rgb",),
        depth_min_m=0.5, depth_max_m=10.0, lens=None, training={}, metrics={},
        weights_sha256="cd" * 32, golden=make_golden(answer, 64, 96),
    )  # fmt: skip
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_the_second_model_is_told_the_depth_and_its_cost_is_known(stage, tools):
    second = write_second(stage.folder / "second.onnx")
    stage.start(deblur_model_path=str(second), precision="float32")
    peer = stage.peer
    peer.wait_for_camera()
    peer.listen("sharp", "depth", "latency")
    rgb = tools.picture(seed=4)
    stamp = peer.send(tools.image_message(rgb))
    sharp = peer.answer("sharp", stamp)
    got = np.frombuffer(sharp.data, np.uint8).reshape(rgb.shape)
    expected = deblurred(rgb, tools.reference(rgb)["depth_m"])
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert peer.answer("depth", stamp) is not None
    status = peer.answer("latency", stamp).status[0]
    values = {item.key: float(item.value) for item in status.values}
    assert values["deblur"] > 0
    assert list(values).index("deblur") == list(values).index("infer") + 1


def test_a_second_model_that_does_not_fit_is_refused(stage, tools):
    wrong = tools.write_model(stage.folder / "wrong.onnx")
    stage.start(deblur_model_path=str(wrong))
    values = stage.peer.report(level="2")
    assert "takes ['image', 'depth_m']" in values["message"]
