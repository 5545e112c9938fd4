"""Writes the table of operators in README.md.

    python table.py DIR...            writes it
    python table.py --check DIR...    fails if it is not as it would be written

Run it on ONNX's suite, and on the cases that the other scripts here and in tests/sklearn make.

Operators are those that `rabot ops` lists, versions those that the schemas of the `onnx` package have. How an operator
is compiled is seen on cases: every folder with a model.onnx below the DIRs, whose kernels `rabot explain` lists with
the nodes they come from. `RABOT` names the program; without it, target/release/rabot is taken."""

import collections
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import onnx
import probes
from onnx import defs

ROOT = pathlib.Path(__file__).resolve().parents[2]
RABOT = os.environ.get("RABOT", str(ROOT / "target/release/rabot"))
README = ROOT / "README.md"
BEGIN, END = "<!-- operators: made by tests/onnx/table.py -->\n", "<!-- end of operators -->\n"


def rabot(*args):
    return subprocess.run([RABOT, *args], capture_output=True, text=True, check=False)


def qualified(domain, op):
    return f"{domain}.{op}" if domain not in ("", "ai.onnx") else op


def versions():
    found = collections.defaultdict(set)
    for schema in defs.get_all_schemas_with_history():
        found[qualified(schema.domain, schema.name)].add(schema.since_version)
    return found


def kinds_of(model):
    """For each node of a model, or of the model in a file, its operator and the kinds of kernels that it became."""
    if isinstance(model, pathlib.Path):
        model = onnx.load(model, load_external_data=False)
    functions = {(function.domain, function.name) for function in model.functions}
    ops = {}
    for at, node in enumerate(model.graph.node):
        node.name = f"table_{at}"
        if (node.domain, node.op_type) not in functions:
            ops[node.name] = qualified(node.domain, node.op_type)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as renamed:
        renamed.write(model.SerializeToString())
        renamed.flush()
        result = rabot("explain", "--json", renamed.name)
    if result.returncode:
        return []
    kinds = {name: set() for name in ops}
    for kernel in json.loads(result.stdout)["kernels"]:
        for source in kernel["sources"]:
            if source in kinds:
                kinds[source].add("host" if kernel["kind"] == "host" else "kernel")
    return [(op, kinds[name]) for name, op in ops.items()]


def observed(folders):
    """How many nodes there are of each operator, by what they became."""
    models = sorted(path for folder in folders for path in pathlib.Path(folder).glob("**/model.onnx"))
    models += [model for _, model in probes.models()]
    seen = collections.defaultdict(collections.Counter)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(kinds_of, models):
            for op, kinds in found:
                seen[op][frozenset(kinds)] += 1
    return seen


def compiled(op, composed, counts):
    """The cell of how an operator runs when it is compiled."""
    # A kernel beside a host function copies or checks what that one takes and gives.
    on_host = sum(count for kinds, count in counts.items() if "host" in kinds)
    in_kernels = counts[frozenset(["kernel"])]
    if composed:
        with_both = counts[frozenset(["kernel", "host"])]
        if not on_host:
            return "composed"
        return "composed, in part of host functions" if in_kernels or with_both else "composed, of host functions"
    if on_host:
        return "kernel; host for some types and forms" if in_kernels else "host"
    # Or nothing: what it gives is known when the model is compiled, or is a view of what it takes.
    return "kernel"


def table(folders):
    result = rabot("ops", "--json")
    if result.returncode:
        sys.exit(result.stderr)
    known, seen = versions(), observed(folders)
    rows = json.loads(result.stdout)["ops"]
    missing = [row["op"] for row in rows if not seen[row["op"]]]
    if missing:
        sys.exit(f"no case has nodes of: {', '.join(missing)}")
    lines = ["| operator | versions | interpreter | compiled |", "|---|---|---|---|"]
    for row in rows:
        op = row["op"]
        listed = ", ".join(str(version) for version in sorted(known.get(op, {1})))
        lines.append(f"| {op} | {listed} | yes | {compiled(op, row['composed'], seen[op])} |")
    return "\n".join(lines) + "\n"


def main():
    args = sys.argv[1:]
    check = "--check" in args
    folders = [arg for arg in args if arg != "--check"]
    text = README.read_text()
    if not folders or BEGIN not in text or END not in text:
        sys.exit("name folders of cases; README.md must have the two lines that the table is between")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    written = f"{before}{BEGIN}\n{table(folders)}\n{END}{after}"
    if not check:
        README.write_text(written)
    elif written != text:
        sys.exit("README.md: the table of operators is not up to date; run tests/onnx/table.py")


if __name__ == "__main__":
    main()
