"""Makes real inputs for every model, with ONNX Runtime's outputs.

    python3 prepare.py [--cache DIR] [--models NAME ...]

Needs what `zoo/zoo.py get --all` and `zoo/zoo.py data` put into the cache, and the packages of
zoo/requirements-check.txt. Writes CACHE/checks/NAME/inputs-N.npz (keys are input names) and
outputs-N.npz (float32, one thread, default optimizations) for each case N of cases.py, and for
the models of exact.py exact-N.npz, computed in float64.
"""

import argparse
import sys

import numpy as np
import onnxruntime

from cases import CASES, select
from engines import Cache, EngineError, ZooError, add_options, open_zoo
from exact import UNSTABLE, exact_outputs
from zoo import staging


def describe(arrays):
    """Shapes, the first three of them."""
    shapes = [f"{name} {list(array.shape)}" for name, array in arrays.items()]
    return ", ".join(shapes[:3]) + (f" and {len(shapes) - 3} more" if len(shapes) > 3 else "")


def prepare(cache, name):
    """Write the cases of one model."""
    model = cache.reference(name)
    inputs = CASES[name](cache, model)
    with staging(cache.checks(name)) as folder:
        for index, (feeds, results) in enumerate(zip(inputs, model.run_all(inputs))):
            np.savez(folder / f"inputs-{index}.npz", **feeds)
            np.savez(folder / f"outputs-{index}.npz", **results)
            print(f"{name} {index}: {describe(feeds)} -> {describe(results)}", flush=True)
        if name in UNSTABLE:
            for index, results in enumerate(exact_outputs(model.path, inputs)):
                np.savez(folder / f"exact-{index}.npz", **results)


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    arguments = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}")
    try:
        for name in select(arguments.models):
            prepare(Cache(open_zoo(arguments.cache)), name)
    except (ZooError, EngineError) as error:
        return f"prepare: {error}"


if __name__ == "__main__":
    sys.exit(main())
