"""Compares the ONNX files that `rabot compile --emit onnx` writes with those of other simplifiers.

    python3 simplifiers.py [--models NAME ...] [--keep DIR] [--no-run]

Needs the packages of requirements-simplifiers.txt, the cases that prepare.py stores, and `rabot` (the
RABOT variable, or target/release/rabot). The others are onnxsim, onnxslim, and the files that ONNX
Runtime writes after its own optimizations, of which only those count that need no operator of
its own. For every model:

- rabot's file has at most as many nodes (those of nested graphs too) as any other's,
- it is at most 1% larger than the original, weights beside the models counted,
- it uses standard operators only, onnx.checker accepts it, and ONNX Runtime runs it: right as
  compare.py has it.

A tool that makes the file larger than that may save nodes by it: it writes weights out that the
original computes. rabot is then given the room of that file (`--fit`), and the same must hold in it.

What the others make is kept in the cache, since some of them take minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import onnx
import onnxruntime

from cases import select
from compare import progress, stored_cases
from engines import Cache, EngineError, ZooError, add_options, call, open_zoo, rabot_path
from export import check_way

STANDARD = {"", "ai.onnx", "ai.onnx.ml"}
LARGER = 1.01
LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
LIMIT_S = 900


def by_module(name):
    """A tool that is a Python module which takes two paths."""

    def simplify(source, target):
        command = [sys.executable, "-m", name, str(source), str(target)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines()
            raise EngineError(lines[-1] if lines else f"exit code {result.returncode}")

    return simplify


def by_session(level):
    """ONNX Runtime at one of its levels."""

    def simplify(source, target):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = LEVELS[level]
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    return simplify


TOOLS = {
    "onnxsim": (version("onnxsim"), by_module("onnxsim")),
    "onnxslim": (version("onnxslim"), by_module("onnxslim")),
    **{f"ort-{level}": (onnxruntime.__version__, by_session(level)) for level in LEVELS},
}


def nodes_of(graph):
    """The nodes of a graph and of those nested in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for nested in [attribute.g, *attribute.graphs]:
                yield from nodes_of(nested)


def external_files(model, folder):
    """Files beside a model that hold weights."""
    graphs = [model.graph]
    graphs += [nested for node in nodes_of(model.graph) for a in node.attribute for nested in [a.g, *a.graphs]]
    entries = [entry for graph in graphs for tensor in graph.initializer for entry in tensor.external_data]
    return {folder / entry.value for entry in entries if entry.key == "location"}


def measure(path):
    """Nodes and bytes of a file, and the domains that are not ONNX's own."""
    model = onnx.load(path, load_external_data=False)
    nodes = list(nodes_of(model.graph))
    size = path.stat().st_size + sum(file.stat().st_size for file in external_files(model, path.parent))
    foreign = sorted({node.domain for node in nodes} - STANDARD)
    return {"nodes": len(nodes), "bytes": size, "foreign": foreign, "functions": len(model.functions)}


def others(store, name, source):
    """What each of the other tools makes of a model; a tool that fails has an error."""
    results = {}
    for tool, (release, simplify) in TOOLS.items():
        key = f"{tool} {release} on {source.stat().st_size} bytes"
        record = store / f"{name}-{tool}.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        if known.get("key") != key:
            progress(f"{name}: {tool}")
            with tempfile.TemporaryDirectory(prefix="rabot-simplify-") as folder:
                target = Path(folder, "model.onnx")
                try:
                    simplify(source, target)
                    known = {"key": key, **measure(target)}
                except Exception as error:  # each tool has its own, and what it cannot do is no failure here
                    known = {"key": key, "error": " ".join(str(error).split())[:100]}
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(known))
        results[tool] = known
    return results


def rabot(source, target, fit=None):
    """What `rabot` makes of a model."""
    room = ["--fit", str(fit)] if fit else []
    call([rabot_path(), "compile", source, "--emit", "onnx", "-o", target, *room])
    return measure(target)


