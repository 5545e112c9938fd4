"""Keeps the outputs of a model in float64: what the error of float32 engines is measured from.

    python3 reference.py RABOT MODEL INPUTS FOLDER

All float32 of the model and of its inputs becomes float64, and `rabot run --reference` evaluates that, node by node
and without passes. FOLDER/outputs.npz is left alone while it is of the same model, inputs and version of `rabot`. A
command of its own, because the widened model can take gigabytes.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / "zoo"), str(REPOSITORY / "zoo")]

from exact import widened, widened_model  # noqa: E402 (scripts, no package)
from zoo import sha256, staging  # noqa: E402


def write(rabot, model, inputs, folder):
    """Evaluate the widened model."""
    wide_model, wide_inputs = folder / "model.onnx", folder / "inputs.npz"
    onnx.save(widened_model(model), wide_model)
    with np.load(inputs) as file:
        np.savez(wide_inputs, **{name: widened(file[name]) for name in file.files})
    command = [rabot, "run", wide_model, "--inputs", wide_inputs, "--reference", "--outputs", folder / "outputs.npz"]
    result = subprocess.run(command, capture_output=True, text=True)
    wide_model.unlink()
    wide_inputs.unlink()
    if result.returncode:
        sys.exit(f"rabot run --reference failed ({result.returncode}): {' '.join(result.stderr.split())}")


def main():
    """Command line."""
    rabot, model, inputs, folder = map(Path, sys.argv[1:])
    version = subprocess.run([rabot, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    made_from = f"model {sha256(model)}\ninputs {sha256(inputs)}\n{version}\n"
    stamp = folder / ".made-from"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    with staging(folder) as new:
        write(rabot, model, inputs, new)
        (new / ".made-from").write_text(made_from)


if __name__ == "__main__":
    main()
