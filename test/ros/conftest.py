"""The node in a process of its own, a peer to talk to it over DDS, and a tiny real model."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from onnx import TensorProto, helper, numpy_helper
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter as RclpyParameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract, golden_image, make_golden
from ddfd_ros.ros.domains import ReservedDomain

DISCOVERY_S = 40.0  # usually 0.3 s, up to 3 s; far more on an overloaded machine


def reference(rgb: np.ndarray) -> dict[str, np.ndarray]:
    """What the tiny model answers: depth from red, sigma from green, the picture inverted."""
    values = rgb.astype(np.float32)
    return {
        "depth_m": 0.5 + values[..., 0] / 32,
        "sigma_m": values[..., 1] / 256,
        "sharp_rgb": 255 - rgb,
    }


def reference_defocus(rgb: np.ndarray) -> np.ndarray:
    """The tiny model's defocus, where it has that head: blur in pixels from blue."""
    return rgb[..., 2].astype(np.float32) / 8 - 16


def _graph(slow: bool, heads: tuple[str, ...]) -> onnx.ModelProto:
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        node("Split", ["float"], ["red", "green", "blue"], axis=2, num_outputs=3),
        node("Squeeze", ["red", "axis2"], ["red2"]),
        node("Div", ["red2", "n32"], ["near"]),
        node("Add", ["near", "half"], ["fast" if slow else "depth_m"]),
        node("Squeeze", ["green", "axis2"], ["green2"]),
        node("Div", ["green2", "n256"], ["sigma_m"]),
        node("Squeeze", ["blue", "axis2"], ["blue2"]),
        node("Div", ["blue2", "n8"], ["blur"]),
        node("Sub", ["blur", "n16"], ["defocus_px"]),
        node("Sub", ["n255", "float"], ["inverted"]),
        node("Cast", ["inverted"], ["sharp_rgb"], to=TensorProto.UINT8),
    ]
    numbers = {"n32": 32, "half": 0.5, "n256": 256, "n255": 255, "n8": 8, "n16": 16}
    constants = {name: np.array(value, np.float32) for name, value in numbers.items()}
    constants["axis2"] = np.array([2])
    if slow:  # a convolution that is heavy and adds nothing
        constants["axis01"] = np.array([0, 1])
        constants["weights"] = np.zeros((32, 1, 15, 15), np.float32)
        nodes += [
            node("Unsqueeze", ["red2", "axis01"], ["planes"]),
            node("Conv", ["planes", "weights"], ["filtered"], pads=[7] * 4),
            node("ReduceMean", ["filtered", "axis1"], ["mean"], keepdims=0),
            node("Squeeze", ["mean", "axis0"], ["zero"]),
            node("Add", ["fast", "zero"], ["depth_m"]),
        ]
        constants |= {"axis0": np.array([0]), "axis1": np.array([1])}
    plane = (TensorProto.FLOAT, ["height", "width"])
    outputs = {
        "depth_m": info("depth_m", *plane),
        "sigma_m": info("sigma_m", *plane),
        "sharp_rgb": info("sharp_rgb", TensorProto.UINT8, ["height", "width", 3]),
        "defocus_px": info("defocus_px", *plane),
    }
    return helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [info("image", TensorProto.UINT8, ["height", "width", 3])],
            [outputs[head] for head in heads],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )


def write_model(
    path: Path,
    slow: bool = False,
    heads: tuple[str, ...] = ("depth_m", "sigma_m", "sharp_rgb"),
    **changes: object,
) -> Path:
    """Write the tiny model with its contract; ``changes`` replace fields of the contract."""
    values = {
        "format_version": 1,
        "network": "tiny",
        "network_options": {},
        "parameter_count": 4,
        "input_height": None,
        "input_width": None,
        "size_multiple": 32,
        "outputs": heads,
        "depth_min_m": 0.5,
        "depth_max_m": 10.0,
        "lens": None,
        "training": {},
        "metrics": {},
        "weights_sha256": "ab" * 32,
        "golden": make_golden(reference(golden_image(64, 96, 1)), 64, 96),
    }
    model = _graph(slow, heads)
    contract = ModelContract(**(values | changes)).to_json()
    helper.set_model_props(model, {CONTRACT_KEY: contract})
    path.write_bytes(model.SerializeToString())
    return path


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A random uint8 image ``[height, width, 3]``."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def image_message(rgb: np.ndarray, frame_id: str = "camera_optical") -> Image:
    """An rgb8 message, stamped when sent."""
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8")
    message.step = rgb.shape[1] * 3
    message.header.frame_id = frame_id
    message.data = array.array("B", rgb.tobytes())
    return message


