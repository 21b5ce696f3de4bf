"""ONNX Runtime and OpenVINO on real graphs, against sums written in numpy."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ddfd_ros.core.errors import ContractError, ImageFormatError, InferenceError, ModelLoadError
from ddfd_ros.core.metadata import golden_image
from ddfd_ros.inference import open_backend

RNG = np.random.default_rng(11)


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_close(outputs, expected, height, width):
    for name, values in outputs.items():
        wanted = expected[name][:height, :width]
        assert values.shape == wanted.shape
        assert values.dtype == wanted.dtype
        np.testing.assert_allclose(values, wanted, atol=1e-4, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (70, 90), (33, 32), (48, 640)])
def test_answers_any_size(make, runtime, tmp_path, size, batched):
    height, width = size
    path = make.write_model(tmp_path / "tiny.onnx", make.graph(batched=batched))
    image = picture(height, width)
    with open_backend(path, runtime) as backend:
        assert backend.runtime == runtime
        outputs = backend.infer(image)
    assert list(outputs) == ["depth_m", "sigma_m", "sharp_rgb"]
    rows, columns = -height % 32, -width % 32
    # The network must see the picture continued by reflection (an edge too short: by repetition).
    padded = np.pad(image, ((0, rows), (0, 0), (0, 0)), "reflect" if rows < height else "edge")
    padded = np.pad(
        padded, ((0, 0), (0, columns), (0, 0)), "reflect" if columns < width else "edge"
    )
    assert_close(outputs, make.reference(padded), height, width)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_cuda_provider_that_does_not_start_is_not_taken_for_the_gpu(make, tmp_path, monkeypatch):
    """ONNX Runtime goes on with the CPU then, as this one does, which has no such provider."""
    onnxruntime = pytest.importorskip("onnxruntime")
    known = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
    path = make.write_model(tmp_path / "tiny.onnx")
    words = r"expected CUDAExecutionProvider to start .* got a session on \['CPUExecutionProvider'"
    with pytest.raises(ModelLoadError, match=words):
        open_backend(path, "onnxruntime", device="cuda")


@pytest.fixture
def cuda_provider(monkeypatch):
    """Lets ONNX Runtime name its CUDA provider with its options, while the CPU computes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    real, name, told = onnxruntime.InferenceSession, "CUDAExecutionProvider", []

    def install(knows_tf32=True):
        class Session(real):
            def __init__(self, model, options, providers):
                told.append(providers)
                super().__init__(model, options, providers=["CPUExecutionProvider"])

            def get_providers(self):
                return [name, "CPUExecutionProvider"]

            def get_provider_options(self):
                return {name: dict(told[-1][0][1]) if knows_tf32 else {}}

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [name])
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        return told

    return install


@pytest.mark.parametrize(
    ("precision", "option", "said", "scale"),
    [("float32", "0", "float32", 1), ("auto", "1", "tf32", 4)],
)
def test_single_precision_on_cuda_is_not_tf32(
    make, tmp_path, cuda_provider, precision, option, said, scale
):
    """The provider rounds convolutions to ten bits of the mantissa unless told otherwise."""
    told = cuda_provider()
    path = make.write_model(tmp_path / "tiny.onnx")
    with open_backend(path, "onnxruntime", device="cuda", precision=precision) as backend:
        backend.infer(picture(64, 96), ["depth_m"])  # a session of its own
        assert backend.device.endswith(f", cuda, automatic threads, {said}")
        assert backend.tolerance_scale == scale
    assert told == [[("CUDAExecutionProvider", {"use_tf32": option})]] * 2


def test_a_cuda_provider_that_cannot_do_without_tf32_is_not_called_float32(
    make, tmp_path, cuda_provider
):
    cuda_provider(knows_tf32=False)
    path = make.write_model(tmp_path / "tiny.onnx")
    with open_backend(path, "onnxruntime", device="cuda", precision="float32") as backend:
        assert backend.device.endswith(", tf32")
        assert backend.tolerance_scale == 4


