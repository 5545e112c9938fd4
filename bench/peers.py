"""Measures `rabot` against other engines, float32, one thread, on one CPU, turn by turn.

    bench/peers [--models NAME ...] [--rounds N] [--seconds S] [--cpu N] [--target T] [--svg FILE]

Needs the models of zoo/, the inputs that tests/zoo/prepare.py stores (the first case of each is
used), and `rabot` (the RABOT variable, or target/release/rabot). In every round all engines load
the model anew and run it for the same time, one after the other, so that a change in the
machine's speed hits all. Every engine's outputs are compared with those of the model in float64.
Prints Markdown tables, and writes bench/results/peers-TIME.json.
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
from pathlib import Path

import numpy as np

from engines import PEERS, EngineError, Rabot, load, version
from plot import svg
from tables import tables

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "zoo"))

from zoo import Zoo, ZooError, default_cache  # noqa: E402 (the fetcher is no package)

WRONG = 1e-3  # an error beyond this is no rounding: models of random weights reach 1e-4 in every engine


def rabot_path():
    """The `rabot` binary: $RABOT or the release build."""
    path = Path(os.environ.get("RABOT") or REPOSITORY / "target" / "release" / "rabot").resolve()
    if not path.exists():
        raise EngineError(f"{path} does not exist: run `cargo build --release`, or set RABOT")
    return path


# Errors


def reference(name, model, inputs, arguments):
    """The outputs in float64 by name; None and the reason where they cannot be had."""
    folder = Path(arguments.cache, "references", name)
    command = [sys.executable, "-B", REPOSITORY / "bench" / "reference.py", arguments.rabot, model, inputs, folder]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        return None, (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
    return load(folder / "outputs.npz"), None


def distance(actual, exact):
    """Largest difference of floats over the largest exact value; infinity where it has no meaning."""
    finite = np.isfinite(exact)
    if not np.array_equal(actual[~finite], exact[~finite], equal_nan=True) or not np.isfinite(actual[finite]).all():
        return np.inf
    furthest, largest = np.abs(actual[finite] - exact[finite]).max(initial=0), np.abs(exact[finite]).max(initial=0)
    if furthest == 0:
        return 0.0
    return float(furthest / largest) if largest else np.inf


def judge(outputs, exact):
    """The `error` of outputs, the largest of all, and what is `wrong` with them, if anything."""
    worst, wrong = 0.0, None
    for name, values in exact.items():
        if name not in outputs or outputs[name].shape != values.shape:
            return {"error": None, "wrong": f"output {name} is missing or has another shape"}
        if values.dtype.kind == "f":
            worst = max(worst, distance(outputs[name].astype(np.float64), values))
        elif not np.array_equal(outputs[name], values):
            wrong = f"{int((outputs[name] != values).sum())} of {values.size} in output {name} differ"
    if worst > WRONG:
        wrong = f"outputs are off by {worst:.1e} of the largest value"
    return {"error": worst if np.isfinite(worst) else None, "wrong": wrong}


# Measuring


class Contest:
    """One model in all engines; a peer that fails is out, with the reason in `failed`."""

    def __init__(self, model, inputs, arguments):
        self.engines = {"rabot": Rabot(arguments.rabot, model, inputs, arguments.options)}
        self.engines |= {peer: PEERS[peer](peer, model, inputs) for peer in arguments.peers}
        self.failed = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for engine in self.engines.values():
            engine.close()

    def ask(self, action):
        """What the engines that are still in answer, by name; without rabot there is nothing to compare."""
        answers = {}
        for name, engine in self.engines.items():
            if name in self.failed:
                continue
            try:
                answers[name] = action(engine)
            except EngineError as error:
                if name == "rabot":
                    raise
                self.failed[name] = str(error)
        return answers


def medians(turns):
    """The median of each figure over the rounds."""
    return {key: statistics.median(figures[key] for figures in turns) for key in turns[0]}


def measure(name, model, inputs, arguments):
    """All figures of one model."""
    exact, no_reference = reference(name, model, inputs, arguments)
    with Contest(model, inputs, arguments) as contest:
        first, rounds = contest.ask(lambda engine: engine.first()), []
        for number in range(arguments.rounds):
            print(f"{name}: round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
            rounds.append(contest.ask(lambda engine: engine.turn(arguments.seconds)))
    engines, ratios = {peer: {"failed": reason} for peer, reason in contest.failed.items()}, {}
    for engine in rounds[-1]:
        outputs, memory = first[engine]
        engines[engine] = medians([answers[engine] for answers in rounds]) | memory
        engines[engine] |= judge(outputs, exact) if exact else {"error": None, "wrong": None}
        if engine != "rabot" and not engines[engine]["wrong"] and not engines["rabot"]["wrong"]:
            turns = [(answers["rabot"]["median_ms"], answers[engine]["median_ms"]) for answers in rounds]
            ratios[engine] = statistics.median(ours / theirs for ours, theirs in turns)
    return {
        "model": name,
        "shapes": {key: list(array.shape) for key, array in load(inputs).items()},
        "engines": engines,
        "ratios": ratios,
        "ratio_to_fastest": max(ratios.values(), default=None),
        "no_reference": no_reference,
        "rounds": rounds,
    }


def cpu_name():
    """The processor, as Linux calls it, and the vector units that matter here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    values = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    units = [unit for unit in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if unit in values.get("flags", "").split()]
    return f"{values.get('model name', platform.machine())} ({' '.join(units)})"


