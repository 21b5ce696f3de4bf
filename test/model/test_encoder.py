"""The encoder against torchvision's published names and an independent functional version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.model.encoders import (
    DenseEncoder,
    DenseLayer,
    load_imagenet_state,
    load_imagenet_weights,
)

LAYERS = (6, 12, 24, 16)  # Huang 2017, table 1, DenseNet-121
PREFIX = "features."


def batch_norm_shapes(name, channels, with_counter):
    shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias")}
    shapes |= {f"{name}.{part}": (channels,) for part in ("running_mean", "running_var")}
    return shapes | ({f"{name}.num_batches_tracked": ()} if with_counter else {})


def torchvision_shapes(old_names=False):
    """Names and shapes of torchvision's DenseNet-121 state dict, from the architecture.

    Its downloadable file has the older names, with a dot, and no batch counters.
    """
    dot, counter = ("." if old_names else ""), not old_names
    shapes = {"features.conv0.weight": (64, 3, 7, 7)}
    shapes |= batch_norm_shapes("features.norm0", 64, counter)
    channels = 64
    for block, count in enumerate(LAYERS, start=1):
        for layer in range(1, count + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            shapes |= batch_norm_shapes(f"{name}.norm{dot}1", channels, counter)
            shapes[f"{name}.conv{dot}1.weight"] = (128, channels, 1, 1)
            shapes |= batch_norm_shapes(f"{name}.norm{dot}2", 128, counter)
            shapes[f"{name}.conv{dot}2.weight"] = (32, 128, 3, 3)
            channels += 32
        if block < 4:
            name = f"features.transition{block}"
            shapes |= batch_norm_shapes(f"{name}.norm", channels, counter)
            shapes[f"{name}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    shapes |= batch_norm_shapes("features.norm5", channels, counter)
    return shapes | {"classifier.weight": (1000, 1024), "classifier.bias": (1000,)}


def make_weights(old_names=False):
    """Random values in torchvision's layout; variances positive."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(shape, generator=generator) + 0.5 if shape else torch.tensor(7)
        for name, shape in torchvision_shapes(old_names).items()
    }


def randomize_norms(module, seed=0):
    """Batch norms as training leaves them: nothing is exactly 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for item in module.modules():
        if isinstance(item, torch.nn.BatchNorm2d):
            for tensor in (item.weight.data, item.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (item.bias.data, item.running_mean):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
    return module


def test_the_list_of_names_is_torchvisions():
    shapes = torchvision_shapes()
    values = {k: int(np.prod(v)) for k, v in shapes.items() if "running" not in k and v}
    assert sum(values.values()) == 7_978_856  # DenseNet-121's published parameter count


@pytest.mark.parametrize("stem", [3, 7])
def test_names_and_shapes_are_torchvisions_but_for_the_stem(stem):
    mine = {name: tuple(value.shape) for name, value in DenseEncoder(stem).state_dict().items()}
    theirs = {k: v for k, v in torchvision_shapes().items() if k.startswith(PREFIX)}
    theirs["features.conv0.weight"] = (64, 3, stem, stem)
    theirs["features.down0.weight"] = (64, 64, 4, 4)  # in place of max pooling
    theirs |= batch_norm_shapes("features.downnorm0", 64, with_counter=True)
    assert mine == theirs


def slow_dense_layer(features, state):
    """One dense layer of one image, in numpy, pixel by pixel."""

    def norm(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
        return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    inner = np.maximum(norm(features, "norm1"), 0)
    inner = np.einsum("oi,ihw->ohw", state["conv1.weight"][:, :, 0, 0], inner)
    inner = np.pad(np.maximum(norm(inner, "norm2"), 0), ((0, 0), (1, 1), (1, 1)))
    height, width = features.shape[1:]
    new = np.zeros((32, height, width))
    for row in range(height):
        for column in range(width):
            window = inner[:, row : row + 3, column : column + 3]
            new[:, row, column] = (state["conv2.weight"] * window).sum(axis=(1, 2, 3))
    return np.concatenate([features, new])


def test_dense_block_agrees_with_a_slow_one():
    encoder = randomize_norms(DenseEncoder().eval())
    block = encoder.features["denseblock1"]
    features = torch.randn(1, 64, 4, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = block(features)[0].numpy()
    expected = features[0].double().numpy()
    for layer in block:
        assert isinstance(layer, DenseLayer)
        state = {name: value.double().numpy() for name, value in layer.state_dict().items()}
        expected = slow_dense_layer(expected, state)
    assert answer.shape == (64 + 6 * 32, 4, 5)
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)


def reference_levels(state, image, leaky_bridge):
    """The encoder of FACTS in functional form, by torchvision's names."""

    def norm(x, name):
        return F.batch_norm(
            x,
            state[f"features.{name}.running_mean"],
            state[f"features.{name}.running_var"],
            state[f"features.{name}.weight"],
            state[f"features.{name}.bias"],
        )

    def conv(x, name, **arguments):
        return F.conv2d(x, state[f"features.{name}.weight"], **arguments)

    stem_padding = state["features.conv0.weight"].shape[-1] // 2
    x = F.leaky_relu(norm(conv(image, "conv0", stride=2, padding=stem_padding), "norm0"), 0.2)
    levels = [x]
    x = F.leaky_relu(norm(conv(x, "down0", stride=2, padding=1), "downnorm0"), 0.2)
    for block, count in enumerate(LAYERS, start=1):
        collected = [x]
        for layer in range(1, count + 1):
            name = f"denseblock{block}.denselayer{layer}"
            inner = conv(F.relu(norm(torch.cat(collected, 1), f"{name}.norm1")), f"{name}.conv1")
            collected.append(
                conv(F.relu(norm(inner, f"{name}.norm2")), f"{name}.conv2", padding=1)
            )
        x = torch.cat(collected, 1)
        if block < 4:
            x = conv(F.relu(norm(x, f"transition{block}.norm")), f"transition{block}.conv")
            levels.append(x)
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    x = norm(x, "norm5")
    return [*levels, F.leaky_relu(x, 0.2) if leaky_bridge else x]


