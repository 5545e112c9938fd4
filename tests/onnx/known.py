"""Where ONNX's reference evaluator is wrong, or says what the specification leaves open; and what rabot says it cannot
do."""

import numpy as np


def is_double(node):
    return node.inputs[0].dtype == np.float64


def narrow_integers(node):
    return node.inputs[0].dtype in (np.int32, np.int16, np.int8)


def at_the_end(node):
    """Whether the position is that behind the last element."""
    values, _, position = node.inputs
    return position is not None and position == len(values)


def pads_without_strides(node):
    return any(node.attrs.get("pads", [])) and "strides" not in node.attrs


def ends_before_the_start(node):
    return node.attrs.get("end", 0) < -node.inputs[0].ndim


# Operator, a function that is true for nodes of which the evaluator cannot be the judge, and why.
RULES = [
    ("AveragePool", lambda node: node.attrs.get("ceil_mode"), "divides by the wrong count in the last windows"),
    ("LpPool", lambda node: node.attrs.get("ceil_mode"), "counts elements twice in the last windows"),
    ("GlobalMaxPool", lambda node: node.inputs[0].ndim != 4, "takes axes 2 and 3 to be all that is spatial"),
    ("HardSwish", is_double, "uses the function body, whose constants are f32"),
    ("LRN", lambda node: node.inputs[0].shape[0] != node.inputs[0].shape[1], "sums as many channels as the batch has images"),
    ("LpNormalization", lambda node: node.attrs["p"] == 1, "sums elements, not their sizes"),
    ("LpNormalization", lambda node: node.attrs["axis"] == 0, "takes axis 0 to be the default"),
    ("MaxPool", pads_without_strides, "mixes up the pads where strides are not given"),
    ("Normalizer", lambda node: node.attrs["norm"] == "MAX", "divides by the largest size, not by the maximum"),
    ("Normalizer", lambda node: not np.all(np.any(node.inputs[0], axis=1)), "divides by 1e-30 where it would be 0"),
    ("ReduceSumSquare", narrow_integers, "gives i64 for narrower integers"),
    ("SequenceInsert", at_the_end, "takes the end to be the beginning"),
    ("Shape", ends_before_the_start, "counts an end before the first dim from the last one again"),
    ("Unique", lambda node: not node.attrs["sorted"], "takes elements of axis 0, whichever the axis is"),
    ("Gelu", is_double, "loses digits of large negative numbers"),
]

# Operator, the operator set from which on this no longer holds, and why the evaluator is no judge of older nodes.
OLDER = [
    ("BatchNormalization", 14, "mixes in the statistics of the batch, as in training"),
    ("GridSample", 20, "takes the names of modes that came later"),
    ("Hardmax", 13, "takes one axis, not all from it on"),
    ("LogSoftmax", 13, "takes one axis, not all from it on"),
    ("Softmax", 13, "takes one axis, not all from it on"),
]

# Operator, and a part of what rabot says of models that it refuses.
LIMITS = [
    ("Squeeze", "may be 1; give the axes"),
]


def known(node, opset):
    """Why the evaluator is no judge of this node, or None. `opset` is None for the newest operator set."""
    older = (why for op, before, why in OLDER if op == node.op and opset is not None and opset < before)
    reasons = (why for op, applies, why in RULES if op == node.op and applies(node))
    return next(older, None) or next(reasons, None)


def is_limit(op, reason):
    """True if rabot is known to refuse such a model, and says so."""
    return any(op == limited and part in reason for limited, part in LIMITS)
