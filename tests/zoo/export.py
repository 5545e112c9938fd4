"""Exports every model to ONNX again and checks the files with the `onnx` package and ONNX Runtime.

    python3 export.py [--models NAME ...] [--keep DIR]

Needs the cases that prepare.py stores, and `rabot` (the RABOT variable, or target/release/rabot).
Every model is imported and written without passes: onnx.checker accepts the file with its full
check, and ONNX Runtime gives the same bits for it as for the original, in the same session. Then
it is imported, optimized by the default pipeline and written: checked too, and right as compare.py
has it. The same is done with all weights in a file of their own, and what the file says of itself,
of its inputs and of its outputs must be what the original says.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from cases import select
from compare import Case, Difference, progress, same_bits, show, stored_cases, worst
from engines import Cache, EngineError, OrtModel, ZooError, add_options, call, open_zoo, rabot_path

WAYS = {
    "import": ["--pipeline", ""],
    "external": ["--pipeline", "", "--external-data", "1024"],
    "optimize": [],
}


def export(model, path, options):
    """Write a model with `rabot compile`."""
    call([rabot_path(), "compile", model, "--emit", "onnx", "-o", path, *options])


def said(path):
    """What a file says of itself, and of what goes in and comes out."""
    model = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [(value.name, dtype(value), shape(value)) for value in model.graph.input if value.name not in weights]
    return {
        "producer": (model.producer_name, model.producer_version),
        "model": (model.domain, model.model_version, model.doc_string),
        "graph": (model.graph.name, model.graph.doc_string),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "inputs": inputs,
        "outputs": [(value.name, dtype(value)) for value in model.graph.output],
    }


def dtype(value):
    """Element type of an input or output."""
    return value.type.tensor_type.elem_type


def shape(value):
    """Dims of an input: numbers, names, or nothing, which some files write as `?` or -1."""
    dims = [(dim.dim_param, dim.dim_value, dim.HasField("dim_value")) for dim in value.type.tensor_type.shape.dim]
    return [name.strip("?") or (size if known and size >= 0 else "") for name, size, known in dims]


def check_said(original, exported):
    """**Errors**: the exported file says something else."""
    expected, actual = said(original), said(exported)
    for what, value in expected.items():
        if actual[what] != value:
            raise EngineError(f"{what}: {actual[what]!r}, not {value!r}")


def check_way(original, path, way, cases):
    """Rows (case, output, difference) of one exported file."""
    onnx.checker.check_model(str(path), full_check=True)
    check_said(original, path)
    runs = OrtModel(path).run_all([case.inputs for case in cases])
    if way == "optimize":
        return [(case.number, *worst(run, case)) for case, run in zip(cases, runs)]
    originals = OrtModel(original).run_all([case.inputs for case in cases])
    rows = []
    for case, run, expected in zip(cases, runs, originals):
        output, found = worst(run, Case(case.number, case.inputs, expected, {}))
        if not same_bits(run, expected):
            found = Difference(np.inf, f"other bits than the original's (off by {found.error:.1e})")
        rows.append((case.number, output, found))
    return rows


def check_model(cache, name, folder):
    """Rows (model, case, output, difference) of one model."""
    original, cases, rows = cache.path(name), stored_cases(cache.checks(name)), []
    for way, options in WAYS.items():
        path = folder / f"{name}-{way}.onnx"
        try:
            export(original, path, options)
            found = check_way(original, path, way, cases)
        except (EngineError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            found = [("-", "-", Difference(np.inf, str(error)))]
        except Exception as error:  # ONNX Runtime has errors of its own for each of its reasons
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            found = [("-", "-", Difference(np.inf, f"onnxruntime: {error}"))]
        rows += [(f"{name} {way}", *row) for row in found]
    return rows


def check(cache, arguments):
    """Rows of all chosen models."""
    for name in select(arguments.models):
        progress(name)
        with tempfile.TemporaryDirectory(prefix="rabot-export-") as scratch:
            folder = Path(arguments.keep or scratch)
            folder.mkdir(parents=True, exist_ok=True)
            yield from check_model(cache, name, folder)
    progress("")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--keep", metavar="DIR", help="folder for the exported files, which are kept")
    arguments = parser.parse_args()
    try:
        return 1 if show(list(check(Cache(open_zoo(arguments.cache)), arguments))) else 0
    except (ZooError, EngineError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
