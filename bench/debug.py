"""Cost of `rabot debug` against the interpreter alone, for every model of the zoo.

    python bench/debug.py [PATTERN ...] [--rabot PATH] [--repeat N] [--json FILE]

For each model it runs `rabot run --reference` and `rabot debug` on the first of its stored inputs, one after the other,
and prints the median of the times as a whole (import, evaluation, compiling, comparing), their ratio, and the most
memory that `debug` had resident. Exit code 1 if a ratio is 3 or more, or memory 2 GB or more.
"""

import argparse
import fnmatch
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CACHE = Path(os.environ.get("RABOT_ZOO", Path.home() / ".cache" / "rabot-zoo"))
MOST_RATIO = 3.0
MOST_BYTES = 2_000_000_000


def measure(command):
    """Seconds and most resident bytes of a command; None if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    # 1 says that an output is off: the work was done all the same.
    if process.returncode not in (0, 1):
        print(f"  {' '.join(command)}: {error.strip()}", file=sys.stderr)
        return None
    return seconds, usage.ru_maxrss * 1024, process.returncode


def row(rabot, name, repeat):
    """Times of a model."""
    model = CACHE / "models" / name / "model.onnx"
    inputs = CACHE / "checks" / name / "inputs-0.npz"
    common = [str(model), "--inputs", str(inputs)]
    runs = []
    for _ in range(repeat):
        reference = measure([rabot, "run", *common, "--reference"])
        debug = measure([rabot, "debug", *common])
        if reference is None or debug is None:
            return None
        runs.append((reference[0], debug[0], debug[1], debug[2]))
    reference, debug = (statistics.median(run[i] for run in runs) for i in (0, 1))
    return {
        "model": name,
        "reference_s": reference,
        "debug_s": debug,
        "ratio": debug / reference,
        "bytes": max(run[2] for run in runs),
        "passed": all(run[3] == 0 for run in runs),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--rabot", default="target/release/rabot")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = sorted(path.parent.name for path in (CACHE / "checks").glob("*/inputs-0.npz"))
    names = [name for name in names if (CACHE / "models" / name / "model.onnx").is_file()]
    names = [name for name in names if any(fnmatch.fnmatch(name, p) for p in args.patterns)]
    rows, failed = [], []
    print(f"| {'model':30} | interpreter s | debug s | ratio | MB | passed |")
    print(f"|{'-' * 32}|---------------|---------|-------|------|--------|")
    for name in names:
        found = row(args.rabot, name, args.repeat)
        if found is None:
            failed.append(name)
            continue
        rows.append(found)
        print(
            f"| {name:30} | {found['reference_s']:13.3f} | {found['debug_s']:7.3f} | {found['ratio']:5.2f} "
            f"| {found['bytes'] / 1e6:4.0f} | {'yes' if found['passed'] else 'NO':6} |",
            flush=True,
        )
        if found["ratio"] >= MOST_RATIO or found["bytes"] >= MOST_BYTES:
            failed.append(name)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{len(rows)} models, {len(failed)} beyond {MOST_RATIO} times or {MOST_BYTES / 1e9:.0f} GB: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
