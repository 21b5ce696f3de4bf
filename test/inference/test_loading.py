"""Files that cannot serve: each gives one clear error that names expected, got and remedy."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.sidecar import sidecar_path, write_sidecar
from ddfd_ros.inference import factory, open_backend

IMAGE = np.zeros((64, 64, 3), np.uint8)


def test_missing_file(runtime, tmp_path):
    with pytest.raises(ModelLoadError, match=r"expected a file at .*no\.onnx, got none"):
        open_backend(tmp_path / "no.onnx", runtime)
    with pytest.raises(ModelLoadError, match="got none"):
        open_backend(tmp_path / "no.onnx")


def test_folder_instead_of_file(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelLoadError, match="got none"):
        open_backend(tmp_path / "folder.onnx")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated_file_without_sidecar(make, runtime, tmp_path, kept):
    path = make.write_model(tmp_path / "tiny.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ModelLoadError, match="copy or export it again"):
        open_backend(path, runtime)


def test_cut_anywhere_never_opens(make, tmp_path):
    """Wherever a copy broke off, the reader says so (or finds no contract) before any runtime."""
    from ddfd_ros.inference.onnx_file import load_onnx

    path = make.write_model(tmp_path / "tiny.onnx")
    data = path.read_bytes()
    assert load_onnx(path)[1] == make.contract()
    for end in range(0, len(data), 3):
        path.write_bytes(data[:end])
        with pytest.raises((ModelLoadError, ContractError)):
            load_onnx(path)


def test_truncated_file_with_sidecar(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    write_sidecar(path, make.contract())
    with open_backend(path, runtime) as backend:
        backend.infer(IMAGE)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelLoadError, match=f"expected {size} bytes, got {size - 5}"):
        open_backend(path, runtime)


def test_altered_file_with_sidecar(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    write_sidecar(path, make.contract())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelLoadError, match=r"expected sha256 .* got .* altered"):
        open_backend(path, runtime)


def test_malformed_sidecar(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    sidecar_path(path).write_text("{}")
    with pytest.raises(ContractError, match="expected JSON with file_sha256"):
        open_backend(path, runtime)


@pytest.mark.parametrize(
    "content", [b"hello world, this is no model", b"\x00" * 100, b"\xff" * 99]
)
def test_something_else(runtime, tmp_path, content):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="expected an ONNX model"):
        open_backend(path, runtime)


def test_no_contract(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx", text="")
    with pytest.raises(
        ContractError, match=r"expected a contract under 'ddfd_contract'.*ddfd-exp"
    ):
        open_backend(path, runtime)


def test_contract_from_the_sidecar_alone(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx", text="")
    write_sidecar(path, make.contract())
    with open_backend(path, runtime) as backend:
        assert backend.contract == make.contract()


def changed(make, **changes):
    values = json.loads(make.contract().to_json())
    values.update(changes)
    return json.dumps({name: value for name, value in values.items() if value != "remove"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 99, "colour": 1}, "from 1 to 1, got 99.*newer ddfd_ros"),
        ({"colour": "blue"}, r"unknown \['colour'\]"),
        ({"lens": "remove"}, r"missing \['lens'\]"),
        ({"outputs": ["depth_m", "normals"]}, "outputs: expected a subset"),
        ({"outputs": []}, "outputs: expected a subset"),
        ({"size_multiple": "32"}, "size_multiple: expected int, got '32'"),
        ({"input_height": 70}, "input_height: expected a positive multiple of 32"),
        ({"depth_min_m": 11.0}, "expected 0 < min < max"),
        ({"lens": {"focal_length_m": 1.0}}, "lens: expected the keys"),
    ],
)
def test_bad_contracts(make, runtime, tmp_path, changes, words):
    path = make.write_model(tmp_path / "tiny.onnx", text=changed(make, **changes))
    with pytest.raises(ContractError, match=words):
        open_backend(path, runtime)


def test_contract_that_is_no_json(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx", text="{not json")
    with pytest.raises(ContractError, match="expected JSON, got '{not json'"):
        open_backend(path, runtime)


def test_graph_with_another_input_name(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx", make.graph(input_name="picture"))
    with pytest.raises(ContractError, match=r"expected one input image uint8 .*got picture uint8"):
        open_backend(path, runtime)


def test_graph_with_another_size_than_its_contract(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx", make.graph(64, 96))
    with pytest.raises(ContractError, match=r"\[\?, \?, 3\], got image uint8 \[64, 96, 3\]"):
        open_backend(path, runtime)
    path = make.write_model(tmp_path / "tiny.onnx", input_height=64, input_width=96)
    with pytest.raises(ContractError, match=r"\[64, 96, 3\], got image uint8 \[\?, \?, 3\]"):
        open_backend(path, runtime)


def test_graph_with_another_batch(make, runtime, tmp_path):
    model = make.graph()
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["height", "width", 3])
    )
    path = make.write_model(tmp_path / "tiny.onnx", model)
    with pytest.raises(ContractError, match="expected one input image uint8.*got image float32"):
        open_backend(path, runtime)


@pytest.mark.parametrize(
    "outputs", [("depth_m",), ("depth_m", "sigma_m", "sharp_rgb", "defocus_px")]
)
def test_graph_with_other_outputs(make, runtime, tmp_path, outputs):
    path = make.write_model(tmp_path / "tiny.onnx", outputs=outputs)
    with pytest.raises(ContractError, match="graph outputs: expected .*got"):
        open_backend(path, runtime)


def test_graph_the_runtime_does_not_understand(make, runtime, tmp_path):
    model = make.graph()
    model.graph.node[0].op_type = "Teleport"
    path = make.write_model(tmp_path / "tiny.onnx", model)
    with pytest.raises(
        ModelLoadError, match=f"expected a model {runtime} can load, got .*Teleport"
    ):
        open_backend(path, runtime)


def test_unknown_names(make, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    with pytest.raises(ModelLoadError, match="got 'tflite'"):
        open_backend(path, "tflite")
    with pytest.raises(ModelLoadError, match=r"expected a selection of \['threads'.*\['fast'\]"):
        open_backend(path, fast=True)
    with pytest.raises(ModelLoadError, match=r"expected a file that ends in \.ckpt or \.pt"):
        open_backend(path, "torch")
    with pytest.raises(ModelLoadError, match=r"expected one of \['\.ckpt'.*'tiny\.bin'"):
        open_backend(tmp_path / "tiny.bin")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": -1}, "threads: expected 0"),
        ({"device": "tpu"}, "expected 'cpu' or 'cuda', got 'tpu'"),
        ({"precision": "int4"}, "got 'int4'"),
    ],
)
def test_bad_options(make, tmp_path, options, words):
    with pytest.raises(ModelLoadError, match=words):
        open_backend(make.write_model(tmp_path / "tiny.onnx"), **options)


def test_auto_takes_openvino_on_x86_only(make, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    path = make.write_model(tmp_path / "tiny.onnx")
    for machine, expected in (("x86_64", "openvino"), ("aarch64", "onnxruntime")):
        monkeypatch.setattr(factory.platform, "machine", lambda machine=machine: machine)
        with open_backend(path) as backend:
            assert backend.runtime == expected


def test_auto_takes_what_is_installed(make, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    path = make.write_model(tmp_path / "tiny.onnx")
    installed = {"onnxruntime"}
    real = factory.importlib.util.find_spec

    def find(name):
        return real(name) if name in installed else None

    monkeypatch.setattr(factory.importlib.util, "find_spec", find)
    with open_backend(path) as backend:
        assert backend.runtime == "onnxruntime"


def test_runtime_that_is_not_installed(make, tmp_path, monkeypatch):
    path = make.write_model(tmp_path / "tiny.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "ddfd_ros.inference.openvino_backend", raising=False)
    with pytest.raises(ModelLoadError, match="runtime openvino: expected its Python package"):
        open_backend(path, "openvino")


def test_threads_and_spin_are_accepted(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    with open_backend(path, runtime, threads=1, spin=True) as backend:
        assert "1 threads" in backend.device
        assert set(backend.infer(IMAGE)) == {"depth_m", "sigma_m", "sharp_rgb"}


def test_no_cuda(make, runtime, tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's onnxruntime has CUDA")
    path = make.write_model(tmp_path / "tiny.onnx")
    with pytest.raises(ModelLoadError, match="cuda"):
        open_backend(path, runtime, device="cuda")


def test_onnx_package_is_not_needed_at_run_time(make, tmp_path):
    """The robot has no ``onnx``: reading and pruning work on the bytes."""
    from ddfd_ros.inference import onnx_file

    assert "onnx" not in vars(onnx_file)
    path = make.write_model(tmp_path / "tiny.onnx")
    metadata = onnx_file.read_metadata(path.read_bytes())
    expected = {item.key: item.value for item in onnx.load(str(path)).metadata_props}
    assert metadata == expected
