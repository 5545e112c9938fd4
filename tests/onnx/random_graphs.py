"""Holds rabot to ONNX Runtime on random models of many nodes.

    python random_graphs.py [--count N] [--seed S] [--keep DIR] [--batch N] [--summary]

Model SEED is written by `tests/examples/random_models.rs` (the RANDOM_MODELS variable names the program; without
it, cargo builds it), with what rabot computes: by the interpreter from the graph as it is (-O0), by the interpreter
after the default pipeline (-O3), and by compiled code. All three must agree with ONNX Runtime within the tolerance
that is derived from the graph. `--seed SEED --count 1 --keep DIR` makes one again.

What ONNX Runtime does wrong or cannot do is listed in random_known.py. `--summary` prints how many models each of
these accounts for as a Markdown table; bench/README.md has that of 20,000 models.
"""

import argparse
import collections
import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime
from random_known import REWRITTEN, Model, is_own_rewriting, known_difference, known_refusal

WAYS = ["O0", "O3", "compiled"]
# Part of the elements of a decision that rounding may flip, as in rabot's own tolerances.
FLIPS = 0.01
# ONNX Runtime's unfused kernels, without rewrites of its own; and with them.
LEVELS = [
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
]
# What the second level does that the first does not is ONNX Runtime's own rewriting.
ITSELF = "onnxruntime's optimized model does not do what its unoptimized one does, which rabot agrees with"
ROOT = pathlib.Path(__file__).resolve().parents[2]


def generator():
    """The program that writes models."""
    if "RANDOM_MODELS" in os.environ:
        return [os.environ["RANDOM_MODELS"]]
    return ["cargo", "run", "--quiet", "--locked", "--release", "-p", "rabot-tests", "--example", "random_models", "--"]


def parts(path):
    """The arrays of an npz file by group and name."""
    groups = collections.defaultdict(dict)
    with np.load(path) as file:
        for key in file.files:
            group, name = key.split("/", 1)
            groups[group][name] = file[key]
    return groups


def run(path, inputs, level):
    """Outputs of ONNX Runtime by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs)))


def difference(actual, expected, tolerance):
    """What is wrong with an output, in words; none if rounding explains it."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return f"is {actual.dtype}{list(actual.shape)}, not {expected.dtype}{list(expected.shape)}"
    if not actual.size or np.array_equal(actual, expected, equal_nan=expected.dtype.kind == "f"):
        return None
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return "differs in what is not finite"
    off, largest = np.abs(a - b)[finite].max(), np.abs(b[finite]).max()
    within = off <= tolerance * largest
    if expected.dtype.kind != "f":
        few = (a != b).sum() <= max(1.0, FLIPS * a.size)
        near = expected.dtype != bool and off <= max(1.0, tolerance * largest)
        within = tolerance > 0 and (few or near)
    return None if within else f"is off by {off:.3e} of {largest:.3e}; {tolerance * largest:.3e} is allowed"


def judge(path):
    """Lines (what, text) about one model; `what` is `wrong`, `known` or `refused`."""
    groups = parts(path.with_suffix(".npz"))
    tolerances = {name: float(value) for name, value in groups["tolerance"].items()}
    inputs = {name: value for name, value in groups["inputs"].items()}
    # What ONNX Runtime's unoptimized model does: what it says when it refuses; outputs of which rabot has the same.
    plain_refusal, plain_agrees = None, None
    model = functools.cache(lambda: Model(path))
    for level in LEVELS:
        try:
            outputs = run(path, inputs, level)
        except Exception as error:  # ONNX Runtime has errors of its own for each of its reasons
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            text = " ".join(str(error).split())
            reason = refusal(model(), text, plain_refusal, plain_agrees, level)
            plain_refusal = (text, reason) if level == LEVELS[0] else None
            yield ("refused", reason) if reason else ("wrong", f"onnxruntime refuses: {text[:300]}")
            continue
        agrees = set(outputs)
        for way in WAYS:
            for name, expected in groups[way].items():
                text = difference(outputs[name], expected, tolerances[name])
                if not text:
                    continue
                agrees.discard(name)
                reason = known_difference(model(), name) or (ITSELF if name in (plain_agrees or []) else None)
                told = f"{way}, {str(level).rsplit('.')[-1]}: {name}: onnxruntime's {text}"
                yield ("known", reason) if reason else ("wrong", told)
        plain_agrees = agrees


def refusal(model, text, plain_refusal, plain_agrees, level):
    """Why it is not rabot's that ONNX Runtime refuses a model with this text; `None` if it may be.

    `plain_refusal` is (text, reason) where it refuses the model without optimizing it too; else, `plain_agrees` are the
    outputs that rabot has the same then."""
    reason = known_refusal(model, text)
    if reason or level == LEVELS[0]:
        return reason
    if plain_refusal and text.rsplit("Status Message:")[-1] == plain_refusal[0].rsplit("Status Message:")[-1]:
        return plain_refusal[1]
    if is_own_rewriting(model, text):
        return REWRITTEN
    return ITSELF if plain_agrees else None


def summary(kinds):
    """Lines of a Markdown table of how many models each reason accounts for; `kinds` counts `what: reason`."""
    yield "| models | ONNX Runtime | form |"
    yield "|---:|---|---|"
    for text, number in sorted(kinds.items(), key=lambda item: (-item[1], item[0])):
        what, reason = text.split(": ", 1)
        yield f"| {number:,} | {'refuses' if what == 'refused' else 'differs'} | {reason} |"


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="models (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first one's seed (%(default)s)")
    parser.add_argument("--batch", type=int, default=500, help="models that are on the disk at once (%(default)s)")
    parser.add_argument("--summary", action="store_true", help="print the counts as a Markdown table")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="write the models here and leave them")
    args = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    command, failed = generator(), False
    tally, kinds = collections.Counter(), collections.Counter()
    for first in range(args.seed, args.seed + args.count, args.batch):
        count = min(args.batch, args.seed + args.count - first)
        with tempfile.TemporaryDirectory(prefix="rabot-random-") as scratch:
            folder = args.keep or pathlib.Path(scratch)
            options = ["--count", str(count), "--seed", str(first), "--out", str(folder)]
            made = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True)
            if made.returncode not in (0, 1):
                sys.exit(f"{' '.join(command)}: exit code {made.returncode}")
            if made.returncode:
                failed = True
                print(made.stdout, end="")
            for seed in range(first, first + count):
                lines = list(judge(folder / f"{seed}.onnx"))
                for what, text in dict.fromkeys(lines):
                    if what == "wrong":
                        print(f"{seed}: {text}", flush=True)
                    else:
                        kinds[f"{what}: {text}"] += 1
                verdicts = {what for what, _ in lines}
                tally["wrong" if "wrong" in verdicts else "listed" if verdicts else "agree"] += 1
    told = summary(kinds) if args.summary else (f"{number} x {text}" for text, number in sorted(kinds.items()))
    print("\n".join(told))
    print(f"{args.count} models: {tally['agree']} agree with ONNX Runtime, {tally['listed']} are listed, {tally['wrong']} wrong")
    sys.exit(1 if failed or tally["wrong"] else 0)


if __name__ == "__main__":
    main()
