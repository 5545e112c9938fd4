"""Holds rabot to ONNX's reference evaluator on models of one node, drawn at random.

    python properties.py [--seed N] [--cases N] [--only OP] [--keep DIR]

`RABOT` names the program; without it, target/release/rabot is taken. Each case is a folder as in ONNX's own suite, so
that `rabot onnx-test` runs them all, compiled and with the interpreter. What differs is told with the name of its
case, which holds the seed: `--only OP --seed N --keep DIR` makes it again."""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from drawn import Draw, Unfit, declare_outputs, draw_constants, model_of, proto_of
from generators import GENERATORS
from known import is_limit, known
from onnx import defs
from onnx.reference import ReferenceEvaluator

# Half precision: the evaluator rounds after every step of a sum, rabot once.
TOLERANCES = {"float16": (2e-2, 1e-2), "float32": (1e-4, 2e-5), "float64": (1e-7, 1e-9)}
# Operator sets before it have other ways to spread operands.
OLDEST = 7
LOOSEST = ["float16", "float32", "float64"]


def tolerance(values):
    kinds = {str(array.dtype) for array in flat(values)}
    rtol, atol = next((TOLERANCES[kind] for kind in LOOSEST if kind in kinds), (1e-3, 1e-7))
    return {"rtol": rtol, "atol": atol}


def flat(values):
    for value in values:
        if isinstance(value, list):
            yield from flat(value)
        elif value is not None:
            yield np.asarray(value)


def older_opset(draw, node):
    """Sometimes an operator set in which the operator had another version."""
    if node.domain or draw.chance(0.6):
        return None
    history = {s.since_version for s in defs.get_all_schemas_with_history() if (s.name, s.domain) == (node.op, "")}
    older = sorted(version for version in history if version >= OLDEST and version != max(history))
    return draw.of(older) if older else None


def is_valid(model):
    model = onnx.ModelProto.FromString(model.SerializeToString())
    # Their types are not known yet.
    del model.graph.output[:]
    try:
        onnx.checker.check_model(model)
        # Types too: an older version may not take the dtypes.
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def make_case(op, seed, number, folder):
    """Writes a case; gives why not, if there is a reason."""
    draw = Draw(op, seed, number)
    try:
        node = GENERATORS[op](draw, op)
    except (Unfit, ValueError) as error:
        return f"unfit: {error}"
    constants, opset = draw_constants(draw, node), older_opset(draw, node)
    model, feeds = model_of(draw, node, constants, opset)
    if opset is not None and not is_valid(model):
        # The node has what this version does not.
        opset = None
        model, feeds = model_of(draw, node, constants)
    reason = known(node, opset)
    if reason:
        return f"known: {reason}"
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            expected = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # The evaluator raises anything, and cannot judge what it cannot run.
        return f"evaluator: {type(error).__name__}: {error}"
    expected = [value if isinstance(value, list) else np.asarray(value) for value in expected]
    declare_outputs(model, expected)
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "tolerance.json").write_text(json.dumps(tolerance(list(feeds.values()) + expected)))
    for at, value in enumerate(feeds.values()):
        (data / f"input_{at}.pb").write_bytes(proto_of(value).SerializeToString())
    for at, value in enumerate(expected):
        (data / f"output_{at}.pb").write_bytes(proto_of(value).SerializeToString())
    return None


def outcomes(rabot, folder, extra):
    result = subprocess.run([rabot, "onnx-test", str(folder), "--json", *extra], capture_output=True, text=True)
    if result.returncode not in (0, 1):
        sys.exit(f"{rabot} onnx-test {' '.join(extra)}: exit code {result.returncode}\n{result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=40, help="cases of each operator")
    parser.add_argument("--only", action="append", help="an operator; may be given several times")
    parser.add_argument("--keep", type=pathlib.Path, help="write the cases here and leave them")
    args = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    rabot = os.environ.get("RABOT", str(root / "target/release/rabot"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or pathlib.Path(temporary)
        made, left_out = 0, collections.Counter()
        for op in args.only or sorted(GENERATORS):
            before = made
            for number in range(args.cases):
                reason = make_case(op, args.seed, number, folder / f"{op}_seed{args.seed}_{number}")
                made += reason is None
                if reason:
                    left_out[f"{op}: {reason}"] += 1
            if made == before:
                reasons = [line for line in left_out if line.startswith(f"{op}: ")]
                sys.exit(f"no case of {op} could be made: {reasons[:3]}")
        wrong = refused = 0
        for extra in ([], ["--reference"]):
            results = outcomes(rabot, folder, extra)
            if len(results) != made:
                sys.exit(f"{made} cases were made, and {len(results)} run")
            for result in results:
                if result["status"] == "pass":
                    continue
                op = result["name"].split("_seed")[0]
                reason = " ".join(result["reason"].split())
                if result["status"] == "unsupported" and is_limit(op, reason):
                    refused += 1
                else:
                    wrong += 1
                    print(f"{result['name']} {' '.join(extra)}: {result['status']}: {reason[:400]}")
    drawn = len(args.only or GENERATORS)
    print(f"{made} cases of {drawn} operators, {sum(left_out.values())} left out; {refused} runs refused, {wrong} wrong")
    if os.environ.get("RABOT_SHOW_LEFT_OUT"):
        for line, count in sorted(left_out.items()):
            print(f"  {count} x {line[:200]}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
