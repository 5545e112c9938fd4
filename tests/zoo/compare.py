"""Runs `rabot` on every stored case and compares its outputs with ONNX Runtime's.

    python3 compare.py [--models NAME ...] [--target T] [--threads N] [--bits]

Needs the cases that prepare.py stores, and `rabot` (the RABOT variable, or target/release/rabot).
Right means max|a-b| <= 1e-4 * max|b| for every floating-point output, and equality for all
others. Where prepare.py stored a float64 answer too, an output is also right if it is at most
twice as far from that as ONNX Runtime's is ("exact" in the table).
--bits runs with one, two and three threads and wants the same bits from each.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cases import select
from engines import Cache, EngineError, ZooError, add_rabot_options, load, open_zoo, rabot_options, rabot_run

TOLERANCE = 1e-4
EXACT_FACTOR = 2  # two sums rounded in different orders: either may be the luckier one
BITS_THREADS = (1, 2, 3)


@dataclass
class Difference:
    """How far an output is from the expected one; `error` is relative to the largest expected value."""

    error: float
    note: str = ""
    excused: bool = False

    @property
    def right(self):
        """Within the tolerance, or excused by the exact answer?"""
        return self.excused or self.error <= TOLERANCE


@dataclass
class Case:
    """Stored inputs and outputs; `exact` is empty for most."""

    number: str
    inputs: dict
    outputs: dict
    exact: dict


def distance(actual, expected):
    """Largest difference over the largest expected value."""
    furthest, largest = np.abs(actual - expected).max(initial=0), np.abs(expected).max(initial=0)
    if furthest == 0:
        return 0.0
    return float(furthest / largest) if largest else np.inf


def difference(actual, expected):
    """Compare two arrays."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        kinds = (f"{array.dtype}{list(array.shape)}" for array in (actual, expected))
        return Difference(np.inf, "is {}, not {}".format(*kinds))
    if expected.dtype.kind != "f":
        wrong = int((actual != expected).sum())
        return Difference(np.inf, f"{wrong} of {expected.size} differ") if wrong else Difference(0.0)
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return Difference(np.inf, "differs where it is not finite")
    if not np.isfinite(actual[finite]).all():
        return Difference(np.inf, "is not finite")
    return Difference(distance(actual[finite].astype(np.float64), expected[finite].astype(np.float64)))


def judge(actual, expected, exact):
    """Compare two arrays; where they differ, the exact one may excuse the first."""
    found = difference(actual, expected)
    if found.right or exact is None or found.note:
        return found
    ours, theirs = (distance(array.astype(np.float64), exact) for array in (actual, expected))
    note = f"exact: off by {ours:.1e}, onnxruntime by {theirs:.1e}"
    return Difference(found.error, note, excused=ours <= max(EXACT_FACTOR * theirs, TOLERANCE))


def worst(results, case):
    """The output that is farthest off, as (name, difference)."""
    missing = sorted(case.outputs.keys() - results.keys())
    if missing:
        return missing[0], Difference(np.inf, "is missing")
    differences = {
        name: judge(results[name], expected, case.exact.get(name)) for name, expected in case.outputs.items()
    }
    return max(differences.items(), key=lambda item: (not item[1].right, item[1].error))


def same_bits(results, others):
    """Whether two runs gave the same bytes."""
    return results.keys() == others.keys() and all(
        array.tobytes() == others[name].tobytes() for name, array in results.items()
    )


def stored_cases(folder):
    """The stored cases of a model."""
    numbers = sorted(int(path.stem.split("-")[1]) for path in Path(folder).glob("inputs-*.npz"))
    if not numbers:
        raise EngineError(f"{folder} has no cases: run prepare.py")
    cases = []
    for number in numbers:
        inputs, outputs, exact = (folder / f"{kind}-{number}.npz" for kind in ("inputs", "outputs", "exact"))
        cases.append(Case(str(number), load(inputs), load(outputs), load(exact) if exact.exists() else {}))
    return cases


def compare_model(cache, name, arguments):
    """Rows (model, case, output, difference) of one model."""
    cases = stored_cases(cache.checks(name))
    inputs = [case.inputs for case in cases]
    threads = BITS_THREADS if arguments.bits else (arguments.threads,)
    first, *others = (rabot_run(cache.path(name), inputs, rabot_options(arguments, count)) for count in threads)
    rows = []
    for index, case in enumerate(cases):
        output, found = worst(first[index], case)
        for count, results in zip(threads[1:], others):
            if not same_bits(first[index], results[index]):
                found = Difference(np.inf, f"{count} threads give other bits than {threads[0]}")
        rows.append((name, case.number, output, found))
    return rows


def compare(cache, arguments):
    """Rows of all chosen models; a model that does not run at all has one row."""
    for name in select(arguments.models):
        progress(name)
        try:
            yield from compare_model(cache, name, arguments)
        except EngineError as error:
            yield name, "-", "-", Difference(np.inf, str(error))
    progress("")


def progress(text):
    """Show what is being done, where there is a person to see it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def show(rows):
    """Print the table, worst first; returns the number of wrong rows."""
    print(f"{'model':28} {'case':>4} {'error':>9}       worst output")
    for name, number, output, found in sorted(rows, key=lambda row: (row[3].right, -row[3].error)):
        verdict = "exact" if found.excused else "ok" if found.right else "WRONG"
        print(f"{name:28} {number:>4} {found.error:9.1e} {verdict:5} {output} {found.note}".rstrip())
    wrong = sum(not row[3].right for row in rows)
    print(f"{len(rows) - wrong} of {len(rows)} cases right (within {TOLERANCE:g} of the largest value, or exact)")
    return wrong


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rabot_options(parser)
    parser.add_argument("--threads", type=int, help="number of threads (rabot's default)")
    parser.add_argument("--bits", action="store_true", help="1, 2 and 3 threads must give the same bits")
    arguments = parser.parse_args()
    try:
        return 1 if show(list(compare(Cache(open_zoo(arguments.cache)), arguments))) else 0
    except (ZooError, EngineError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