@pytest.mark.parametrize(("stem", "bridge"), [(3, "linear"), (7, "leaky")])
def test_levels_agree_with_a_functional_version(stem, bridge):
    encoder = randomize_norms(DenseEncoder(stem, bridge).eval())
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        levels = encoder(image)
        expected = reference_levels(encoder.state_dict(), image, bridge == "leaky")
    sizes = [(64, 32, 48), (128, 16, 24), (256, 8, 12), (512, 4, 6), (1024, 2, 3)]
    assert [tuple(level.shape[1:]) for level in levels] == sizes
    for level, wanted in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match=r"stem: expected one of 3, 7, got 5"):
        DenseEncoder(stem=5)
    with pytest.raises(ValueError, match="bridge: expected one of"):
        DenseEncoder(bridge="relu")


@pytest.mark.parametrize("old_names", [False, True])
def test_imagenet_weights_load_by_key(tmp_path, old_names):
    weights = make_weights(old_names)
    path = tmp_path / "densenet121.pth"
    torch.save(weights, path)
    encoder = DenseEncoder(stem=7)
    down = encoder.features["down0"].weight.clone()
    report = load_imagenet_weights(encoder, path)
    assert len(report.matched) == len(weights) - 2  # all but the classifier
    assert report.other_shape == ()
    assert set(report.only_file) == {"classifier.weight", "classifier.bias"}
    own = {name for name in report.only_network if not name.endswith("num_batches_tracked")}
    assert own == {"features.down0.weight"} | set(
        batch_norm_shapes("features.downnorm0", 64, with_counter=False)
    )
    dot = "." if old_names else ""
    layer = encoder.features["denseblock3"][23]
    torch.testing.assert_close(
        layer.conv2.weight.data, weights[f"features.denseblock3.denselayer24.conv{dot}2.weight"]
    )
    torch.testing.assert_close(encoder.features["norm5"].running_var,
                               weights["features.norm5.running_var"])  # fmt: skip
    assert torch.equal(encoder.features["down0"].weight, down)


def test_the_small_stem_keeps_its_initial_values(tmp_path):
    path = tmp_path / "densenet121.pth"
    torch.save(make_weights(), path)
    encoder = DenseEncoder(stem=3)
    stem = encoder.features["conv0"].weight.clone()
    report = load_imagenet_weights(encoder, path)
    assert report.other_shape == ("features.conv0.weight",)
    assert len(report.matched) == 724  # torchvision's 727 tensors but the stem and the classifier
    assert torch.equal(encoder.features["conv0"].weight, stem)
    assert str(report).startswith("encoder: 724 of 731 tensors matched")


def test_imagenet_weights_do_not_fit_a_thinner_encoder():
    weights = DenseEncoder().state_dict()
    with pytest.raises(ModelLoadError, match=r"of full width .* got one with 512 of 1024"):
        load_imagenet_state(DenseEncoder(width=0.5), weights, "densenet121.pth")


def test_files_that_are_no_weights_are_refused(tmp_path):
    encoder = DenseEncoder()
    with pytest.raises(ModelLoadError, match="got no file"):
        load_imagenet_weights(encoder, tmp_path / "none.pth")
    broken = tmp_path / "broken.pth"
    for content in (b"PK\x03\x04 not a zip", b"half a download"):
        broken.write_bytes(content)
        with pytest.raises(ModelLoadError, match="does not load"):
            load_imagenet_weights(encoder, broken)
    other = tmp_path / "other.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(3)}, other)
    with pytest.raises(ModelLoadError, match="only 0 of 731 tensors match"):
        load_imagenet_weights(encoder, other)
    listing = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], listing)
    with pytest.raises(ModelLoadError, match="does not load as one"):
        load_imagenet_weights(encoder, listing)
