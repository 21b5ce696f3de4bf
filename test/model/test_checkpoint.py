"""Checkpoint files: nothing is lost on the way, and what does not fit is refused in words."""

from __future__ import annotations

import hashlib
import zipfile

import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import (
    count_parameters,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    weights_sha256,
)

OPTIONS = {"lens": LENS_PRESETS["nyu-4m"], "depth_range_m": (0.7, 9.0)}


def make_contract(**changes):
    values = {
        "format_version": FORMAT_VERSION, "network": "?", "network_options": {},
        "parameter_count": 0, "input_height": None, "input_width": None, "size_multiple": 32,
        "outputs": ("depth_m", "sigma_m", "sharp_rgb"), "depth_min_m": 0.7, "depth_max_m": 9.0,
        "lens": LENS_PRESETS["nyu-4m"], "training": {"seed": 3}, "metrics": {"x": {"rmse": 0.5}},
        "weights_sha256": "",
    }  # fmt: skip
    return ModelContract(**(values | changes))


@pytest.fixture(scope="module")
def network():
    """A small network after one step in training mode: its buffers are not the initial ones."""
    torch.manual_seed(11)
    network = build_network("ddfd-lite", **OPTIONS)
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
    return network


@pytest.fixture
def path(tmp_path, network):
    """A checkpoint of ``network``."""
    path = tmp_path / "deep" / "model.pt"
    save_checkpoint(path, network, "ddfd-lite", OPTIONS, make_contract())
    return path


def rewrite(path, **changes):
    """Change entries of a checkpoint's plain content; None removes one."""
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save({key: value for key, value in content.items() if value is not None}, path)


def test_a_network_comes_back_with_every_bit(path, network):
    loaded, contract = load_checkpoint(path)
    assert not loaded.training
    wanted = network.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert contract.network == "ddfd-lite"
    assert contract.parameter_count == sum(p.numel() for p in network.parameters())
    assert contract.lens == LENS_PRESETS["nyu-4m"]
    assert contract.training == {"seed": 3}
    assert contract.metrics == {"x": {"rmse": 0.5}}
    assert contract.golden is None
    assert loaded.lens == OPTIONS["lens"]
    assert tuple(loaded.depth_range_m) == OPTIONS["depth_range_m"]


def test_the_file_holds_plain_values_only(path):
    content = torch.load(path, weights_only=True)  # refuses everything that could run code
    assert set(content) == {"format", "network", "options", "state_dict", "contract"}
    assert content["format"] == 1
    assert content["options"]["lens"]["focus_distance_m"] == 4.0
    assert "golden" not in content["contract"]
    assert [item.name for item in path.parent.iterdir()] == ["model.pt"]


def test_the_digest_is_the_documented_one():
    state = {
        "b": torch.tensor([[1.0, 2.0]]),
        "a": torch.tensor(3, dtype=torch.int64),
    }
    text = b"a\0int64[]\0" + (3).to_bytes(8, "little")
    text += b"b\0float32[1, 2]\0" + bytes.fromhex("0000803f00000040")
    assert weights_sha256(state) == hashlib.sha256(text).hexdigest()
    assert weights_sha256(dict(reversed(state.items()))) == weights_sha256(state)
    # A view is digested by its values, not by its storage.
    turned = {"a": state["a"], "b": torch.tensor([[1.0], [2.0]]).T}
    assert weights_sha256(turned) == weights_sha256(state)
    assert weights_sha256({"b": state["b"].bfloat16()}) != weights_sha256({"b": state["b"]})


@pytest.mark.parametrize("heads", ["depth", "sharp"])
def test_one_head_of_a_whole_checkpoint(path, network, heads):
    single, contract = load_checkpoint(path, heads=heads)
    rgb = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        wanted, got = network.eval()(rgb), single(rgb)
    network.train()
    assert set(got) < set(wanted)
    assert all(torch.equal(got[name], wanted[name]) for name in got)
    assert count_parameters(single) < count_parameters(network)
    assert contract.outputs == ("depth_m", "sigma_m", "sharp_rgb")  # of the whole file


def test_one_head_of_2hded(tmp_path):
    network = build_network("2hded")
    contract = make_contract(outputs=("depth_m", "sharp_rgb"))
    save_checkpoint(tmp_path / "model.pt", network, "2hded", {}, contract)
    single, _ = load_checkpoint(tmp_path / "model.pt", heads="depth")
    assert count_parameters(single) == 24_212_544  # one head of 2HDED:NET is as large as D3-Net
    wanted = network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in single.state_dict().items())


