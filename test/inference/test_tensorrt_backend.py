"""The TensorRT backend over the stand-in: answers, copies, graphs, threads, refusals, freeing."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from ddfd_ros.core.errors import ContractError, InferenceError, ModelLoadError
from ddfd_ros.core.metadata import golden_image
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import DeviceError, ParityError
from ddfd_ros.inference.engine_manifest import (
    EngineManifest,
    GpuMachine,
    ShapeRange,
    file_sha256,
    manifest_path,
    read_manifest,
    write_manifest,
)

MACHINE = GpuMachine("Stand-in", "8.7", "12.6", "10.13.0.35")


@pytest.fixture
def write_engine(gpu, make, tmp_path):
    """Builds an engine file of the tiny graph, as ``ddfd-engine`` lays it out."""
    import tensorrt

    def write(name="tiny.engine", shapes=None, heads=None, model=None, **changes):
        shapes = shapes or ShapeRange.fixed(64, 96)
        graph = make.graph() if model is None else model
        if heads is not None:
            kept = [item for item in graph.graph.output if item.name in heads]
            del graph.graph.output[:]
            graph.graph.output.extend(kept)
        logger = tensorrt.ILogger()
        builder = tensorrt.Builder(logger)
        network = builder.create_network(1)
        assert tensorrt.OnnxParser(network, logger).parse(graph.SerializeToString())
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        sizes = (shapes.minimum, shapes.optimum, shapes.maximum)
        profile.set_shape("image", *((*size, 3) for size in sizes))
        config.add_optimization_profile(profile)
        path = tmp_path / name
        path.write_bytes(bytes(builder.build_serialized_network(network, config)))
        height, width = shapes.optimum
        answer = make.reference(golden_image(height, width, 1))
        outputs = tuple(h for h in ("depth_m", "sigma_m", "sharp_rgb") if h in (heads or answer))
        golden = make.make_golden({h: answer[h] for h in outputs}, height, width)
        fixed = {"input_height": height, "input_width": width} if shapes.is_fixed else {}
        manifest = EngineManifest(
            engine_sha256=file_sha256(path),
            engine_bytes=path.stat().st_size,
            onnx_file="tiny.onnx",
            onnx_sha256="1" * 64,
            contract=make.contract(outputs=outputs, golden=golden, **fixed),
            precision="fp32",
            shapes=shapes,
            machine=MACHINE,
        )
        write_manifest(manifest_path(path), dataclasses.replace(manifest, **changes))
        return path

    return write


def check(make, backend, height, width, seed, heads=None):
    image = golden_image(height, width, seed)
    answer = backend.infer(image, heads)
    wanted = make.reference(image)
    assert set(answer) == set(heads or wanted)
    for head, value in answer.items():
        np.testing.assert_allclose(value, wanted[head], rtol=1e-4, atol=1e-4)
    return answer


def test_answers_as_the_model(write_engine, make):
    with open_backend(write_engine()) as backend:
        assert backend.runtime == "tensorrt"
        assert "Stand-in" in backend.device
        assert backend.self_test()["checked"]
        first = check(make, backend, 64, 96, 3)
        kept = {head: value.copy() for head, value in first.items()}
        check(make, backend, 64, 96, 4)  # a second frame must not change the first one's answer
        for head, value in first.items():
            np.testing.assert_array_equal(value, kept[head])


def test_one_graph_is_captured_and_launched_from_then_on(write_engine, make, gpu):
    with open_backend(write_engine()) as backend:
        backend.warm_up(64, 96)
        assert backend.graph_problem == ""
        before = gpu._driver.launches
        for seed in range(5):
            check(make, backend, 64, 96, seed)
        assert gpu._driver.launches == before + 5
        check(make, backend, 64, 96, 9, ["depth_m"])  # other heads: another graph
        assert len(gpu._driver.graphs) == 2
    assert not gpu._driver.graphs


def test_without_graphs_it_answers_all_the_same(write_engine, make, monkeypatch):
    monkeypatch.setenv("STANDIN_NO_GRAPH", "1")
    with open_backend(write_engine()) as backend:
        for seed in range(3):
            check(make, backend, 64, 96, seed)
        assert "900" in backend.graph_problem


def test_a_capture_that_breaks_leaves_an_engine_without_graphs(
    write_engine, make, gpu, monkeypatch
):
    monkeypatch.setenv("STANDIN_NO_CAPTURE", "1")
    with open_backend(write_engine()) as backend:
        for seed in range(3):
            check(make, backend, 64, 96, seed)
        assert "previous error during capture" in backend.graph_problem
        assert not gpu._driver.graphs


def test_a_network_that_refuses_within_a_capture_leaves_no_graph(
    write_engine, make, gpu, monkeypatch
):
    import tensorrt

    run = tensorrt.IExecutionContext.execute_async_v3
    monkeypatch.setattr(
        tensorrt.IExecutionContext,
        "execute_async_v3",
        lambda self, handle: gpu._streams[handle]._capture is None and run(self, handle),
    )
    with open_backend(write_engine()) as backend:
        for seed in range(3):
            check(make, backend, 64, 96, seed)
        assert "expected the engine to run" in backend.graph_problem
        assert not gpu._driver.graphs


def test_nothing_is_allocated_per_frame_and_all_is_freed(write_engine, make, gpu):
    backend = open_backend(write_engine())
    backend.warm_up(64, 96)
    live, count = dict(gpu._live), next(gpu._allocations)
    for seed in range(20):
        check(make, backend, 64, 96, seed)
    assert gpu._live == live
    assert next(gpu._allocations) == count + 1
    backend.close()
    backend.close()
    assert not gpu._live
    assert not gpu._stacks.pycuda
    assert not gpu._stacks.driver
    assert gpu._primary.retained == 0
    with pytest.raises(InferenceError, match="closed"):
        backend.infer(golden_image(64, 96, 1))


def test_an_answer_that_is_held_is_never_written_to_again(write_engine, make):
    shapes = ShapeRange((64, 64), (64, 96), (128, 160))
    with open_backend(write_engine(shapes=shapes)) as backend:
        held = [backend.infer(golden_image(50, 70, seed)) for seed in range(8)]
        parts = [answer["depth_m"][3:9].T[::2] for answer in held[4:]]
        held = held[:4]  # the later ones are held by views of views alone
        for seed in range(8, 12):
            backend.infer(golden_image(50, 70, seed))
        for seed, answer in enumerate(held):
            again = backend.infer(golden_image(50, 70, seed))
            for head, value in answer.items():
                np.testing.assert_array_equal(value, again[head])
        for seed, part in enumerate(parts, start=4):
            again = backend.infer(golden_image(50, 70, seed))
            np.testing.assert_array_equal(part, again["depth_m"][3:9].T[::2])


def test_an_answer_that_is_not_held_gives_its_memory_to_the_next(write_engine):
    with open_backend(write_engine()) as backend:
        memory = weakref.ref(backend.infer(golden_image(64, 96, 1))["depth_m"].base)
        for seed in range(3):
            assert backend.infer(golden_image(64, 96, seed))["depth_m"].base is memory()


def test_sizes_within_a_range_and_beyond_it(write_engine, make):
    shapes = ShapeRange((64, 64), (64, 96), (128, 160))
    with open_backend(write_engine(shapes=shapes)) as backend:
        for height, width in ((64, 96), (128, 160), (64, 64), (64, 96)):
            check(make, backend, height, width, 5)
            check(make, backend, height, width, 6)
        assert backend.infer(golden_image(50, 70, 1))["depth_m"].shape == (50, 70)
        assert backend.takes(128, 160)
        assert not backend.takes(160, 160)
        with pytest.raises(ContractError, match=r"64x64 to 160x128, got 192x64"):
            backend.infer(golden_image(64, 192, 1))


def test_a_range_with_one_height_only(write_engine, make):
    """TensorRT then tells a fixed height, the contract an open one."""
    shapes = ShapeRange((64, 64), (64, 96), (64, 160))
    with open_backend(write_engine(shapes=shapes)) as backend:
        for width in (64, 160):
            check(make, backend, 64, width, 5)
        assert not backend.takes(96, 96)


def test_smaller_engines_answer_for_fewer_heads(write_engine, make, gpu):
    depth = write_engine("depth.engine", heads=["depth_m"])
    path = write_engine()
    with open_backend(path) as backend:
        assert "1 smaller" in backend.device
        backend.self_test()
        backend.warm_up(64, 96)
        assert backend._engines[0].heads == ("depth_m",)
        check(make, backend, 64, 96, 1, ["depth_m"])
        assert ("depth_m",) in backend._engines[0]._graphs
        check(make, backend, 64, 96, 1, ["sharp_rgb"])
        check(make, backend, 64, 96, 1)
    assert not gpu._live
    depth.write_bytes(depth.read_bytes()[:-1])  # a damaged one is passed over
    with open_backend(path) as backend:
        assert "smaller" not in backend.device
        check(make, backend, 64, 96, 1, ["depth_m"])


def test_a_smaller_engine_that_has_no_room_does_not_take_the_whole_one_along(
    write_engine, make, gpu, monkeypatch
):
    write_engine("depth.engine", heads=["depth_m"])
    path = write_engine()
    monkeypatch.setenv("STANDIN_MEMORY", "200000")  # the whole one takes 172032
    with open_backend(path) as backend:
        assert "smaller" not in backend.device
        check(make, backend, 64, 96, 1, ["depth_m"])
    assert not gpu._live
    monkeypatch.setenv("STANDIN_MEMORY", "100000")
    with pytest.raises(DeviceError, match="out of memory"):
        open_backend(path)
    assert not gpu._live


def test_a_smaller_engine_that_cannot_be_read_is_passed_over(write_engine, make, gpu, monkeypatch):
    import ddfd_ros.inference.tensorrt_backend as module

    write_engine("depth.engine", heads=["depth_m"])
    path, read = write_engine(), module.read_manifest

    def refuse(engine, **options):
        if engine != path:
            raise PermissionError(13, "Permission denied")
        return read(engine, **options)

    monkeypatch.setattr(module, "read_manifest", refuse)
    with open_backend(path) as backend:
        assert "smaller" not in backend.device
        check(make, backend, 64, 96, 1, ["depth_m"])


def test_a_failing_kernel_is_reported_and_freed(write_engine, make, gpu, tmp_path):
    backend = open_backend(write_engine())
    check(make, backend, 64, 96, 1)
    (tmp_path / "fail").write_text("an illegal memory access")
    with pytest.raises(DeviceError, match=r"expected the GPU to answer, got LogicError.*illegal"):
        backend.infer(golden_image(64, 96, 2))
    backend.close()
    assert not gpu._live
    (tmp_path / "fail").unlink()
    with open_backend(tmp_path / "tiny.engine") as again:
        check(make, again, 64, 96, 3)


def test_too_little_memory_says_so_and_leaves_nothing(write_engine, gpu, monkeypatch):
    path = write_engine()
    monkeypatch.setenv("STANDIN_MEMORY", "30000")
    with pytest.raises(DeviceError, match=r"out of memory; free GPU memory"):
        open_backend(path)
    assert not gpu._live
    assert gpu._primary.retained == 0


@pytest.mark.parametrize(
    ("what", "words"),
    [("engine", r"expected room .* Cuda Runtime \(out of memory\)"), ("context", "OutOfMemory")],
)
def test_no_room_in_tensorrt_is_the_devices_fault_not_the_engines(
    write_engine, make, gpu, monkeypatch, what, words
):
    path = write_engine()
    monkeypatch.setenv("STANDIN_NO_ROOM", what)
    with pytest.raises(DeviceError, match=words):
        open_backend(path)
    assert not gpu._live
    monkeypatch.delenv("STANDIN_NO_ROOM")
    with open_backend(path) as backend:
        check(make, backend, 64, 96, 1)


def test_what_fails_while_opening_is_freed_before_the_context(write_engine, gpu, monkeypatch):
    path = write_engine()
    monkeypatch.setenv("STANDIN_MEMORY", "30000")
    try:
        open_backend(path)
    except DeviceError as error:
        kept = error  # and with its traceback every frame that was left
    assert "out of memory" in str(kept)
    del kept
    gc.collect()
    assert not gpu._faults


def test_another_thread_is_refused(write_engine):
    caught = []

    def ask():
        try:
            backend.infer(golden_image(64, 96, 1))
        except InferenceError as error:
            caught.append(str(error))

    with open_backend(write_engine()) as backend:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert "belongs to one thread" in caught[0]


def test_another_thread_that_closes_is_refused_and_the_right_one_still_can(
    write_engine, make, gpu
):
    backend, caught = open_backend(write_engine()), []

    def end():
        try:
            backend.close()
        except InferenceError as error:
            caught.append(str(error))

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert "belongs to one thread" in caught[0]
    check(make, backend, 64, 96, 1)
    backend.close()
    assert not gpu._live
    assert gpu._primary.retained == 0


@pytest.mark.parametrize("last", ["", "del backend"], ids=["exit", "garbage"])
def test_a_backend_that_nobody_closes_does_not_abort_the_process(write_engine, gpu, last):
    code = (
        "import sys\n"
        "from ddfd_ros.core.metadata import golden_image\n"
        "from ddfd_ros.inference import open_backend\n"
        "backend = open_backend(sys.argv[1])\n"
        "backend.infer(golden_image(64, 96, 1))\n" + last
    )
    paths = [str(Path(gpu.__file__).parents[1]), str(Path(__file__).parents[2])]
    run = subprocess.run(
        [sys.executable, "-c", code, str(write_engine())],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


def test_a_frame_that_is_broken_off_is_waited_for_before_its_memory_goes(
    write_engine, gpu, monkeypatch
):
    def interrupt(target, source):
        raise KeyboardInterrupt

    with open_backend(write_engine()) as backend:
        monkeypatch.setattr(backend._session, "to_host", interrupt)
        with pytest.raises(KeyboardInterrupt):  # the network is enqueued by then
            backend.infer(golden_image(64, 96, 1))
    assert not gpu._live
    assert not gpu._faults


def test_two_engines_in_one_thread_and_reopening(write_engine, make, gpu):
    path = write_engine()
    for _ in range(3):
        with open_backend(path) as one, open_backend(path) as two:
            check(make, one, 64, 96, 1)
            check(make, two, 64, 96, 2)
    assert not gpu._live


def test_one_engine_goes_on_when_another_in_its_thread_ends(write_engine, make, gpu):
    shapes = ShapeRange((64, 64), (64, 96), (128, 160))
    one, two = open_backend(write_engine()), open_backend(write_engine("two.engine", shapes))
    check(make, one, 64, 96, 1)
    one.close()
    for height in (64, 128):
        check(make, two, height, 96, 2)
        check(make, two, height, 96, 3)
    assert two.free_memory_bytes()[0] > 0
    with open_backend(write_engine()) as three:
        two.close()
        check(make, three, 64, 96, 4)
    assert not gpu._live


def test_a_broken_context_is_given_back_with_the_last_engine(write_engine, make, gpu, tmp_path):
    path = write_engine()
    with open_backend(path) as one, open_backend(path) as two:
        (tmp_path / "fail").write_text("an illegal memory access")
        with pytest.raises(DeviceError, match="illegal"):
            one.infer(golden_image(64, 96, 1))
        (tmp_path / "fail").unlink()
        one.close()
        with pytest.raises(DeviceError, match="illegal"):  # the same context
            two.infer(golden_image(64, 96, 1))
    with open_backend(path) as again:
        check(make, again, 64, 96, 2)


def test_tensorrts_logger_outlives_the_engine_it_came_with(write_engine, make, gpu):
    """TensorRT goes on using the first logger it was given."""
    first, second = open_backend(write_engine()), open_backend(write_engine("two.engine"))
    first.close()
    del first
    gc.collect()
    broken = write_engine("broken.engine")
    broken.write_bytes(b"ftrt and nothing else")
    values = json.loads(manifest_path(broken).read_text())
    values |= {"engine_sha256": file_sha256(broken), "engine_bytes": broken.stat().st_size}
    manifest_path(broken).write_text(json.dumps(values))
    with pytest.raises(ModelLoadError, match="magicTag"):
        open_backend(broken)
    assert not gpu._faults
    second.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.write_bytes(b""), r"expected \d+ bytes, got 0"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), r"the engine is incomplete"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"!"), r"altered or belongs to another"),
        (lambda p: p.unlink(), r"expected a file at"),
        (lambda p: manifest_path(p).unlink(), r"expected the engine's manifest, got no file"),
    ],
    ids=["empty", "truncated", "altered", "missing", "no manifest"],
)
def test_damaged_engines_are_refused_before_tensorrt_sees_them(write_engine, gpu, damage, words):
    path = write_engine()
    damage(path)
    with pytest.raises(ModelLoadError, match=words):
        open_backend(path)
    assert not gpu._live


def test_malformed_manifests_are_refused(write_engine):
    path = write_engine()
    text = manifest_path(path).read_text()
    for broken in ("", "[]", "{}", text[:-20], text.replace('"shapes"', '"forms"'),
                   text.replace('"manifest_version": 1', '"manifest_version": 2'),
                   text.replace('"minimum"', '"least"')):  # fmt: skip
        manifest_path(path).write_text(broken)
        with pytest.raises(ContractError, match="manifest"):
            open_backend(path)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"gpu_name": "Older"}, "built for GPU Older, this is Stand-in"),
        ({"compute_capability": "7.2"}, "built for compute capability 7.2, this is 8.7"),
        ({"tensorrt_version": "8.6.1"}, r"built with TensorRT 8\.6\.1, this is 10\.13"),
        ({"memory_gb": 64}, "built for a GPU with 64 GB, this one has 8 GB"),
    ],
    ids=["GPU", "capability", "TensorRT", "board of the same GPU name"],
)
def test_foreign_engines_are_refused_by_their_manifest(write_engine, machine, words):
    path = write_engine(machine=dataclasses.replace(MACHINE, **machine))
    with pytest.raises(ModelLoadError, match=words):
        open_backend(path)


def test_another_driver_alone_is_no_reason(write_engine):
    assert not read_manifest(
        write_engine(machine=dataclasses.replace(MACHINE, driver="11.4"))
    ).mismatches(MACHINE, "1" * 64)


@pytest.mark.parametrize(
    ("built", "installed", "compatible", "fits"),
    [
        ("10.3.0", "10.13.0.35", True, True),
        ("10.3.0", "10.13.0.35", False, False),
        ("10.13.0", "10.3.0", True, False),
        ("8.6.1", "10.3.0", True, False),
    ],
)
def test_version_compatible_engines(write_engine, built, installed, compatible, fits):
    machine = dataclasses.replace(MACHINE, tensorrt_version=built)
    manifest = read_manifest(write_engine(machine=machine, version_compatible=compatible))
    here = dataclasses.replace(MACHINE, tensorrt_version=installed)
    assert bool(manifest.mismatches(here)) != fits


@pytest.mark.parametrize("compatible", [False, True])
def test_the_lean_runtime_takes_version_compatible_engines_only(write_engine, compatible):
    manifest = read_manifest(write_engine(version_compatible=compatible))
    said = manifest.mismatches(dataclasses.replace(MACHINE, can_build=False))
    assert ("the lean runtime needs" in "; ".join(said)) != compatible


def test_bytes_that_tensorrt_refuses(write_engine, gpu):
    path = write_engine()
    path.write_bytes(b"ftrt and nothing else")
    values = json.loads(manifest_path(path).read_text())
    values |= {"engine_sha256": file_sha256(path), "engine_bytes": path.stat().st_size}
    manifest_path(path).write_text(json.dumps(values))
    with pytest.raises(ModelLoadError, match=r"expected an engine it can load, got: .*magicTag"):
        open_backend(path)
    assert gpu._primary.retained == 0


def test_an_engine_whose_tensors_are_not_the_contracts(write_engine):
    path = write_engine()
    values = json.loads(manifest_path(path).read_text())
    values["contract"]["outputs"] = ["depth_m", "sharp_rgb"]
    manifest_path(path).write_text(json.dumps(values))
    with pytest.raises(ContractError, match="graph outputs: expected"):
        open_backend(path)


def test_wrong_depth_fails_the_self_test_with_the_figure(write_engine, monkeypatch):
    monkeypatch.setenv("STANDIN_WRONG", "1.02")
    with (
        open_backend(write_engine()) as backend,
        pytest.raises(ParityError, match=r"golden answers .* got depth_m off by \d"),
    ):
        backend.self_test()


def test_without_a_gpu_the_reason_is_told(write_engine, monkeypatch):
    path = write_engine()
    monkeypatch.setenv("STANDIN_GPU", "none")
    with pytest.raises(DeviceError, match=r"expected a usable GPU, got .*no CUDA-capable device"):
        open_backend(path)


def test_a_driver_older_than_tensorrt_is_named_as_the_reason(write_engine, gpu, monkeypatch):
    path = write_engine()
    monkeypatch.setenv("STANDIN_OLD_DRIVER", "1")
    with pytest.raises(DeviceError, match=r"error: 35\.; where nvidia-smi names an older CUDA"):
        open_backend(path)
    assert gpu._primary.retained == 0


def test_without_tensorrt_the_way_out_is_told(tmp_path):
    (tmp_path / "tiny.engine").write_bytes(b"engine")
    code = (
        "import sys; sys.modules['pycuda'] = None; sys.modules['tensorrt'] = None\n"
        "from ddfd_ros.core.errors import ModelLoadError\n"
        "from ddfd_ros.inference import open_backend\n"
        "try: open_backend(sys.argv[1])\n"
        "except ModelLoadError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "tiny.engine")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "runtime tensorrt: expected its Python package" in run.stdout
    assert "onnxruntime" in run.stdout
