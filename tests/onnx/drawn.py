"""Random values, shapes and models of one node, drawn from a seed."""

import zlib

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOATS = ["float32", "float64", "float16"]
SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]
INTS = SIGNED + UNSIGNED
NUMBERS = FLOATS + INTS
ALL = NUMBERS + ["bool"]

OPSET = {"": 28, "ai.onnx.ml": 5}


class Unfit(Exception):
    """What was drawn cannot be made into a case."""


class Draw:
    """Draws for the case `number` of an operator."""

    def __init__(self, op, seed, number):
        self.rng = np.random.default_rng([seed, zlib.crc32(op.encode()), number])

    def int(self, low, high):
        """A number from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability):
        return bool(self.rng.random() < probability)

    def of(self, values):
        return values[self.int(0, len(values) - 1)]

    def maybe(self, value, probability=0.5):
        return value if self.chance(probability) else None

    def shape(self, low=0, high=4, most=5, zero=0.06):
        """Dims, `low` to `high` of them; sometimes one is 0 or 1."""
        rank = self.int(low, high)
        return [0 if self.chance(zero) else self.int(1, most) for _ in range(rank)]

    def array(self, dtype, shape, low=-4.0, high=4.0):
        """Numbers between the bounds; integers within those of their type."""
        dtype = np.dtype(dtype)
        if dtype == bool:
            return self.rng.random(shape) < 0.5
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            low, high = max(int(np.ceil(low)), info.min), min(int(np.floor(high)), info.max)
            return self.rng.integers(low, high, size=shape, endpoint=True).astype(dtype)
        return np.asarray(self.rng.uniform(low, high, size=shape)).astype(dtype)

    def special(self, array):
        """Sometimes a few elements become NaN, infinite or a zero with a sign."""
        array = np.asarray(array)
        if array.dtype.kind == "f" and array.size and self.chance(0.3):
            array = array.copy()
            for value in [np.nan, np.inf, -np.inf, -0.0]:
                array.flat[self.int(0, array.size - 1)] = value
        return array

    def broadcast(self, shape):
        """A shape that spreads to this one: leading dims dropped, others 1."""
        cut = self.int(0, len(shape))
        return [1 if self.chance(0.3) else dim for dim in shape[cut:]]

    def pair(self):
        """Two shapes that spread to a common one."""
        shape = self.shape()
        pair = [shape, self.broadcast(shape)]
        pair[0] = [1 if self.chance(0.15) else dim for dim in shape]
        # A dim of 0 does not go with any other but 1 and 0.
        return pair if self.chance(0.5) else pair[::-1]

    def axis(self, rank):
        """An axis of a tensor, counted from either end."""
        axis = self.int(0, rank - 1)
        return axis - rank if self.chance(0.4) else axis

    def axes(self, rank, least=0):
        """Different axes in any order, counted from either end."""
        count = self.int(least, rank)
        axes = [int(a) for a in self.rng.permutation(rank)[:count]]
        return [a - rank if self.chance(0.4) else a for a in axes]

    def letters(self, length=4):
        return "".join(self.of(list("abAB é1 ")) for _ in range(self.int(0, length)))

    def strings(self, shape):
        count = int(np.prod(shape, dtype=np.int64))
        return np.array([self.letters() for _ in range(count)], dtype=object).reshape(shape)


class Node:
    """A node with values for its inputs; `None` for one that is absent, a list for a sequence.

    Inputs in `params` may be constants; those in `fixed` always are."""

    def __init__(self, op, inputs, params=(), fixed=(), outputs=1, domain="", **attrs):
        self.op, self.inputs, self.outputs, self.domain = op, inputs, outputs, domain
        self.params, self.fixed = params, fixed
        self.attrs = {name: value for name, value in attrs.items() if value is not None}


def ints(values):
    return np.array(values, dtype=np.int64)


def code_of(array):
    if array.dtype == object or array.dtype.kind in "US":
        return TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def type_of(value, shape):
    if isinstance(value, list):
        code = code_of(np.asarray(value[0])) if value else TensorProto.FLOAT
        return helper.make_sequence_type_proto(helper.make_tensor_type_proto(code, None))
    return helper.make_tensor_type_proto(code_of(value), shape)


def proto_of(value):
    if isinstance(value, list):
        return numpy_helper.from_list(value)
    return numpy_helper.from_array(np.asarray(value))


def draw_constants(draw, node):
    """Which inputs are constants: fixed ones, and most of those that may be."""
    may = [slot for slot in node.params if slot not in node.fixed and draw.chance(0.75)]
    return set(node.fixed) | set(may)


def model_of(draw, node, constants, opset=None):
    """The model, and the values of its inputs by name."""
    names, initializers, infos, feeds = [], [], [], {}
    symbolic = draw.chance(0.3)
    for slot, value in enumerate(node.inputs):
        name = f"x{slot}" if value is not None else ""
        names.append(name)
        if value is None:
            continue
        if slot in constants and not isinstance(value, list):
            initializers.append(numpy_helper.from_array(np.asarray(value), name))
            continue
        shape = None if isinstance(value, list) else list(value.shape)
        if symbolic and shape is not None and slot not in node.params:
            # A dim of 1 may spread to another one, which a file must say; two names mean equal dims there.
            shape = [dim if dim == 1 else f"{name}_{at}" for at, dim in enumerate(shape)]
        infos.append(helper.make_value_info(name, type_of(value, shape)))
        feeds[name] = value
    outputs = [f"y{at}" for at in range(node.outputs)]
    made = helper.make_node(node.op, names, outputs, domain=node.domain, name=node.op, **node.attrs)
    # Types of outputs are told by the evaluation; a model of which they are unknown is only for the evaluator.
    declared = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([made], node.op, infos, declared, initializers)
    versions = dict(OPSET) if opset is None else {"": opset}
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=11), feeds


def declare_outputs(model, values):
    for info, value in zip(model.graph.output, values, strict=True):
        info.type.CopyFrom(type_of(value, None))
