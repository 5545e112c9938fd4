"""The engines that peers.py measures, each in processes of its own.

What is handed out is the same for all: `first()` are its outputs and its memory, `turn(seconds)` are the figures of one
turn: the model is loaded anew and run for that time.
"""

import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import numpy as np

RUST = Path(__file__).resolve().parent / "rust"
FEWEST_RUNS = 5  # as in rust/src/lib.rs
KEYS = ["median_ms", "p99_ms", "runs", "compile_ms", "peak_rss_mb"]  # of `rabot bench --json`, and of rust/


class EngineError(Exception):
    """An engine could not load or run a model."""


def load(path):
    """The arrays of an npz file."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def peak_rss_mb():
    """The largest resident memory of this process so far (getrusage would count the parent's too)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise EngineError("/proc/self/status has no VmHWM")


# Libraries. They are imported where they are used: a process has only the one in memory that it measures. Inputs are
# bound once and outputs stay where the engine leaves them, so that little but the engine's own work is measured.


@functools.cache
def library(name):
    """A Python package."""
    return importlib.import_module(name)


class OnnxRuntime:
    """A session of ONNX Runtime with one thread."""

    package = "onnxruntime"

    @staticmethod
    def prepare():
        """What is done once in a process, and not counted."""
        library("onnxruntime")

    def __init__(self, model):
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()

    def bind(self, feeds):
        """Set the inputs."""
        for name, array in feeds.items():
            self.binding.bind_cpu_input(name, array)
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name)

    def run(self):
        """Run once."""
        self.session.run_with_iobinding(self.binding)

    def outputs(self):
        """The last run's, by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.binding.copy_outputs_to_cpu()))


class OpenVino:
    """A model that OpenVINO compiled for one thread and one request at a time, in float32 throughout."""

    package = "openvino"
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # the process is pinned already, perhaps to another CPU than it would choose
    }

    @staticmethod
    @functools.cache
    def prepare():
        """What is done once in a process, and not counted."""
        return library("openvino").Core()

    def __init__(self, model):
        self.compiled = self.prepare().compile_model(model, "CPU", self.config)
        self.request = self.compiled.create_infer_request()

    def bind(self, feeds):
        """Set the inputs."""
        for name, array in feeds.items():
            self.request.set_tensor(name, library("openvino").Tensor(array, shared_memory=True))

    def run(self):
        """Run once."""
        self.request.infer(share_outputs=True)

    def outputs(self):
        """The last run's, by each of their names."""
        arrays = [(port, self.request.get_tensor(port).data.copy()) for port in self.compiled.outputs]
        return {name: array for port, array in arrays for name in port.names}


LIBRARIES = {"ORT": OnnxRuntime, "OpenVINO": OpenVino}


