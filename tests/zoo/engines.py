"""Two ways to run a model: the `rabot` command line, and ONNX Runtime as the reference.

Both models are called alike: `model(array, ...)` or `model(name=array)` gives one array, or
a dict of several outputs; `model.many([feeds, ...])` does the same for independent inputs.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

from signals import read_wave

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "zoo"))

from zoo import Zoo, ZooError, default_cache  # noqa: E402 (the fetcher is no package)

DEMO = REPOSITORY / "demo"
RUN_LIMIT_S = 900


class EngineError(Exception):
    """An engine could not run a model."""


def rabot_path():
    """The `rabot` binary: $RABOT or the release build."""
    path = Path(os.environ.get("RABOT") or REPOSITORY / "target" / "release" / "rabot").resolve()
    if not path.exists():
        raise EngineError(f"{path} does not exist: run `cargo build --release`, or set RABOT")
    return path


def call(command):
    """Run a command; returns what it printed, or raises with the end of its complaint."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise EngineError(f"{shlex.join(map(str, command))}: no end after {RUN_LIMIT_S} s") from None
    if result.returncode:
        tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-12:])
        raise EngineError(f"{shlex.join(map(str, command))} failed ({result.returncode}):\n{tail}")
    return result.stdout


def rabot_run(model, inputs, options=()):
    """Run `rabot run` on a folder's worth of feeds at once; returns a list of dicts of outputs."""
    with tempfile.TemporaryDirectory(prefix="rabot-") as scratch:
        source, target = Path(scratch, "inputs"), Path(scratch, "outputs")
        source.mkdir()
        target.mkdir()
        for index, feeds in enumerate(inputs):
            np.savez(source / f"{index:05}.npz", **feeds)
        call([rabot_path(), "run", model, "--inputs", source, "--outputs", target, *options])
        return [load(target / f"{index:05}.npz") for index in range(len(inputs))]


def load(path):
    """The arrays of an npz file."""
    if not path.exists():
        raise EngineError(f"{path.name} was not written")
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


class Model:
    """What the engines' models share; they add `inputs` (names), `run_all` and `metadata`."""

    def __init__(self, path):
        self.path, self.folder = path, path.parent

    def __call__(self, *arrays, **named):
        """Run; arrays are the inputs in order. Returns one array, or a dict of several."""
        return self.many([dict(zip(self.inputs, arrays)) | named])[0]

    def many(self, inputs):
        """Run independent inputs, each a dict or an array for the only input."""
        inputs = [feeds if isinstance(feeds, dict) else {self.inputs[0]: feeds} for feeds in inputs]
        results = self.run_all(inputs)
        return [next(iter(result.values())) if len(result) == 1 else result for result in results]

    def tokenizer(self):
        """The tokenizer next to the model."""
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


class OrtModel(Model):
    """A model in a one-thread session of ONNX Runtime."""

    def __init__(self, path, options=()):
        super().__init__(path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def run_all(self, inputs):
        """Run one after the other."""
        return [dict(zip(self.outputs, self.session.run(None, feeds))) for feeds in inputs]

    def metadata(self):
        """What the file says of itself, by key."""
        return self.session.get_modelmeta().custom_metadata_map


class RabotModel(Model):
    """A model that each call compiles and runs with the command line."""

    def __init__(self, path, options=()):
        super().__init__(path)
        self.options = list(options)
        self.model = onnx.load(path)
        weights = {tensor.name for tensor in self.model.graph.initializer}
        self.inputs = [value.name for value in self.model.graph.input if value.name not in weights]

    def run_all(self, inputs):
        """One compilation for all inputs."""
        return rabot_run(self.path, inputs, self.options)

    def metadata(self):
        """What the file says of itself, by key."""
        return {entry.key: entry.value for entry in self.model.metadata_props}


ENGINES = {"rabot": RabotModel, "onnxruntime": OrtModel}


class Cache:
    """The zoo's data, and its models in an engine, loaded once."""

    def __init__(self, zoo, engine="onnxruntime", options=()):
        self.zoo, self.engine, self.options = zoo, engine, options
        self.loaded = {}

    def model(self, name, engine=None):
        """Load a model, in the cache's engine unless another is named."""
        key = name, engine or self.engine
        if key not in self.loaded:
            self.loaded[key] = ENGINES[key[1]](self.path(name), self.options)
        return self.loaded[key]

    def reference(self, name):
        """Load a model in ONNX Runtime."""
        return self.model(name, "onnxruntime")

    def path(self, name):
        """Where a model is; the demo's network is one of them."""
        if name == "digits":
            return DEMO / "digits.onnx"
        path = self.zoo.model_path(name)
        if not path.exists():
            raise ZooError(f"{name} is not in the cache: run `python3 zoo/zoo.py get {name}`")
        return path

    def data(self, name):
        """Path of a data file."""
        path = self.zoo.cache / "data" / name
        if not path.exists():
            raise ZooError(f"{path} is missing: run `python3 zoo/zoo.py data`")
        return path

    def image(self, name):
        """A picture as RGB."""
        return Image.open(self.data(name)).convert("RGB")

    def sound(self, name):
        """The samples of a data file, or of one that comes with the zoo."""
        shipped = self.zoo.folder / "sounds" / name
        return read_wave(shipped if shipped.exists() else self.data(name))

    def checks(self, name):
        """Folder of a model's stored inputs and outputs."""
        return self.zoo.cache / "checks" / name


def open_zoo(cache):
    """The project's model list with a cache folder."""
    return Zoo(REPOSITORY / "zoo", cache)


def add_options(parser):
    """The options that all scripts have."""
    parser.add_argument("--cache", default=default_cache(), help="cache folder (now: %(default)s)")
    parser.add_argument("--models", nargs="*", default=["*"], metavar="NAME", help="names or patterns (all)")


def add_rabot_options(parser):
    """The options of scripts that call `rabot`."""
    add_options(parser)
    parser.add_argument("--target", help="accelerator profile")
    parser.add_argument("--args", default="", help="more arguments for `rabot run`, in one string")


def rabot_options(arguments, threads=None):
    """The command-line options for `rabot run`."""
    options = ["--target", arguments.target] if arguments.target else []
    options += ["--threads", str(threads)] if threads else []
    return options + shlex.split(arguments.args)
