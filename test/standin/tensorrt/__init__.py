"""Stands in for TensorRT on machines without a GPU: plans hold ONNX, ONNX Runtime computes them.

Only names of the real packages are public here, with the real signatures; ``test_bindings.py``
compares them with the wheels of TensorRT 8.6, 10 and 11. What a version lacks is taken away below.
A plan names the version and the GPU it was built for and is refused elsewhere, as a real one is;
the lean runtime takes version-compatible ones only. Two builds never give the same bytes.

``STANDIN_TENSORRT``: version (default 10.13.0). ``STANDIN_LEAN``: no builder.
``STANDIN_STEPS``: steps of a build; ``STANDIN_STEP_S``: seconds each takes.
``STANDIN_OPEN_S``: seconds an engine takes to be loaded.
``STANDIN_NO_ROOM``: ``engine`` or ``context``: there is too little memory for it.
``STANDIN_OLD_DRIVER``: the driver is older than this TensorRT's CUDA.
``STANDIN_WRONG``: a factor on everything that a *built* engine computes: a broken TensorRT.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import time
import weakref

import numpy as np
import onnx
import onnxruntime

__version__ = os.environ.get("STANDIN_TENSORRT", "10.13.0.35")
_NUMBER = tuple(int(part) for part in __version__.split(".")[:2])
_MAGIC = b"stand-in plan\n"


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class NetworkDefinitionCreationFlag(enum.IntEnum):
    if _NUMBER < (11, 0):
        EXPLICIT_BATCH = 0
    if _NUMBER >= (10, 0):
        STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7
    if _NUMBER < (11, 0):
        FP16 = 0
        INT8 = 1
    if _NUMBER >= (8, 6):
        VERSION_COMPATIBLE = 13


class TacticSource(enum.IntEnum):
    EDGE_MASK_CONVOLUTIONS = 3
    JIT_CONVOLUTIONS = 4


_KINDS = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.UINT8: DataType.UINT8,
}
_DTYPES = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.UINT8: np.uint8}


class ILogger:
    class Severity(enum.IntEnum):  # noqa: D106
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        pass

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


_users: weakref.WeakSet = weakref.WeakSet()
_first_logger = None


def _register(user: object, logger: ILogger) -> None:
    """Keep the first logger of those in use as the global one, and only a pointer to it."""
    global _first_logger
    if os.environ.get("STANDIN_OLD_DRIVER"):  # a null pointer, which pybind11 tells thus
        logger.log(ILogger.Severity.WARNING, "CUDA initialization failure with error: 35.")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    if not _users:
        _first_logger = weakref.ref(logger)
    _users.add(user)


def _complain(logger: ILogger, message: str) -> None:
    if _first_logger() is None:
        from pycuda import driver

        driver._fault("TensorRT called its global logger, which had been freed")
    logger.log(ILogger.Severity.ERROR, message)


class IHostMemory:
    def __init__(self, secret: bytes) -> None:
        self._data = secret

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._data)

    def __bytes__(self) -> bytes:
        return self._data


class IOptimizationProfile:
    def set_shape(self, input: str, min: tuple, opt: tuple, max: tuple) -> None:  # noqa: A002
        self._shapes = {input: (tuple(min), tuple(opt), tuple(max))}


class ITimingCache:
    def __init__(self, secret: bytes) -> None:
        self._data = bytes(secret)

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data + b"timing;")


class IBuilderConfig:
    if _NUMBER >= (8, 6):
        builder_optimization_level = 3
    if _NUMBER >= (10, 0):
        progress_monitor = None
    if _NUMBER < (11, 0):
        int8_calibrator = None

    def __init__(self) -> None:
        self._flags = {BuilderFlag.TF32}
        self._profiles, self._cache, self._pool, self._sources = [], None, {}, None

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(BuilderFlag(flag))

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(BuilderFlag(flag))

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pool[MemoryPoolType(pool)] = int(pool_size)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if serialized_timing_cache and not serialized_timing_cache.startswith(b"timing;"):
            return None  # of another version
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, ITimingCache):
            raise TypeError("set_timing_cache(): incompatible function arguments")
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self._cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._sources = int(tactic_sources)
        return True

    if _NUMBER < (11, 0):

        def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
            self._calibration_profile = profile
            # Smallest and largest are overwritten by the best, NvInfer.h says.
            profile._shapes = {name: (s[1],) * 3 for name, s in profile._shapes.items()}
            return True


class ITensor:
    name = ""
    dtype = None

    def __init__(self, secret: onnx.ValueInfoProto) -> None:
        self.name = secret.name
        self._kind = secret.type.tensor_type
        self.dtype = _KINDS[self._kind.elem_type]

    @property
    def shape(self) -> tuple:
        return tuple(side.dim_value or -1 for side in self._kind.shape.dim)

    @shape.setter
    def shape(self, shape: tuple) -> None:
        for side, value in zip(self._kind.shape.dim, shape, strict=True):
            side.dim_value = value


class INetworkDefinition:
    def __init__(self, secret: int) -> None:
        self._flags, self._model = secret, None

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._model.graph.output)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._model.graph.input[index])

    def get_output(self, index: int) -> ITensor:
        return ITensor(self._model.graph.output[index])


class ParserError:
    def __init__(self, secret: str) -> None:
        self._text = secret

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            parsed = onnx.load_model_from_string(bytes(model))
            onnx.checker.check_model(parsed, full_check=True)
        except Exception as error:
            self._errors.append(ParserError(f"{type(error).__name__}: {error}"))
            return False
        self._network._model = parsed
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


if _NUMBER >= (10, 0):

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError


if _NUMBER < (11, 0):

    class IInt8EntropyCalibrator2:
        def __init__(self) -> None:
            pass

        def get_batch_size(self) -> int:
            raise NotImplementedError

        def get_batch(self, names: list) -> list | None:
            raise NotImplementedError

        def read_calibration_cache(self) -> bytes | None:
            raise NotImplementedError

        def write_calibration_cache(self, cache: bytes) -> None:
            raise NotImplementedError


def _gpu() -> str:
    return os.environ.get("STANDIN_GPU", "Stand-in;8.7")


class Builder:
    def __init__(self, logger: ILogger) -> None:
        _register(self, logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        if _NUMBER < (10, 0) and not flags & 1 << NetworkDefinitionCreationFlag.EXPLICIT_BATCH:
            raise TypeError("stand-in: implicit batch networks are not parsed from ONNX")
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        if not self._calibrate(network, config) or not self._spend_time(config):
            return None
        shapes = self._shapes(network, config)
        if shapes is None:
            _complain(self._logger, "network has dynamic inputs, but no optimization profile")
            return None
        head = {
            "version": __version__,
            "gpu": _gpu(),
            "nonce": os.urandom(8).hex(),
            "compatible": "VERSION_COMPATIBLE" in {flag.name for flag in config._flags},
            "flags": sorted(flag.name for flag in config._flags),
            "workspace": config._pool.get(MemoryPoolType.WORKSPACE, 0),
            "input": network.get_input(0).name,
            "shapes": shapes,
            "wrong": float(os.environ.get("STANDIN_WRONG", "1")),
        }
        text = json.dumps(head).encode() + b"\n"
        return IHostMemory(_MAGIC + text + network._model.SerializeToString())

    def _shapes(self, network: INetworkDefinition, config: IBuilderConfig) -> tuple | None:
        """Smallest, best and largest shape of the image."""
        image = network.get_input(0)
        if -1 not in image.shape:
            return (image.shape,) * 3
        return config._profiles[0]._shapes[image.name] if config._profiles else None

    def _spend_time(self, config: IBuilderConfig) -> bool:
        steps = int(os.environ.get("STANDIN_STEPS", "4"))
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building Engine", None, steps)
        for step in range(steps):
            time.sleep(float(os.environ.get("STANDIN_STEP_S", "0")))
            if monitor is not None and not monitor.step_complete("Building Engine", step):
                monitor.phase_finish("Building Engine")
                return False
        if monitor is not None:
            monitor.phase_finish("Building Engine")
        return True

    def _calibrate(self, network: INetworkDefinition, config: IBuilderConfig) -> bool:
        """Ask the calibrator as TensorRT does: the cache first, batches only without one."""
        if _NUMBER >= (11, 0) or BuilderFlag.INT8 not in config._flags:
            return True
        calibrator = config.int8_calibrator
        if calibrator is None:
            if any(node.op_type == "QuantizeLinear" for node in network._model.graph.node):
                return True
            _complain(self._logger, "Calibrator is not being used, no dynamic range")
            return True
        if calibrator.read_calibration_cache() is not None:
            return True
        shape = self._shapes(network, config)[1]
        total, count = 0.0, 0
        names = [network.get_input(index).name for index in range(network.num_inputs)]
        while (pointers := calibrator.get_batch(names)) is not None:
            size = int(np.prod(shape))
            values = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(pointers[0]))
            total, count = total + float(values.mean()), count + 1
        if not count:
            _complain(self._logger, "Calibration failure, no scaling factors")
            return False
        calibrator.write_calibration_cache(f"mean {total / count:.3f} of {count}".encode())
        return True


class _OnDevice:
    """What owns memory of the GPU, and must go before the CUDA context does."""

    def __init__(self) -> None:
        from pycuda import driver

        self._driver = driver

    def __del__(self) -> None:
        driver = self._driver
        if driver._stacks is None:  # the interpreter ends
            return
        if not (driver._stacks.driver and driver._primary.retained):
            driver._fault(f"{type(self).__name__} was destroyed after its CUDA context")
        driver._check_idle(type(self).__name__)


class IExecutionContext(_OnDevice):
    def __init__(self, secret: ICudaEngine) -> None:
        super().__init__()
        self._engine, self._addresses, self._shape = secret, {}, None

    def set_input_shape(self, name: str, shape: tuple) -> bool:
        low, _, high = self._engine._head["shapes"]
        sides = zip(low, shape, high, strict=True)
        if name != self._engine._head["input"] or not all(a <= b <= c for a, b, c in sides):
            _complain(self._engine._logger, f"set_input_shape: {shape} is not in [{low}, {high}]")
            return False
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple:
        return self._shape if name == self._engine._head["input"] else self._shape[:2]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if int(memory) % 256:
            _complain(self._engine._logger, f"set_tensor_address: {name} is not aligned")
            return False
        self._addresses[name] = int(memory)
        return name in self._engine._tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        from pycuda import driver

        if self._shape is None or set(self._addresses) != set(self._engine._tensors):
            _complain(self._engine._logger, "execute_async_v3: a shape or an address is missing")
            return False
        shape, addresses = self._shape, dict(self._addresses)
        stream = driver._streams[stream_handle]
        if stream._capture is not None and os.environ.get("STANDIN_NO_CAPTURE"):
            stream._capture_broken = True  # and TensorRT need not notice
        else:
            stream._enqueue(lambda: self._compute(shape, addresses, driver))
        return True

    def _compute(self, shape: tuple, addresses: dict, driver: object) -> None:
        driver._kernel_check()
        engine = self._engine
        size = int(np.prod(shape))
        assert driver._live[addresses[engine._head["input"]]]._size >= size
        source = (ctypes.c_ubyte * size).from_address(addresses[engine._head["input"]])
        image = np.ctypeslib.as_array(source).reshape(shape)
        names = [item.name for item in engine._session.get_outputs()]
        feed = {engine._head["input"]: image.copy()}
        for item in engine._session.get_inputs():
            if item.name not in feed:
                values = (ctypes.c_float * item.shape[0]).from_address(addresses[item.name])
                feed[item.name] = np.ctypeslib.as_array(values).copy()
        answers = engine._session.run(names, feed)
        for name, value in zip(names, answers, strict=True):
            answer = np.ascontiguousarray((value * engine._head["wrong"]).astype(value.dtype))
            assert driver._live[addresses[name]]._size >= answer.nbytes
            ctypes.memmove(addresses[name], answer.ctypes.data, answer.nbytes)


class ICudaEngine(_OnDevice):
    def __init__(self, secret: tuple) -> None:
        super().__init__()
        self._head, self._model, self._runtime = secret  # keeps the runtime, as the bindings do
        self._logger = self._runtime._logger
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self._model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        graph = self._model.graph
        self._tensors = {item.name: ITensor(item) for item in [*graph.input, *graph.output]}
        self._names = list(self._tensors)
        # NvInferRuntime.h: -1 for sides that vary within the profile, whatever the network says.
        low, _, high = self._head["shapes"]
        sides = [a if a == b else 0 for a, b in zip(low, high, strict=True)]
        for tensor in self._tensors.values():
            if -1 in tensor.shape:
                tensor.shape = sides[: len(tensor.shape)]

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        inputs = {item.name for item in self._model.graph.input}
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple:
        return self._tensors[name].shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name].dtype

    if _NUMBER >= (10, 1):

        @property
        def device_memory_size_v2(self) -> int:
            return 1 << 20

    else:

        @property
        def device_memory_size(self) -> int:
            return 1 << 20

    def create_execution_context(self) -> IExecutionContext | None:
        if os.environ.get("STANDIN_NO_ROOM") == "context":
            _complain(self._logger, "Error Code 2: OutOfMemory (Requested size was 9 bytes.)")
            return None
        return IExecutionContext(self)


class Runtime:
    if _NUMBER >= (8, 6):
        engine_host_code_allowed = False

    def __init__(self, logger: ILogger) -> None:
        _register(self, logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        time.sleep(float(os.environ.get("STANDIN_OPEN_S", "0")))
        data = bytes(serialized_engine)
        if not data.startswith(_MAGIC):
            _complain(self._logger, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        text, _, graph = data[len(_MAGIC) :].partition(b"\n")
        head = json.loads(text)
        if os.environ.get("STANDIN_NO_ROOM") == "engine":
            _complain(self._logger, "Error Code 1: Cuda Runtime (out of memory)")
            return None
        lean = bool(os.environ.get("STANDIN_LEAN"))
        foreign = (lean or head["version"] != __version__) and not head["compatible"]
        blocked = head["compatible"] and not getattr(self, "engine_host_code_allowed", False)
        if foreign or blocked or head["gpu"] != _gpu():
            _complain(self._logger, "The engine plan file is not compatible with this TensorRT")
            return None
        return ICudaEngine((head, onnx.load_model_from_string(graph), self))


if os.environ.get("STANDIN_LEAN"):
    del Builder, OnnxParser, BuilderFlag, NetworkDefinitionCreationFlag
