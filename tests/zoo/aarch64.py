"""Compiles models for aarch64, links them into a small C program, and runs it under qemu.

    python3 aarch64.py [--models NAME ...] [--keep DIR]

Needs the cases that prepare.py stores, `rabot` (the RABOT variable, or target/release/rabot), and
Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user; without those it says so
and skips. The outputs must be ONNX Runtime's, as in compare.py; those of digits in int8 must be
those of this machine to the bit.
"""

import argparse
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compare import show, stored_cases, worst
from engines import Cache, EngineError, RabotModel, ZooError, add_options, call, open_zoo, rabot_path

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
DRIVER = Path(__file__).with_name("driver.c")
MODELS = {  # the sizes to compile for
    "digits": {"batch": 1},
    "silero-vad": {"batch": 1, "sequence": 576},
    "magika": {"unk__214": 1},
    "efficientnet-lite0": {"batch": 1},
}

INT8 = "qdq,cse,fold,unroll,cse,algebra,fuse,subpixel,fold,algebra,channels,quantize,cse,dce,group"
CALIBRATION = Path(__file__).parents[2] / "demo/digits-calibration.npz"


@dataclass
class Names:
    """What `rabot compile -o FOLDER/STEM.o` calls its files and symbols."""

    folder: Path
    model: str

    @property
    def stem(self):
        """The model's name as a C identifier."""
        return re.sub(r"\W", "_", self.model)

    @property
    def object(self):
        """The object file, with the weights in it."""
        return self.folder / f"{self.stem}.o"

    @property
    def macros(self):
        """What driver.c needs to know, by macro."""
        return {
            "RABOT_HEADER": f'"{self.stem}.h"',
            "RABOT_RUN": f"rabot_{self.stem}_run",
            "RABOT_ARENA": f"RABOT_{self.stem.upper()}_ARENA_BYTES",
        }


def build(path, names, dims, options=()):
    """Compile a model and link it with the driver; returns the program."""
    options = [*options, *(option for name, size in dims.items() for option in ("--dim", f"{name}={size}"))]
    call([rabot_path(), "compile", path, "--target", "aarch64", "--emit", "obj", *options, "-o", names.object])
    program = names.folder / names.stem
    macros = [f"-D{name}={value}" for name, value in names.macros.items()]
    flags = ["-std=c11", "-O1", "-Wall", "-Werror", "-static", f"-I{names.folder}", *macros]
    call([COMPILER, *flags, DRIVER, names.object, "-lm", "-o", program])
    return program


def run(program, order, case):
    """Run the program on a case; returns the outputs by name."""
    files = []
    for index, name in enumerate(order):
        files.append(program.with_suffix(f".in{index}"))
        files[-1].write_bytes(np.ascontiguousarray(case.inputs[name]).tobytes())
    outputs = {name: program.with_suffix(f".out{index}") for index, name in enumerate(case.outputs)}
    pairs = [part for name, path in outputs.items() for part in (path, str(case.outputs[name].nbytes))]
    call([EMULATOR, program, *files, "--", *pairs])
    return {
        name: np.frombuffer(path.read_bytes(), case.outputs[name].dtype).reshape(case.outputs[name].shape)
        for name, path in outputs.items()
    }


def fits(case, dims):
    """Whether a stored case has the size that the model is compiled for (the first is the batch)."""
    first = next(iter(case.inputs.values()))
    return first.shape[0] == next(iter(dims.values()))


def check(cache, name, folder):
    """Rows (model, case, output, difference) of one model."""
    path, dims = cache.path(name), MODELS[name]
    program = build(path, Names(folder, name), dims)
    order = RabotModel(path).inputs
    cases = [case for case in stored_cases(cache.checks(name)) if fits(case, dims)]
    return [(name, case.number, *worst(run(program, order, case), case)) for case in cases]


def check_int8(cache, folder):
    """Raise EngineError unless digits in int8 gives the bits that this machine gives."""
    path, dims = cache.path("digits"), MODELS["digits"]
    samples = folder / "calibration"  # one image a file: the program is compiled for one
    samples.mkdir(exist_ok=True)
    for number, image in enumerate(np.load(CALIBRATION)["image"]):
        np.savez(samples / f"{number:05}.npz", image=image[None])
    options = ["--pipeline", INT8, "--calibrate", samples]
    program, here = build(path, Names(folder, "digits-int8"), dims, options), RabotModel(path, options)
    cases = [case for case in stored_cases(cache.checks("digits")) if fits(case, dims)]
    for case in cases:
        expected, actual = here.run_all([case.inputs])[0], run(program, here.inputs, case)
        for name, value in expected.items():
            if value.tobytes() != actual[name].tobytes():
                raise EngineError(f"digits in int8, case {case.number}: `{name}` has other bits on aarch64")
    print(f"digits in int8: the same bits as here in {len(cases)} cases")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.set_defaults(models=list(MODELS))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put objects, headers and programs here")
    arguments = parser.parse_args()
    missing = [tool for tool in (COMPILER, EMULATOR) if not shutil.which(tool)]
    if missing:
        print(f"aarch64: skipped, {' and '.join(missing)} not found "
              "(apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)")
        return 0
    try:
        unknown = set(arguments.models) - MODELS.keys()
        if unknown:
            raise EngineError(f"no aarch64 check for {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
        cache, rows = Cache(open_zoo(arguments.cache)), []
        with tempfile.TemporaryDirectory(prefix="rabot-") as scratch:
            folder = arguments.keep or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            for name in arguments.models:
                rows += check(cache, name, folder)
            if "digits" in arguments.models:
                check_int8(cache, folder)
        return 1 if show(rows) else 0
    except (ZooError, EngineError) as error:
        print(f"aarch64: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
