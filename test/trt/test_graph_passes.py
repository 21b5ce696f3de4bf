"""Simplified graphs compute what the original ones did, with fewer nodes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ddfd_trt.graph_passes import simplify

RNG = np.random.default_rng(4)


def make_model(nodes, weights, output, channels=6):
    """A model over ``x`` float32 [1, channels, 5, 7]."""
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 5, 7])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", "h", "w"])
         for name in output],
        initializer=[
            numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def norm_weights(channels, prefix="n"):
    values = {f"{prefix}_{i}": floats(channels) for i in range(3)}
    return values | {f"{prefix}_3": RNG.uniform(0.2, 2, channels).astype(np.float32)}


def norm_node(source, target, prefix="n", epsilon=1e-3):
    names = [f"{prefix}_{i}" for i in range(4)]
    return helper.make_node("BatchNormalization", [source, *names], [target], epsilon=epsilon)


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def run(model, channels=6):
    """Answers with every optimisation of the runtime switched off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(9).standard_normal((1, channels, 5, 7)).astype(np.float32)
    return session.run(None, {"x": x})


def check(model, expected_operators):
    """Simplify a model; the answers stay, the operators are the expected ones."""
    before = run(model)
    simplify(model)
    onnx.checker.check_model(model, full_check=True)
    for wanted, got in zip(before, run(model), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert operators(model) == expected_operators


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("biased", [False, True])
def test_a_batch_norm_behind_a_convolution_goes_into_its_weights(kind, groups, biased):
    # Conv's weights are [out, in / groups, ...], ConvTranspose's are [in, out / groups, ...].
    shape = (12, 6 // groups, 3, 3) if kind == "Conv" else (6, 12 // groups, 3, 3)
    weights = {"w": floats(*shape)} | ({"b": floats(12)} if biased else {}) | norm_weights(12)
    inputs = ["x", "w", "b"] if biased else ["x", "w"]
    nodes = [
        helper.make_node(kind, inputs, ["c"], group=groups, pads=[1, 1, 1, 1]),
        norm_node("c", "y"),
    ]
    check(make_model(nodes, weights, ["y"]), {kind: 1})


def test_a_batch_norm_before_an_activation_becomes_product_and_sum():
    nodes = [norm_node("x", "n"), helper.make_node("Relu", ["n"], ["y"])]
    check(make_model(nodes, norm_weights(6), ["y"]), {"Mul": 1, "Add": 1, "Relu": 1})


@pytest.mark.parametrize("outputs", [("y", "z"), ("y", "c")])
def test_a_convolution_with_other_users_keeps_its_weights(outputs):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        norm_node("c", "y"),
        helper.make_node("Relu", ["c"], ["z"]),
    ]
    weights = {"w": floats(4, 6, 1, 1)} | norm_weights(4)
    left = {"Conv": 1, "Mul": 1, "Add": 1} | ({"Relu": 1} if "z" in outputs else {})
    check(make_model(nodes, weights, outputs), left)


def test_shared_weights_are_folded_apart():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        norm_node("a", "y", "n"),
        helper.make_node("Conv", ["x", "w"], ["b"]),
        norm_node("b", "z", "m"),
    ]
    weights = {"w": floats(4, 6, 1, 1)} | norm_weights(4, "n") | norm_weights(4, "m")
    check(make_model(nodes, weights, ["y", "z"]), {"Conv": 2})


def test_batch_norms_in_a_row_fold_into_one_convolution():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        norm_node("a", "b", "n"),
        norm_node("b", "y", "m"),
    ]
    weights = {"w": floats(4, 6, 1, 1)} | norm_weights(4, "n") | norm_weights(4, "m")
    check(make_model(nodes, weights, ["y"]), {"Conv": 1})


def test_constants_copies_and_dead_ends_disappear():
    shape = numpy_helper.from_array(np.array([2, 3], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Reshape", ["flat", "shape"], ["square"]),
        helper.make_node("ReduceSum", ["square"], ["total"], keepdims=0),
        helper.make_node("Identity", ["x"], ["copy"]),
        helper.make_node("Cast", ["copy"], ["same"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["same", "total"], ["y"]),
        helper.make_node("Relu", ["x"], ["unused"]),
    ]
    model = make_model(nodes, {"flat": floats(6), "lonely": floats(3)}, ["y"])
    check(model, {"Mul": 1})
    assert len(model.graph.initializer) == 1


def test_a_cast_that_changes_something_stays():
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
    ]
    check(make_model(nodes, {}, ["y"]), {"Cast": 2})


def test_equal_weights_are_stored_once():
    kernel = floats(6, 6, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"]),
        helper.make_node("Conv", ["c", "b"], ["y"]),
    ]
    model = make_model(nodes, {"a": kernel, "b": kernel.copy()}, ["y"])
    check(model, {"Conv": 2})
    assert [item.name for item in model.graph.initializer] == ["a"]


def test_an_identity_that_makes_an_output_stays():
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {}, ["y"])
    check(model, {"Identity": 1})


def test_large_constants_are_left_to_the_runtime():
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["top"], keepdims=0),
        helper.make_node("Add", ["x", "top"], ["y"]),
    ]
    weights = {"one": floats(1), "shape": np.array([1 << 19], np.int64)}
    model = make_model(nodes, weights, ["y"])
    check(model, {"Expand": 1, "ReduceMax": 1, "Add": 1})


def test_softplus_stays_finite_in_half_precision():
    """Each step of each operator's definition rounded to the data's type."""
    steps = {
        "Softplus": lambda v: np.log(np.exp(v) + v.dtype.type(1)),
        "Relu": lambda v: np.maximum(v, v.dtype.type(0)),
        "Abs": np.abs,
        "Neg": np.negative,
        "Add": np.add,
    }

    def in_half(model):
        known = {"x": x.astype(np.float16)}
        for node in model.graph.node:
            with np.errstate(over="ignore"):
                known[node.output[0]] = steps[node.op_type](*(known[i] for i in node.input))
        return known["y"]

    x = np.linspace(-60, 60, 6 * 5 * 7, dtype=np.float32).reshape(1, 6, 5, 7)
    model = make_model([helper.make_node("Softplus", ["x"], ["y"])], {}, ["y"])
    assert np.isinf(in_half(model)).any()
    check(model, {"Softplus": 1, "Relu": 1, "Abs": 1, "Neg": 1, "Add": 1})
    assert in_half(model).dtype == np.float16
    np.testing.assert_allclose(in_half(model), np.logaddexp(0.0, x), rtol=2e-3, atol=2e-3)
