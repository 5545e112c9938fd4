"""Measures `rabot` against ONNX Runtime, float32, one thread, on one CPU, turn by turn.

    python3 peers.py [--models NAME ...] [--rounds N] [--seconds S] [--cpu N] [--target T]

Needs the models of zoo/, the inputs that tests/zoo/prepare.py stores (the first case of each is
used), and `rabot` (the RABOT variable, or target/release/rabot). In every round both engines
load the model anew and run it for the same time, the one after the other, so that a change in
the machine's speed hits both. Prints a Markdown table, and writes bench/results/peers-TIME.json.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "zoo"))

from zoo import Zoo, ZooError, default_cache  # noqa: E402 (the fetcher is no package)

FEWEST_RUNS = 5
KEYS = ["median_ms", "p99_ms", "runs", "compile_ms", "load_ms", "peak_rss_mb"]  # of `rabot bench --json`


class BenchError(Exception):
    """An engine could not be measured."""


def session(model):
    """A one-thread session of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load(inputs):
    """The arrays of an npz file."""
    with np.load(inputs) as file:
        return {name: file[name] for name in file.files}


def peak_rss_mb():
    """The largest resident memory of this process so far (getrusage would count the parent's too)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise BenchError("/proc/self/status has no VmHWM")


def ort_memory(model, inputs):
    """Peak memory before and after loading a model and running it once, in a process of its own."""
    before = peak_rss_mb()
    session(model).run(None, load(inputs))
    return before, peak_rss_mb()


def ort_round(model, feeds, seconds):
    """Milliseconds of session creation, and median and 99th percentile of a run."""
    start = time.perf_counter()
    engine = session(model)
    created = time.perf_counter() - start
    engine.run(None, feeds)
    times, start = [], time.perf_counter()
    while len(times) < FEWEST_RUNS or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        engine.run(None, feeds)
        times.append(time.perf_counter() - before)
    return {
        "compile_ms": created * 1000,
        "median_ms": statistics.median(times) * 1000,
        "p99_ms": float(np.percentile(times, 99)) * 1000,
        "runs": len(times),
    }


def rabot_path():
    """The `rabot` binary: $RABOT or the release build."""
    path = Path(os.environ.get("RABOT") or REPOSITORY / "target" / "release" / "rabot").resolve()
    if not path.exists():
        raise BenchError(f"{path} does not exist: run `cargo build --release`, or set RABOT")
    return path


def rabot_round(rabot, model, inputs, seconds, options):
    """What `rabot bench` measures."""
    command = [rabot, "bench", model, "--inputs", inputs, "--threads", 1, "--seconds", seconds, "--json", *options]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        tail = " ".join(result.stderr.strip().splitlines()[-3:])
        raise BenchError(f"rabot bench failed ({result.returncode}): {tail}")
    figures = json.loads(result.stdout)
    return {key: figures[key] for key in KEYS}


def medians(rounds):
    """The median of each figure over the rounds."""
    return {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}


def measure(name, model, inputs, arguments):
    """All figures of one model."""
    feeds, ort, rabot = load(inputs), [], []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        empty, peak = pool.submit(ort_memory, model, inputs).result()
    for number in range(arguments.rounds):
        print(f"{name}: round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        ort.append(ort_round(model, feeds, arguments.seconds))
        rabot.append(rabot_round(arguments.rabot, model, inputs, arguments.seconds, arguments.options))
    ratios = [ours["median_ms"] / theirs["median_ms"] for ours, theirs in zip(rabot, ort)]
    return {
        "model": name,
        "shapes": {key: list(array.shape) for key, array in feeds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "rabot": medians(rabot),
        "onnxruntime": medians(ort) | {"peak_rss_mb": peak, "empty_rss_mb": empty},
        "rounds": {"rabot": rabot, "onnxruntime": ort},
    }


def cpu_name():
    """The processor, as Linux calls it, and the vector units that matter here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    values = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    units = [unit for unit in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if unit in values.get("flags", "").split()]
    return f"{values.get('model name', platform.machine())} ({' '.join(units)})"


def about(arguments):
    """The machine and the versions."""
    version = subprocess.run([arguments.rabot, "--version"], capture_output=True, text=True).stdout.strip()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": cpu_name(),
        "pinned_to": arguments.cpu,
        "rabot": version,
        "options": arguments.options,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }


def geometric_mean(values):
    """Of positive numbers."""
    return float(np.exp(np.mean(np.log(values))))


def table(report):
    """The report as Markdown."""
    machine, rows = report["about"], report["models"]
    yield f"{machine['cpu']}, CPU {machine['pinned_to']}, one thread; {machine['rabot']}"
    yield f"against onnxruntime {machine['onnxruntime']}; medians of {machine['rounds']} interleaved rounds of"
    yield f"{machine['seconds']:g} s each. ORT's memory holds Python and its libraries; in brackets, without a model."
    yield ""
    yield "| model | rabot ms | ORT ms | ratio | rabot compile ms | ORT create ms | rabot MB | ORT MB |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        ours, theirs = row["rabot"], row["onnxruntime"]
        yield (
            f"| {row['model']} | {ours['median_ms']:.3f} | {theirs['median_ms']:.3f} | {row['ratio']:.2f} "
            f"| {ours['compile_ms']:.1f} | {theirs['compile_ms']:.1f} "
            f"| {ours['peak_rss_mb']:.0f} | {theirs['peak_rss_mb']:.0f} ({theirs['empty_rss_mb']:.0f}) |"
        )
    if rows:
        yield ""
        yield f"Geometric mean of the ratio over {len(rows)} models: **{report['geometric_mean']:.2f}**."
    for name, error in report["failed"].items():
        yield f"\nNot measured: {name}: {error}"


def measure_all(zoo, arguments):
    """The report on the chosen models; one that fails does not stop the rest."""
    rows, failed = [], {}
    for name in [model["name"] for model in zoo.select(arguments.models)]:
        model, inputs = zoo.model_path(name), zoo.cache / "checks" / name / "inputs-0.npz"
        try:
            for path, script in ((model, "zoo/zoo.py get"), (inputs, "tests/zoo/prepare.py")):
                if not path.exists():
                    raise BenchError(f"{path} is missing: run {script}")
            rows.append(measure(name, model, inputs, arguments))
        except BenchError as error:
            failed[name] = str(error)
    mean = geometric_mean([row["ratio"] for row in rows]) if rows else None
    return {"about": about(arguments), "geometric_mean": mean, "models": rows, "failed": failed}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default=default_cache(), help="cache folder (now: %(default)s)")
    parser.add_argument("--models", nargs="*", default=["*"], metavar="NAME", help="names or patterns (all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine (now: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time of a turn (now: %(default)s)")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="run here (now: %(default)s)")
    parser.add_argument("--target", help="accelerator profile for rabot")
    parser.add_argument("--args", default="", help="more arguments for `rabot bench`, in one string")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "bench" / "results", help="folder (now: %(default)s)")
    arguments = parser.parse_args()
    arguments.options = (["--target", arguments.target] if arguments.target else []) + shlex.split(arguments.args)
    try:
        arguments.rabot = rabot_path()
        os.sched_setaffinity(0, {arguments.cpu})  # the processes started from here inherit it
        report = measure_all(Zoo(REPOSITORY / "zoo", arguments.cache), arguments)
    except (BenchError, ZooError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / time.strftime("peers-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(table(report)))
    print(f"\nwritten to {path}", file=sys.stderr)
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