def test_size_changes_in_mid_stream(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    with open_backend(path, runtime) as backend:
        for side in (*range(32, 321, 32), 32):  # more than are kept
            image = picture(side, 64)
            assert_close(backend.infer(image), make.reference(image), side, 64)


def test_takes_strided_and_read_only_images(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    large = picture(64, 128)
    views = {"columns": large[:, 32:96], "flipped": large[:, :64, ::-1]}
    frozen = large[:, :64].copy()
    frozen.flags.writeable = False
    views["frozen"] = frozen
    with open_backend(path, runtime) as backend:
        for image in views.values():
            assert_close(backend.infer(image), make.reference(image), 64, 64)


def test_answers_stay_when_the_next_frame_is_answered(make, runtime, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    first, second = picture(64, 64), picture(64, 64)
    with open_backend(path, runtime) as backend:
        outputs = backend.infer(first)
        backend.infer(second)
        assert_close(outputs, make.reference(first), 64, 64)


@pytest.mark.parametrize("heads", [["depth_m"], {"sharp_rgb", "sigma_m"}, ("sigma_m",)])
def test_selected_heads_only(make, runtime, tmp_path, heads):
    path = make.write_model(tmp_path / "tiny.onnx")
    image = picture(64, 64)
    with open_backend(path, runtime) as backend:
        outputs = backend.infer(image, heads)
        assert set(outputs) == set(heads)
        assert_close(outputs, make.reference(image), 64, 64)


def test_no_heads_cost_nothing(make, runtime, tmp_path):
    with open_backend(make.write_model(tmp_path / "tiny.onnx"), runtime) as backend:
        timings = {}
        assert backend.infer(picture(64, 64), [], timings) == {}
        assert timings == {}


def test_a_head_not_asked_for_is_not_computed(make, runtime, tmp_path):
    """One branch is a hundred times as expensive as the other."""
    path = make.write_model(tmp_path / "tiny.onnx", make.heavy_sharp())
    image = picture(64, 64)
    cheapest_ms = {}
    with open_backend(path, runtime, threads=1) as backend:
        for heads in (("depth_m",), ("depth_m", "sigma_m", "sharp_rgb")):
            backend.warm_up(64, 64, heads)
            times = []
            for _ in range(7):
                start = time.perf_counter()
                backend.infer(image, heads)
                times.append(time.perf_counter() - start)
            cheapest_ms[heads] = min(times)
    cheap, full = cheapest_ms.values()
    assert cheap < 0.5 * full


def test_timings(make, runtime, tmp_path):
    with open_backend(make.write_model(tmp_path / "tiny.onnx"), runtime) as backend:
        timings = {}
        backend.infer(picture(70, 70), timings_ms=timings)
        assert list(timings) == ["pad", "infer"]
        assert all(0 < value < 10_000 for value in timings.values())
        assert 0 < backend.warm_up(64, 64, ["depth_m"]) < 10_000


def test_fixed_size(make, runtime, tmp_path):
    path = make.write_model(
        tmp_path / "tiny.onnx", make.graph(64, 96), input_height=64, input_width=96
    )
    image = picture(40, 96)
    with open_backend(path, runtime) as backend:
        padded = np.pad(image, ((0, 24), (0, 0), (0, 0)), "reflect")
        assert_close(backend.infer(image), make.reference(padded), 40, 96)
        image = picture(64, 40)  # 56 columns are missing, 39 could be reflected
        padded = np.pad(image, ((0, 0), (0, 56), (0, 0)), "edge")
        assert_close(backend.infer(image), make.reference(padded), 64, 40)
        with pytest.raises(ContractError, match=r"height: expected at most 64.*96x64.*got 65"):
            backend.infer(picture(65, 96))
        with pytest.raises(ContractError, match=r"width: expected at most 96.*got 640"):
            backend.infer(picture(64, 640))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((31, 64, 3), np.uint8),
        np.zeros((64, 0, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_bad_images_are_refused_and_the_backend_lives_on(make, runtime, tmp_path, image):
    with open_backend(make.write_model(tmp_path / "tiny.onnx"), runtime) as backend:
        with pytest.raises(ImageFormatError, match="expected"):
            backend.infer(image)
        assert set(backend.infer(picture(64, 64))) == {"depth_m", "sigma_m", "sharp_rgb"}


def test_unknown_head(make, runtime, tmp_path):
    backend = open_backend(make.write_model(tmp_path / "tiny.onnx"), runtime)
    with backend, pytest.raises(ContractError, match=r"'sharp_rgb'\], got \['normals'\]"):
        backend.infer(picture(64, 64), ["depth_m", "normals"])


def test_closed(make, runtime, tmp_path):
    backend = open_backend(make.write_model(tmp_path / "tiny.onnx"), runtime)
    backend.close()
    backend.close()
    with pytest.raises(InferenceError, match="closed"):
        backend.infer(picture(64, 64))


def golden_model(make, path, spoil=None):
    image = golden_image(64, 96, 5)
    outputs = make.reference(image)
    if spoil:
        outputs[spoil] = outputs[spoil] + type(outputs[spoil].flat[0])(5)
    return make.write_model(path, golden=make.make_golden(outputs, 64, 96, 5))


def test_self_test_passes_on_an_independent_answer(make, runtime, tmp_path):
    with open_backend(golden_model(make, tmp_path / "tiny.onnx"), runtime) as backend:
        report = backend.self_test()
    assert report["checked"]
    assert set(report["mismatch"]) == {"depth_m", "sigma_m", "sharp_rgb"}
    assert max(report["mismatch"].values()) < 0.1


@pytest.mark.parametrize("head", ["depth_m", "sigma_m", "sharp_rgb"])
def test_self_test_fails_on_another_answer(make, runtime, tmp_path, head):
    backend = open_backend(golden_model(make, tmp_path / "tiny.onnx", head), runtime)
    with backend, pytest.raises(ModelLoadError, match=f"self-test.*{head} off by"):
        backend.self_test()


def test_self_test_without_golden(make, runtime, tmp_path):
    with open_backend(make.write_model(tmp_path / "tiny.onnx"), runtime) as backend:
        assert backend.self_test() == {"checked": False, "mismatch": {}}


def test_runtime_failure_becomes_inference_error(make, runtime, tmp_path):
    """A graph that only works for one size though its contract says any."""
    path = make.write_model(tmp_path / "tiny.onnx", make.only_64())
    with open_backend(path, runtime) as backend:
        with pytest.raises(InferenceError, match=f"{runtime}: expected an answer for .*96x96"):
            backend.infer(picture(96, 96))
        image = picture(64, 64)
        assert_close(backend.infer(image), make.reference(image), 64, 64)