def explained(function):
    """Let a function's errors be ours: every library raises its own, not all of which pass between processes."""

    @functools.wraps(function)
    def wrapped(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise EngineError(f"{type(error).__name__}: {' '.join(lines[-4:])}") from None

    return wrapped


@explained
def library_first(peer, model, inputs):
    """Outputs, and memory before loading and after one run, in a process that has done nothing else."""
    LIBRARIES[peer].prepare()
    empty, feeds = peak_rss_mb(), load(inputs)
    engine = LIBRARIES[peer](model)
    engine.bind(feeds)
    engine.run()
    peak = peak_rss_mb()
    return engine.outputs(), {"peak_rss_mb": peak, "empty_rss_mb": empty}


@explained
def library_turn(peer, model, inputs, seconds):
    """Milliseconds of loading, and median and 99th percentile of a run."""
    feeds, start = load(inputs), time.perf_counter()
    engine = LIBRARIES[peer](model)
    loaded = time.perf_counter() - start
    engine.bind(feeds)
    engine.run()
    times, start = [], time.perf_counter()
    while len(times) < FEWEST_RUNS or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        engine.run()
        times.append(time.perf_counter() - before)
    return {
        "compile_ms": loaded * 1000,
        "median_ms": statistics.median(times) * 1000,
        "p99_ms": float(np.percentile(times, 99)) * 1000,
        "runs": len(times),
    }


# Engines


class Library:
    """A model in a Python package, in a process of its own."""

    def __init__(self, peer, model, inputs):
        self.call = peer, model, inputs
        self.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def submit(self, function, *arguments):
        """Call a function in the process."""
        try:
            return self.pool.submit(function, *self.call, *arguments).result()
        except BrokenProcessPool:
            raise EngineError("its process died") from None

    def first(self):
        """Outputs and memory."""
        return self.submit(library_first)

    def turn(self, seconds):
        """Figures of one turn."""
        return self.submit(library_turn, seconds)

    def close(self):
        """End the process."""
        self.pool.shutdown()


def printed(command):
    """What a command prints."""
    environment = os.environ | {"RTEN_NUM_THREADS": "1"}
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    if result.returncode:
        tail = " ".join(result.stderr.strip().splitlines()[-4:])
        raise EngineError(f"exit code {result.returncode}: {tail}")
    return result.stdout


def write_tensors(folder, arrays):
    """Write inputs as rust/src/lib.rs reads them."""
    lines = []
    for number, (name, array) in enumerate(arrays.items()):
        lines.append(f"{array.dtype} {','.join(map(str, array.shape)) or '-'} {name}\n")
        Path(folder, f"inputs-{number}").write_bytes(array.tobytes())
    Path(folder, "inputs.txt").write_text("".join(lines))


def read_tensors(folder):
    """Outputs as rust/src/lib.rs writes them."""
    arrays = {}
    for number, line in enumerate(Path(folder, "outputs.txt").read_text().splitlines()):
        dtype, dims, name = line.split(" ", 2)
        shape = [] if dims == "-" else list(map(int, dims.split(",")))
        arrays[name] = np.fromfile(Path(folder, f"outputs-{number}"), dtype).reshape(shape)
    return arrays


class Binary:
    """A model in a Rust library, which a command of rust/ loads anew in every turn."""

    def __init__(self, peer, model, inputs):
        self.folder = tempfile.TemporaryDirectory(prefix="rabot-")
        self.command = [binary(peer), model, self.folder.name]
        write_tensors(self.folder.name, load(inputs))

    def first(self):
        """Outputs; memory is among the figures of every turn."""
        self.turn(0)
        return read_tensors(self.folder.name), {}

    def turn(self, seconds):
        """Figures of one turn."""
        return json.loads(printed([*self.command, seconds]))

    def close(self):
        """Remove inputs and outputs."""
        self.folder.cleanup()


class Rabot:
    """A model that the command line compiles and runs."""

    def __init__(self, binary, model, inputs, options):
        self.binary, self.model = binary, model
        self.options = ["--inputs", inputs, "--threads", 1, *options]

    def command(self, name, *options):
        """What a command prints."""
        return printed([self.binary, name, self.model, *self.options, *options])

    def first(self):
        """Outputs; memory is among the figures of every turn."""
        with tempfile.TemporaryDirectory(prefix="rabot-") as folder:
            path = Path(folder, "outputs.npz")
            self.command("run", "--outputs", path)
            return load(path), {}

    def turn(self, seconds):
        """Figures of one turn."""
        figures = json.loads(self.command("bench", "--seconds", seconds, "--json"))
        return {key: figures[key] for key in KEYS}

    def close(self):
        """No process of it is left."""


CRATES = {"RTen": "rten", "tract": "tract-onnx"}
PEERS = dict.fromkeys(LIBRARIES, Library) | dict.fromkeys(CRATES, Binary)


def binary(peer):
    """The command of rust/ for a peer, which bench/peers puts beside Python."""
    return Path(sys.executable).parent / f"rabot-bench-{peer.lower()}"


def version(peer):
    """Name and version of a peer, without loading it."""
    if peer in CRATES:
        if not binary(peer).exists():
            raise EngineError(f"{binary(peer)} does not exist: start this with bench/peers")
        pinned = tomllib.loads((RUST / "Cargo.toml").read_text())["dependencies"][CRATES[peer]]
        return f"{CRATES[peer]} {(pinned if isinstance(pinned, str) else pinned['version']).lstrip('=')}"
    package = LIBRARIES[peer].package
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        raise EngineError(f"{package} is not installed: start this with bench/peers") from None
