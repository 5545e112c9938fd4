"""Taps every value of each model of the zoo and wants the model's outputs to keep every bit.

    python3 taps.py [--models NAME ...] [--target T]

Runs `rabot run --tap-all` on the first case that prepare.py stores for each model. `rabot` compares the
outputs of the program with taps with those of the program without, and says so by its exit code.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from cases import select
from compare import stored_cases
from engines import Cache, EngineError, ZooError, add_rabot_options, call, open_zoo, rabot_options, rabot_path


def tap(cache, name, options):
    """Number of values tapped in a model; an error if a tap changes an output."""
    case = stored_cases(cache.checks(name))[0]
    with tempfile.TemporaryDirectory(prefix="rabot-") as scratch:
        source, target = Path(scratch, "inputs.npz"), Path(scratch, "taps.npz")
        np.savez(source, **case.inputs)
        call([rabot_path(), "run", cache.path(name), "--inputs", source, "--tap-all", "--taps", target, *options])
        with np.load(target) as taps:
            return len(taps.files)


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rabot_options(parser)
    arguments = parser.parse_args()
    try:
        cache = Cache(open_zoo(arguments.cache))
        names = select(arguments.models)
        wrong = 0
        for name in names:
            try:
                print(f"{name:28} {tap(cache, name, rabot_options(arguments, None)):5} values tapped")
            except EngineError as error:
                wrong += 1
                print(f"{name:28} WRONG {error}")
        print(f"{len(names) - wrong} of {len(names)} models keep every bit of their outputs with all values tapped")
        return 1 if wrong else 0
    except (ZooError, EngineError) as error:
        print(f"taps: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