def about(arguments):
    """The machine and the versions."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": cpu_name(),
        "pinned_to": arguments.cpu,
        "rabot": subprocess.run([arguments.rabot, "--version"], capture_output=True, text=True).stdout.strip(),
        "options": arguments.options,
        "peers": arguments.versions,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }


def geometric_mean(values):
    """Of positive numbers, and how many they are; None if there are none."""
    values = [value for value in values if value is not None]
    return {"of": len(values), "mean": float(np.exp(np.mean(np.log(values)))) if values else None}


def measure_all(zoo, arguments):
    """The report on the chosen models; one that fails does not stop the rest."""
    rows, failed = [], {}
    for name in [model["name"] for model in zoo.select(arguments.models)]:
        model, inputs = zoo.model_path(name), zoo.cache / "checks" / name / "inputs-0.npz"
        try:
            for path, script in ((model, "zoo/zoo.py get"), (inputs, "tests/zoo/prepare.py")):
                if not path.exists():
                    raise EngineError(f"{path} is missing: run {script}")
            rows.append(measure(name, model, inputs, arguments))
        except EngineError as error:
            failed[name] = str(error)
    means = {peer: geometric_mean([row["ratios"].get(peer) for row in rows]) for peer in arguments.peers}
    fastest = geometric_mean([row["ratio_to_fastest"] for row in rows])
    return {"about": about(arguments), "means": means, "mean_to_fastest": fastest, "models": rows, "failed": failed}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default=default_cache(), help="cache folder (now: %(default)s)")
    parser.add_argument("--models", nargs="*", default=["*"], metavar="NAME", help="names or patterns (all)")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), help="(all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine (now: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time of a turn (now: %(default)s)")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="run here (now: %(default)s)")
    parser.add_argument("--target", help="accelerator profile for rabot")
    parser.add_argument("--args", default="", help="more arguments for `rabot bench` and `rabot run`, in one string")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "bench" / "results", help="folder (now: %(default)s)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart of the ratios")
    arguments = parser.parse_args()
    arguments.options = (["--target", arguments.target] if arguments.target else []) + shlex.split(arguments.args)
    try:
        arguments.rabot = rabot_path()
        arguments.versions = {peer: version(peer) for peer in arguments.peers}
        os.sched_setaffinity(0, {arguments.cpu})  # the processes started from here inherit it
        report = measure_all(Zoo(REPOSITORY / "zoo", arguments.cache), arguments)
    except (EngineError, ZooError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / time.strftime("peers-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(tables(report)))
    print(f"\nwritten to {path}", file=sys.stderr)
    if arguments.svg:
        arguments.svg.write_text(svg(report))
    wrong = any(row["engines"]["rabot"]["wrong"] for row in report["models"])
    return 1 if report["failed"] or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
