"""Compares recurrent layers with ONNX Runtime, as microsoft.py does for other operators.

    python recurrent.py RABOT DIR

Lengths up to 5 are written out step by step, those of 37 are a scan.
"""

import sys

import numpy as np
from microsoft import Case, main, numbers

PARAMETERS = {
    "Affine": 2, "Elu": 1, "HardSigmoid": 2, "LeakyRelu": 1, "Relu": 0, "ScaledTanh": 2, "Sigmoid": 0, "Softplus": 0,
    "Softsign": 0, "Tanh": 0, "ThresholdedRelu": 1,
}  # fmt: skip
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}


def activations(random, count):
    """Names drawn at random, and the parameters of those that have some."""
    names = [str(name) for name in random.choice(list(PARAMETERS), count)]
    drawn = {"activations": names}
    for attribute, least in [("activation_alpha", 1), ("activation_beta", 2)]:
        count = sum(PARAMETERS[name] >= least for name in names)
        if count:
            drawn[attribute] = [float(value) for value in random.uniform(0.1, 0.6, count)]
    return drawn


def layers():
    x, random = numbers(11)
    maybe = lambda value, chance=0.5: value if random.random() < chance else None
    for op, gates in GATES.items():
        for index in range(30):
            long = index % 4 == 0
            length = 37 if long else int(random.integers(1, 6))
            direction = ["forward", "reverse", "bidirectional"][index % 3]
            count = 2 if direction == "bidirectional" else 1
            batch, width, hidden = int(random.integers(1, 4)), 3, 4
            inputs = [x(length, batch, width), x(count, gates * hidden, width), x(count, gates * hidden, hidden)]
            inputs.append(maybe(x(count, 2 * gates * hidden), 0.7))
            inputs.append(maybe(random.integers(1, length + 1, batch).astype(np.int32)))
            inputs.append(maybe(x(count, batch, hidden)))
            extra = {"hidden_size": hidden, "direction": direction}
            outputs = ["y", "h"]
            if op == "LSTM":
                inputs += [maybe(x(count, batch, hidden)), maybe(x(count, 3 * hidden))]
                outputs.append("c")
                extra["input_forget"] = int(random.random() < 0.3)
            if op == "GRU":
                extra["linear_before_reset"] = int(random.random() < 0.5)
            if random.random() < 0.4:
                extra["clip"] = float(random.choice([0.2, 0.5, 1.0]))
            # Over many steps, activations without bounds diverge.
            if not long and random.random() < 0.6:
                extra |= activations(random, ACTIVATIONS[op] * count)
            while inputs[-1] is None:
                inputs.pop()
            name = f"{op.lower()}_{index}"
            yield Case(name, op, inputs, outputs, domain="", constant=(1, 2, 3, 7), tolerance=(1e-3, 1e-5), **extra)


if __name__ == "__main__":
    main([layers], *sys.argv[1:])