def test_a_head_that_was_never_trained_is_refused(tmp_path):
    options = OPTIONS | {"heads": "depth"}
    network = build_network("ddfd-lite", **options)
    contract = make_contract(outputs=("depth_m", "sigma_m"))
    save_checkpoint(tmp_path / "model.pt", network, "ddfd-lite", options, contract)
    with pytest.raises(ContractError, match=r"heads='depth'.*sharp_decoder.*choose other heads"):
        load_checkpoint(tmp_path / "model.pt", heads="both")


def test_missing_and_damaged_files_are_refused(path):
    with pytest.raises(ModelLoadError, match=r"expected a checkpoint file, got none"):
        load_checkpoint(path.with_name("other.pt"))
    with pytest.raises(ModelLoadError, match=r"expected a checkpoint file, got none"):
        load_checkpoint(path.parent)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"not a checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises(ModelLoadError, match=rf"got a file of {len(content)} bytes"):
            load_checkpoint(path)


def test_a_changed_byte_among_the_weights_is_noticed(path):
    whole = bytearray(path.read_bytes())
    state = torch.load(path, weights_only=True)["state_dict"]
    largest = max(state.values(), key=lambda item: item.numel())
    where = whole.find(largest.contiguous().numpy().tobytes())
    assert where > 0
    whole[where + 1000] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ModelLoadError, match="(expected weights with sha256|got a file of)"):
        load_checkpoint(path)


def test_bytes_damaged_among_the_instructions_are_refused(path):
    rewrite(path, state_dict={str(i): torch.ones(i + 1) for i in range(20)})
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        name = next(item for item in archive.namelist() if item.endswith("data.pkl"))
        text = archive.read(name)
    start = whole.index(text)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(len(text), size=3):
            damaged[start + place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except ModelLoadError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network", ["ddfd-lite"], "expected the name of a network"),
        ("options", [1, 2], "expected options by name"),
        ("options", {1: 2}, "expected options by name"),
        ("format", torch.ones(2), "expected checkpoint format 1"),
        ("state_dict", {1: torch.ones(1)}, "expected a state_dict of tensors"),
        ("state_dict", {"a": torch.eye(3).to_sparse()}, "expected a state_dict of tensors"),
        ("state_dict", {"a": torch.ones(1, device="meta")}, "expected a state_dict of tensors"),
    ],
)
def test_content_of_another_kind_is_refused(path, key, value, message):
    rewrite(path, **{key: value})
    with pytest.raises(ModelLoadError, match=message):
        load_checkpoint(path)


def test_code_in_a_file_does_not_run(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"format": 1, "state_dict": Trap()}, path)
    with pytest.raises(ModelLoadError, match="does not load"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_other_formats_are_refused(path):
    rewrite(path, format=2)
    with pytest.raises(ModelLoadError, match=r"expected checkpoint format 1, got 2"):
        load_checkpoint(path)
    rewrite(path, contract=None)
    with pytest.raises(ModelLoadError, match=r"expected a checkpoint with the keys .*got \["):
        load_checkpoint(path)
    rewrite(path, format=1, contract={}, state_dict={"weight": "heavy"})
    with pytest.raises(ModelLoadError, match=r"expected a state_dict of tensors"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelLoadError, match=r"got list"):
        read_checkpoint(path)


def test_weights_of_another_network_are_refused(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    first = next(iter(state))
    cases = {
        rf"1 missing \(first: {first}\)": {k: v for k, v in state.items() if k != first},
        r"1 not in the network \(first: extra\)": state | {"extra": torch.zeros(1)},
        rf"1 of another shape \(first: {first} expected": state | {first: torch.zeros(3)},
    }
    for message, changed in cases.items():
        contract = make_contract(weights_sha256=weights_sha256(changed)).to_dict()
        rewrite(path, state_dict=changed, contract=contract)
        with pytest.raises(ModelLoadError, match=message):
            load_checkpoint(path)


def test_unknown_networks_options_and_contract_keys_are_refused(path):
    rewrite(path, options={"wings": 2})
    with pytest.raises(ContractError, match="got wings"):
        load_checkpoint(path)
    rewrite(path, network="3hded")
    with pytest.raises(ContractError, match="got '3hded'"):
        load_checkpoint(path)
    content = torch.load(path, weights_only=True)
    rewrite(path, contract=content["contract"] | {"colour": "blue"})
    with pytest.raises(ContractError, match="colour"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_are_not_saved(tmp_path, network):
    with pytest.raises(ModelLoadError, match=r"ddfd-lite with options .*not in the network"):
        save_checkpoint(
            tmp_path / "model.pt", network, "ddfd-lite", {"heads": "depth"}, make_contract()
        )
    assert list(tmp_path.iterdir()) == []