class Peer:
    """A rclpy node in this process: the camera, the consumers, and an operator's requests."""

    OUTPUTS = {
        "depth": ("depth/image_rect", Image),
        "depth_info": ("depth/camera_info", CameraInfo),
        "sharp": ("all_in_focus/image", Image),
        "sharp_info": ("all_in_focus/camera_info", CameraInfo),
        "sigma": ("uncertainty/image", Image),
        "sigma_info": ("uncertainty/camera_info", CameraInfo),
        "latency": ("latency", DiagnosticArray),
    }
    FURTHER = {
        "defocus": ("defocus/image", Image),
        "defocus_info": ("defocus/camera_info", CameraInfo),
        "color": ("depth/color", Image),
        "points": ("points", PointCloud2),
        "file": ("all_in_focus/image/compressed", CompressedImage),
        "depth_file": ("depth/image_rect/compressedDepth", CompressedImage),
    }

    def __init__(self, domain_id: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        reliable = QoSProfile(depth=10)
        self.camera = self.node.create_publisher(Image, "image_raw", reliable)
        self.compressed = self.node.create_publisher(
            CompressedImage, "image_raw/compressed", reliable
        )
        self.info = self.node.create_publisher(CameraInfo, "camera_info", reliable)
        self.received: dict[str, list] = {}
        self.diagnostics: list[dict[str, str]] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._sensor = sensor
        self._subscriptions: dict[str, object] = {}
        self._clients: dict[str, object] = {}

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        values = {item.key: item.value for item in status.values}
        self.diagnostics.append(
            values | {"level": str(ord(status.level)), "message": status.message}
        )

    def spin_until(self, condition: Callable[[], bool], timeout_s: float = DISCOVERY_S) -> bool:
        """Spin until the condition holds; whether it did in time."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            self.executor.spin_once(timeout_sec=0.02)
        return True

    def spin_for(self, duration_s: float) -> None:
        self.spin_until(lambda: False, duration_s)

    def listen(self, *names: str) -> None:
        """Subscribe to outputs by their short names and wait until the node knows."""
        for name in names:
            topic, kind = (self.OUTPUTS | self.FURTHER)[name]
            kept = self.received.setdefault(name, [])
            self._subscriptions[name] = self.node.create_subscription(
                kind, topic, kept.append, QoSProfile(depth=10)
            )
            found = self.spin_until(lambda topic=topic: self.node.count_publishers(topic) > 0)
            assert found, f"nobody publishes {topic}"
        self.spin_for(0.3)  # the publisher learns of the subscription a little later

    def leave(self, *names: str) -> None:
        for name in names:
            self.node.destroy_subscription(self._subscriptions.pop(name))
        self.spin_for(0.3)

    def wait_for_camera(self) -> None:
        """Wait until the node listens to the camera, that is, until it is active."""
        self.wait_for_match(self.camera)

    def wait_for_match(self, publisher: Publisher) -> None:
        """Wait until what ``publisher`` sends arrives.

        The two ends find each other one after the other, and this one can only be asked for its
        own view; what a best-effort publisher sends before the other end agrees is lost.
        """
        assert self.spin_until(lambda: publisher.get_subscription_count() > 0), "not active"
        self.spin_for(0.5)

    def send(self, message: Image, age_s: float = 0.0, publisher: object = None) -> int:
        """Publish an image stamped now (minus an age); the stamp in nanoseconds."""
        stamp_ns = self.node.get_clock().now().nanoseconds - int(age_s * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        (publisher or self.camera).publish(message)
        return stamp_ns

    def answer(self, name: str, stamp_ns: int, timeout_s: float = 20.0) -> object:
        """The output with this stamp, or None when it does not come."""

        def find() -> object:
            for message in reversed(self.received[name]):
                stamp = message.header.stamp
                if stamp.sec * 10**9 + stamp.nanosec == stamp_ns:
                    return message
            return None

        self.spin_until(lambda: find() is not None, timeout_s)
        return find()

    def report(self, timeout_s: float = 30.0, **wanted: str) -> dict[str, str]:
        """The next diagnostics in which the values are as wanted (a callable: holds for)."""
        start = len(self.diagnostics)

        def fits(values: dict[str, str]) -> bool:
            return all(
                check(values.get(key, "")) if callable(check) else values.get(key) == check
                for key, check in wanted.items()
            )

        ok = self.spin_until(lambda: any(map(fits, self.diagnostics[start:])), timeout_s)
        last = self.diagnostics[-1] if self.diagnostics else {}
        assert ok, f"expected {wanted}, got {last}"
        return next(values for values in self.diagnostics[start:] if fits(values))

    def request(self, kind: object, name: str, request: object, timeout_s: float = 40.0) -> object:
        new = name not in self._clients
        if new:
            self._clients[name] = self.node.create_client(kind, f"/ddfd/{name}")
        client = self._clients[name]
        assert self.spin_until(client.service_is_ready), f"no service {name}"
        if new:  # the service learns of the client a little later; what it answers before is lost
            self.spin_for(0.4)
        future = client.call_async(request)
        assert self.spin_until(future.done, timeout_s), f"{name} was not answered"
        return future.result()

    def transition(self, name: str) -> bool:
        """Request a transition by the name of its constant; whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name.upper()}")
        return self.request(ChangeState, "change_state", request).success

    def state(self) -> str:
        return self.request(GetState, "get_state", GetState.Request()).current_state.label

    def set(self, **values: object) -> list[str]:
        """Set parameters one by one; the reasons of the refusals ('' where accepted)."""
        request = SetParameters.Request()
        for name, value in values.items():
            parameter: ParameterValue = RclpyParameter(name, value=value).get_parameter_value()
            request.parameters.append(Parameter(name=name, value=parameter))
        results = self.request(SetParameters, "set_parameters", request).results
        return ["" if item.successful else item.reason or "refused" for item in results]


