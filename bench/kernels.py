"""Kernels that rabot calls, and nodes that ONNX Runtime executes after its own full optimization.

    python3 bench/kernels.py [MODEL ...]        models of the zoo; all of them if none is named

Prints a table in Markdown. A call is a line of `rabot explain`; a composite kernel (`chain`, `side`) is one call, and
`parts` counts what is in it. Nested graphs count on both sides. Needs `rabot` (the RABOT variable, or
target/release/rabot), the zoo's models (zoo/zoo.py get --all) and onnxruntime.
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import onnx
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[1]
RABOT = os.environ.get("RABOT") or ROOT / "target" / "release" / "rabot"
MODELS = pathlib.Path(os.environ.get("RABOT_ZOO") or pathlib.Path.home() / ".cache" / "rabot-zoo") / "models"


def nodes(graph):
    """Nodes of a graph and of the graphs in them."""
    inner = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + sum(nodes(graph) for graph in inner)


def onnxruntime_nodes(path):
    """What is left after ORT_ENABLE_ALL."""
    with tempfile.TemporaryDirectory() as scratch:
        target = os.path.join(scratch, "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = target
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "data")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return nodes(onnx.load(target, load_external_data=False).graph)


def parts(name):
    """Kernels in a composite kernel, by its name: `chain(a, b)`."""
    return name.count(", ") + 1 if name.startswith(("chain(", "side(")) else 1


def rabot_kernels(path):
    """Calls, and kernels in them."""
    output = subprocess.run([RABOT, "explain", path, "--json"], capture_output=True, text=True, check=True).stdout
    names = [kernel["name"] for kernel in json.loads(output)["kernels"]]
    return len(names), sum(map(parts, names))


def main():
    """Prints the table."""
    names = sys.argv[1:] or sorted(path.name for path in MODELS.iterdir() if path.is_dir())
    print("| model | rabot's calls | kernels in them | ONNX Runtime's nodes | ratio |\n|---|---:|---:|---:|---:|")
    logs = []
    for name in names:
        path = MODELS / name / "model.onnx"
        (calls, kernels), theirs = rabot_kernels(path), onnxruntime_nodes(path)
        logs.append(math.log(calls / theirs))
        print(f"| {name} | {calls} | {kernels} | {theirs} | {calls / theirs:.2f} |", flush=True)
    print(f"\ngeometric mean {math.exp(sum(logs) / len(logs)):.2f} (onnxruntime {onnxruntime.__version__})")


if __name__ == "__main__":
    main()