def faults(source, target, made, cases):
    """What is wrong with a file of rabot's, apart from its size."""
    if made["foreign"] or made["functions"]:
        yield f"operators of {made['foreign']}, {made['functions']} functions"
    try:
        for case, output, found in check_way(source, target, "optimize", cases):
            if not found.right:
                yield f"case {case}: {output} is off by {found.error:.1e} {found.note}"
    except (EngineError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield str(error)
    except Exception as error:  # ONNX Runtime has errors of its own for each of its reasons
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        yield f"onnxruntime: {error}"


def compare(name, source, made, original, theirs, folder, cases):
    """Wrong lines of one model; `made` is rabot's file, and becomes a list with those in more room."""
    default = made[0]
    yield from faults(source, default["path"], default, cases)
    if default["bytes"] > LARGER * original["bytes"]:
        yield f"{default['bytes'] / original['bytes']:.4f} times the bytes of the original"
    for tool, other in theirs.items():
        if "error" in other or other["foreign"] or other["functions"]:
            continue
        ours = default
        if ours["nodes"] > other["nodes"] and other["bytes"] > LARGER * original["bytes"]:
            ours = next((file for file in made if file.get("fit") == other["bytes"]), None)
            if ours is None:
                progress(f"{name}: in the room of {tool}")
                path = folder / f"{name}-{tool}.onnx"
                ours = {"path": path, "fit": other["bytes"], **rabot(source, path, other["bytes"])}
                made.append(ours)
                yield from faults(source, path, ours, cases)
            if ours["bytes"] > max(other["bytes"], LARGER * original["bytes"]):
                yield f"{ours['bytes']} bytes in the room of {tool}'s {other['bytes']}"
        if ours["nodes"] > other["nodes"]:
            yield f"{ours['nodes']} nodes, {tool} {other['nodes']}"


def cell(result, original):
    """Nodes and relative size, for the table."""
    if "error" in result:
        return "-"
    mark = "*" if result["foreign"] or result["functions"] else ""
    ratio = result["bytes"] / original["bytes"]
    return f"{result['nodes']}{mark} {ratio:.3f}" if ratio < 10 else f"{result['nodes']}{mark} {ratio:.0f}"


def rows(cache, arguments):
    """Cells and wrong lines of every model."""
    store = cache.zoo.cache / "simplified"
    for name in select(arguments.models):
        source = Path(cache.path(name))
        cases = [] if arguments.no_run else stored_cases(cache.checks(name))
        original, theirs = measure(source), others(store, name, source)
        progress(name)
        with tempfile.TemporaryDirectory(prefix="rabot-simplify-") as scratch:
            folder = Path(arguments.keep or scratch)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.onnx"
            try:
                made = [{"path": path, **rabot(source, path)}]
            except EngineError as error:
                yield name, [str(original["nodes"]), "-", "", *(cell(r, original) for r in theirs.values())], [str(error)]
                continue
            wrong = list(compare(name, source, made, original, theirs, folder, cases))
        roomy = min((file for file in made[1:]), key=lambda file: file["nodes"], default=None)
        ours = [cell(made[0], original), cell(roomy, original) if roomy else ""]
        yield name, [str(original["nodes"]), *ours, *(cell(result, original) for result in theirs.values())], wrong
    progress("")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--keep", metavar="DIR", help="folder for rabot's files, which are kept")
    parser.add_argument("--no-run", action="store_true", help="count only; ONNX Runtime does not run the files")
    arguments = parser.parse_args()
    try:
        found = list(rows(Cache(open_zoo(arguments.cache)), arguments))
    except (ZooError, EngineError) as error:
        print(f"simplifiers: {error}", file=sys.stderr)
        return 2
    print("nodes, and bytes in parts of the original's; * needs operators that are not ONNX's own, - failed")
    print(f"{'model':28} {'orig':>5}", *(f"{name:>13}" for name in ["rabot", "rabot --fit", *TOOLS]))
    for name, (original, *cells), _ in found:
        print(f"{name:28} {original:>5}", *(f"{text:>13}" for text in cells))
    wrong = [(name, line) for name, _, lines in found for line in lines]
    for name, line in wrong:
        print(f"WRONG {name}: {line}")
    right = len(found) - len({name for name, _ in wrong})
    print(f"{right} of {len(found)} models: no other file of standard operators has fewer nodes in the room it takes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