_LEFT: set[Path] = set()


def kill(process: subprocess.Popen) -> None:
    """End a process with SIGKILL and remove the shared memory that it leaves behind."""
    if process.poll() is None:
        maps = Path(f"/proc/{process.pid}/maps").read_text().split()
        _LEFT.update(Path(word) for word in maps if word.startswith("/dev/shm/fastrtps_"))
        process.kill()
        process.wait()
    sweep()


def sweep() -> None:
    """Remove what killed processes left, as far as nobody else reads it any more."""
    for segment in sorted(_LEFT):
        lock = segment.with_name(segment.name + "_el")
        with contextlib.suppress(OSError):  # another process's, or removed already
            if segment.exists():
                with lock.open() as file:  # its owner and its readers hold this lock
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    segment.unlink(missing_ok=True)
                    lock.unlink()
            _LEFT.discard(segment)


@pytest.fixture(scope="session", autouse=True)
def shared_memory():
    """Gives back at the end what could not be given back before."""
    yield
    sweep()


class NodeProcess:
    """``ddfd_node`` in a process of its own."""

    def __init__(self, domain_id: int, log_path: Path, **parameters: object) -> None:
        self.log_path = log_path
        command = [sys.executable, "-m", "ddfd_ros.ros.main", "--ros-args"]
        values = {
            "runtime": "onnxruntime",
            "warm_up_height": 64,
            "warm_up_width": 96,
            "threads": 1,
            "diagnostics_period_s": 0.2,
        }
        for name, value in (values | parameters).items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name.replace('__', '.')}:={text}"]
        root = Path(__file__).resolve().parents[2]
        environ = os.environ | {
            "ROS_DOMAIN_ID": str(domain_id),
            "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
            "PYTHONUNBUFFERED": "1",
        }
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, number: int = signal.SIGINT, timeout_s: float = 30.0) -> tuple[int, float]:
        """Send a signal; the exit status and the seconds it took."""
        start = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(timeout_s), time.monotonic() - start

    def kill(self) -> None:
        kill(self.process)


class Stage:
    """One domain with one peer, in which nodes are started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._domain = ReservedDomain()
        self.domain_id = self._domain.id
        self.peer = Peer(self.domain_id)
        self.nodes: list[NodeProcess] = []

    def start(self, **parameters: object) -> NodeProcess:
        """Start a node; the tiny model unless ``model_path`` says otherwise."""
        if "model_path" not in parameters:
            parameters["model_path"] = write_model(self.folder / "tiny.onnx")
        log_path = self.folder / f"node{len(self.nodes)}.log"
        self.nodes.append(NodeProcess(self.domain_id, log_path, **parameters))
        return self.nodes[-1]

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
            print(f"--- {node.log_path.name}\n{node.log}")
        self.peer.close()
        sweep()
        self._domain.close()


@contextlib.contextmanager
def make_stage(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder)
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
def stage(tmp_path):
    with make_stage(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory):
    """One node for a whole module, active, every output listened to."""
    with make_stage(tmp_path_factory.mktemp("node")) as made:
        made.start()
        made.peer.wait_for_camera()
        made.peer.listen(*Peer.OUTPUTS)
        yield made


@pytest.fixture(scope="session")
def make():
    """The opener of stages, for test modules that need a node of their own."""
    return make_stage


@pytest.fixture(scope="session")
def tools():
    """The helpers above, for test modules (pytest's importlib mode shares no modules)."""

    class Tools:
        pass

    Tools.kill = staticmethod(kill)
    Tools.reference = staticmethod(reference)
    Tools.reference_defocus = staticmethod(reference_defocus)
    Tools.write_model = staticmethod(write_model)
    Tools.golden_image = staticmethod(golden_image)
    Tools.make_golden = staticmethod(make_golden)
    Tools.picture = staticmethod(picture)
    Tools.image_message = staticmethod(image_message)
    return Tools
