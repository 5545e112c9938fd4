"""What narrow floats cost and save: bytes of the exported file, and distance of outputs from f32.

    python3 bench/precision.py [MODEL ...]      models of the zoo; three of them if none is named

Prints a table in Markdown. Outputs are those of rabot's compiled code, and of ONNX Runtime on the exported file where it
can load it, against those that ONNX Runtime gave on the model itself (tests/zoo/prepare.py), on the first stored case.
Needs `rabot` (the RABOT variable, or target/release/rabot), the zoo's models and stored cases, and onnxruntime.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[1]
RABOT = os.environ.get("RABOT") or ROOT / "target" / "release" / "rabot"
ZOO = pathlib.Path(os.environ.get("RABOT_ZOO") or pathlib.Path.home() / ".cache" / "rabot-zoo")
MODELS = ["minilm-l6-v2", "efficientnet-lite0", "whisper-tiny-en-encoder"]
PASSES = ["convert", "convert{to=bf16}", "convert{what=weights}", "convert{to=bf16,what=weights}"]
PIPELINE = "qdq,cse,fold,unroll,cse,algebra,fuse,subpixel,fold,algebra,channels,{},cse,dce,group"


def rabot(*arguments):
    """Runs rabot."""
    subprocess.run([RABOT, *map(str, arguments)], check=True, capture_output=True)


def distance(got, wanted):
    """Largest error relative to the largest magnitude, and 1 - cosine; the worst of the outputs."""
    worst = [0.0, 0.0]
    for name, reference in wanted.items():
        x, y = (values.astype(numpy.float64).ravel() for values in (got[name], reference))
        off = numpy.abs(x - y).max() / numpy.abs(y).max()
        turned = 1 - (x @ y) / numpy.sqrt((x @ x) * (y @ y))
        worst = [max(worst[0], off), max(worst[1], turned)]
    return f"{worst[0]:.1e} | {worst[1]:.1e}"


def by_onnxruntime(path, inputs):
    """Outputs by name; None if ONNX Runtime cannot load the file."""
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {each.name: inputs[each.name] for each in session.get_inputs()})))


def row(model, convert, folder):
    """One line of the table."""
    path, cases = ZOO / "models" / model / "model.onnx", ZOO / "checks" / model
    exported, outputs = folder / "model.onnx", folder / "outputs.npz"
    pipeline = ["--pipeline", PIPELINE.format(convert)]
    rabot("compile", path, "--emit", "onnx", "-o", exported, *pipeline)
    rabot("run", path, "--inputs", cases / "inputs-0.npz", "--outputs", outputs, *pipeline)
    wanted = numpy.load(cases / "outputs-0.npz")
    theirs = by_onnxruntime(exported, numpy.load(cases / "inputs-0.npz"))
    size, whole = exported.stat().st_size, path.stat().st_size
    checked = "cannot load it | " if theirs is None else distance(theirs, wanted)
    return f"| {model} | `{convert}` | {size / whole:.2f} | {distance(numpy.load(outputs), wanted)} | {checked} |"


def main():
    """Prints the table."""
    print("| model | pass | bytes | error | 1 - cosine | ORT's error | ORT's 1 - cosine |")
    print("|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for model in sys.argv[1:] or MODELS:
            for convert in PASSES:
                print(row(model, convert, pathlib.Path(folder)), flush=True)
    print(f"\nonnxruntime {onnxruntime.__version__}")


if __name__ == "__main__":
    main()
