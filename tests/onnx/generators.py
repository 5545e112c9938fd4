"""Nodes of every family, drawn at random: what their specification allows, ONNX's own suite or not.

A generator takes a `Draw` and the name of an operator, and gives a `Node`. It raises `Unfit` for draws that are no
valid node."""

import numpy as np
from drawn import ALL, FLOATS, INTS, NUMBERS, SIGNED, UNSIGNED, Node, Unfit, ints

GENERATORS = {}


def ops(*names):
    def register(function):
        for name in names:
            GENERATORS[name] = function
        return function

    return register


# Elementwise.

RANGES = {
    "Acos": (-1, 1), "Acosh": (1, 9), "Asin": (-1, 1), "Atanh": (-0.9, 0.9), "Log": (0.1, 9), "Sqrt": (0, 9),
    "Tan": (-1.2, 1.2), "Reciprocal": (0.5, 4), "Exp": (-3, 3), "Cosh": (-3, 3), "Sinh": (-3, 3),
}  # fmt: skip


@ops("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "HardSwish",
     "Log", "Mish", "Reciprocal", "Round", "Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan",
     "Tanh")  # fmt: skip
def unary_float(draw, op):
    low, high = RANGES.get(op, (-4, 4))
    return Node(op, [draw.array(draw.of(FLOATS), draw.shape(), low, high)])


@ops("Abs", "Neg", "Sign", "Relu", "Identity")
def unary_number(draw, op):
    dtype = draw.of(FLOATS + SIGNED if op in ("Neg", "Relu") else NUMBERS)
    array = draw.array(dtype, draw.shape())
    return Node(op, [draw.special(array) if op != "Sign" else array])


@ops("Celu", "Elu", "HardSigmoid", "LeakyRelu", "Selu", "ThresholdedRelu", "Swish")
def unary_alpha(draw, op):
    dtype = "float32" if op == "Celu" else draw.of(FLOATS)
    attrs = {"alpha": draw.maybe(draw.int(1, 20) / 8)}
    if op == "HardSigmoid":
        attrs["beta"] = draw.maybe(draw.int(-4, 8) / 8)
    if op == "Selu":
        attrs["gamma"] = draw.maybe(draw.int(1, 16) / 8)
    return Node(op, [draw.array(dtype, draw.shape())], **attrs)


@ops("Gelu")
def gelu(draw, op):
    return Node(op, [draw.array(draw.of(FLOATS), draw.shape())], approximate=draw.maybe(draw.of(["none", "tanh"])))


@ops("Shrink")
def shrink(draw, op):
    attrs = {"lambd": draw.maybe(draw.int(0, 20) / 8), "bias": draw.maybe(draw.int(-8, 8) / 8)}
    return Node(op, [draw.array(draw.of(FLOATS), draw.shape())], **attrs)


@ops("IsNaN", "IsInf")
def is_special(draw, op):
    attrs = {}
    if op == "IsInf":
        attrs = {name: draw.maybe(draw.int(0, 1)) for name in ("detect_negative", "detect_positive")}
    dtype = draw.of(FLOATS if op == "IsNaN" else FLOATS[:2])
    return Node(op, [draw.special(draw.array(dtype, draw.shape()))], **attrs)


@ops("Not", "BitwiseNot")
def unary_bits(draw, op):
    return Node(op, [draw.array("bool" if op == "Not" else draw.of(INTS), draw.shape(), -100, 100)])


@ops("Add", "Sub", "Mul", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
def binary(draw, op):
    dtype = draw.of(NUMBERS + (["bool"] if op == "Equal" else []))
    high = 100 if np.dtype(dtype).kind == "u" and op == "Sub" else 9
    a, b = (draw.array(dtype, shape, -9, high) for shape in draw.pair())
    if op == "Equal" and draw.chance(0.2):
        shapes = draw.pair()
        return Node(op, [draw.strings(shape) for shape in shapes], params=[1])
    return Node(op, [draw.special(a), draw.special(b)], params=[0, 1])


@ops("Div", "Mod")
def division(draw, op):
    dtype = draw.of(NUMBERS)
    a, b = (draw.array(dtype, shape, -20, 20) for shape in draw.pair())
    b = np.where(b == 0, np.ones((), dtype), b)
    attrs = {}
    if op == "Mod":
        fmod = 1 if np.dtype(dtype).kind == "f" else draw.int(0, 1)
        attrs = {"fmod": fmod}
    elif np.dtype(dtype).kind == "f":
        b = np.where(np.abs(b) < 0.3, np.ones((), dtype), b)
    return Node(op, [a, b], params=[1], **attrs)


@ops("Pow")
def power(draw, op):
    dtype = draw.of(["float32", "float64", "int32", "int64"])
    exponent = draw.of(["float32", "float64", "int32", "int64"])
    left, right = draw.pair()
    if np.dtype(dtype).kind == "i":
        return Node(op, [draw.array(dtype, left, -5, 5), draw.array(exponent, right, 0, 4).round().astype(exponent)],
                    params=[1])  # fmt: skip
    return Node(op, [draw.array(dtype, left, 0.2, 4), draw.array(exponent, right, -3, 3)], params=[1])


@ops("And", "Or", "Xor")
def logical(draw, op):
    return Node(op, [draw.array("bool", shape) for shape in draw.pair()], params=[1])


@ops("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(draw, op):
    dtype = draw.of(INTS)
    return Node(op, [draw.array(dtype, shape, -100, 100) for shape in draw.pair()], params=[1])


@ops("BitShift")
def bit_shift(draw, op):
    dtype = draw.of(UNSIGNED)
    left, right = draw.pair()
    return Node(op, [draw.array(dtype, left, 0, 200), draw.array(dtype, right, 0, 7)], params=[1],
                direction=draw.of(["LEFT", "RIGHT"]))  # fmt: skip


@ops("Max", "Min", "Sum", "Mean")
def variadic(draw, op):
    dtype = draw.of(NUMBERS if op in ("Max", "Min") else FLOATS)
    shape = draw.shape()
    count = draw.int(1, 4)
    inputs = [draw.array(dtype, shape)] + [draw.array(dtype, draw.broadcast(shape)) for _ in range(count - 1)]
    return Node(op, inputs, params=range(1, count))


@ops("PRelu")
def prelu(draw, op):
    shape = draw.shape()
    dtype = draw.of(FLOATS)
    return Node(op, [draw.array(dtype, shape), draw.array(dtype, draw.broadcast(shape))], params=[1])


@ops("Where")
def where(draw, op):
    dtype = draw.of(ALL)
    left, right = draw.pair()
    whole = np.broadcast_shapes(left, right)
    values = [draw.special(draw.array(dtype, left)), draw.special(draw.array(dtype, right))]
    if draw.chance(0.15):
        values = [draw.strings(left), draw.strings(right)]
    return Node(op, [draw.array("bool", draw.broadcast(list(whole)))] + values, params=[0, 1, 2])


@ops("Clip")
def clip(draw, op):
    dtype = draw.of(NUMBERS)
    bounds = [draw.maybe(draw.array(dtype, [], -2, 1)), draw.maybe(draw.array(dtype, [], 1, 3))]
    return Node(op, [draw.array(dtype, draw.shape())] + bounds, params=[1, 2])


@ops("Cast")
def cast(draw, op):
    source, target = draw.of(ALL), draw.of(ALL)
    from drawn import code_of

    # What an unsigned type does with negative numbers is for each machine to say.
    low = 0 if np.dtype(target).kind == "u" else -9
    return Node(op, [draw.array(source, draw.shape(), low, 9)], to=code_of(np.zeros(0, target)))


@ops("CastLike")
def cast_like(draw, op):
    source, target = draw.of(ALL), draw.of(ALL)
    low = 0 if np.dtype(target).kind == "u" else -9
    return Node(op, [draw.array(source, draw.shape(), low, 9), draw.array(target, draw.shape())])


# Reductions.


@ops("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
     "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip
def reduce(draw, op):
    floats_only = op in ("ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
    dtype = draw.of(FLOATS if floats_only else FLOATS + ["int32", "int64"])
    empty = 0 if op in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceLogSum", "ReduceLogSumExp") else 0.06
    shape = draw.shape(zero=empty)
    low, high = (0.5, 2) if op in ("ReduceProd", "ReduceLogSum") else (-3, 3)
    axes = draw.maybe(ints(draw.axes(len(shape))), 0.8)
    attrs = {"keepdims": draw.maybe(draw.int(0, 1)), "noop_with_empty_axes": draw.maybe(draw.int(0, 1))}
    return Node(op, [draw.array(dtype, shape, low, high), axes], params=[1], **attrs)


@ops("ArgMax", "ArgMin")
def arg_reduce(draw, op):
    shape = draw.shape(1, 4, zero=0)
    attrs = {"axis": draw.maybe(draw.axis(len(shape))), "keepdims": draw.maybe(draw.int(0, 1))}
    attrs["select_last_index"] = draw.maybe(draw.int(0, 1))
    # Few different numbers, so that there are ties.
    return Node(op, [draw.array(draw.of(NUMBERS), shape, 0, 3).round()], **attrs)


@ops("CumSum", "CumProd")
def cumulate(draw, op):
    shape = draw.shape(1, 4)
    dtype = draw.of(["float32", "float64", "int32", "int64"])
    attrs = {"exclusive": draw.maybe(draw.int(0, 1)), "reverse": draw.maybe(draw.int(0, 1))}
    axis = np.array(draw.axis(len(shape)), dtype=draw.of(["int32", "int64"]))
    return Node(op, [draw.array(dtype, shape, -2, 2), axis], params=[1], **attrs)


@ops("Softmax", "LogSoftmax", "Hardmax")
def softmax(draw, op):
    shape = draw.shape(1, 4, zero=0)
    return Node(op, [draw.array(draw.of(FLOATS), shape)], axis=draw.maybe(draw.axis(len(shape))))


@ops("TopK")
def top_k(draw, op):
    shape = draw.shape(1, 3, most=7, zero=0)
    axis = draw.axis(len(shape))
    attrs = {"axis": axis, "largest": draw.maybe(draw.int(0, 1)), "sorted": 1}
    count = ints([draw.int(0, shape[axis])])
    return Node(op, [draw.array(draw.of(["float32", "float64", "int32", "int64"]), shape, -99, 99), count],
                params=[1], outputs=2, **attrs)  # fmt: skip


# Linear algebra.


def product_shapes(draw, square=False):
    m, k, n = (draw.int(0 if draw.chance(0.1) else 1, 6) for _ in range(3))
    batch = draw.shape(0, 2, most=3)
    left, right = list(batch), draw.broadcast(batch)
    if draw.chance(0.5):
        left, right = right, left
    a, b = left + [m, k], right + [k, n]
    if draw.chance(0.15):
        a = [k]
    if draw.chance(0.15):
        b = [k]
    return a, b


@ops("MatMul")
def mat_mul(draw, op):
    a, b = product_shapes(draw)
    dtype = draw.of(FLOATS + ["int32", "int64", "uint32"])
    return Node(op, [draw.array(dtype, a, -2, 2), draw.array(dtype, b, -2, 2)], params=[1])


@ops("MatMulInteger")
def mat_mul_integer(draw, op):
    a, b = (draw.int(1, 5), draw.int(1, 5), draw.int(1, 5)), draw.shape(0, 2, most=3)
    left, right = draw.of(["int8", "uint8"]), draw.of(["int8", "uint8"])
    x, y = draw.array(left, [*b, a[0], a[1]], -128, 255), draw.array(right, [*b, a[1], a[2]], -128, 255)
    zeros = [draw.maybe(draw.array(left, [], -9, 9)), draw.maybe(draw.array(right, [], -9, 9))]
    return Node(op, [x, y] + zeros, params=[1, 2, 3])


@ops("Gemm")
def gemm(draw, op):
    m, k, n = (draw.int(1, 6) for _ in range(3))
    flip_a, flip_b = draw.int(0, 1), draw.int(0, 1)
    dtype = draw.of(FLOATS[:2])
    a = draw.array(dtype, [k, m] if flip_a else [m, k])
    b = draw.array(dtype, [n, k] if flip_b else [k, n])
    c = draw.maybe(draw.array(dtype, draw.broadcast([m, n])), 0.7)
    return Node(op, [a, b, c], params=[1, 2], transA=flip_a, transB=flip_b,
                alpha=draw.maybe(draw.int(-8, 8) / 4), beta=draw.maybe(draw.int(-8, 8) / 4))  # fmt: skip


@ops("Einsum")
def einsum(draw, op):
    sizes = {letter: draw.int(1, 4) for letter in "ijkl"}
    terms = ["".join(draw.of(list("ijkl")) for _ in range(draw.int(1, 3))) for _ in range(draw.int(1, 3))]
    # A letter twice in a term is a diagonal.
    used = sorted(set("".join(terms)))
    kept = [letter for letter in used if draw.chance(0.6)]
    result = "".join(kept[at] for at in draw.rng.permutation(len(kept)))
    equation = ",".join(terms) + "->" + result
    inputs = [draw.array("float32", [sizes[letter] for letter in term], -2, 2) for term in terms]
    return Node(op, inputs, equation=equation)


@ops("Det")
def det(draw, op):
    size = draw.int(1, 4)
    return Node(op, [draw.array("float64" if draw.chance(0.5) else "float32", draw.shape(0, 2) + [size, size], -2, 2)])


def window(draw, spatial, with_dilation=True):
    kernel = [draw.int(1, 3) for _ in spatial]
    strides = [draw.int(1, 3) for _ in spatial]
    dilations = [draw.int(1, 2) if with_dilation else 1 for _ in spatial]
    for size, k, d in zip(spatial, kernel, dilations):
        if (k - 1) * d + 1 > size:
            raise Unfit("the window is larger than the image")
    pads = [draw.int(0, (k - 1) * d // 2) for k, d in zip(kernel * 2, dilations * 2)]
    return kernel, strides, dilations, pads


@ops("Conv")
def conv(draw, op):
    spatial = [draw.int(3, 7) for _ in range(draw.int(1, 3))]
    kernel, strides, dilations, pads = window(draw, spatial)
    group = draw.of([1, 1, 2, 3])
    inner, outer = draw.int(1, 3), draw.int(1, 3) * group
    x = draw.array("float32", [draw.int(1, 2), inner * group, *spatial], -2, 2)
    w = draw.array("float32", [outer, inner, *kernel], -2, 2)
    b = draw.maybe(draw.array("float32", [outer]))
    attrs = {"strides": draw.maybe(strides), "dilations": draw.maybe(dilations), "group": group}
    if draw.chance(0.25):
        attrs["auto_pad"] = draw.of(["SAME_UPPER", "SAME_LOWER", "VALID"])
        attrs["dilations"] = None
    else:
        attrs["pads"] = pads
    return Node(op, [x, w, b], params=[1, 2], kernel_shape=draw.maybe(kernel), **attrs)


@ops("ConvTranspose")
def conv_transpose(draw, op):
    spatial = [draw.int(2, 5) for _ in range(draw.int(1, 2))]
    kernel, strides = [draw.int(1, 3) for _ in spatial], [draw.int(1, 3) for _ in spatial]
    group = draw.of([1, 1, 2])
    x = draw.array("float32", [draw.int(1, 2), 2 * group, *spatial], -2, 2)
    w = draw.array("float32", [2 * group, draw.int(1, 3), *kernel], -2, 2)
    b = draw.maybe(draw.array("float32", [w.shape[1] * group]))
    attrs = {"strides": strides, "group": group, "pads": [draw.int(0, (k - 1) // 2) for k in kernel * 2]}
    attrs["output_padding"] = draw.maybe([draw.int(0, s - 1) for s in strides], 0.3)
    return Node(op, [x, w, b], params=[1, 2], **attrs)


@ops("MaxPool", "AveragePool", "LpPool")
def pool(draw, op):
    spatial = [draw.int(3, 8) for _ in range(draw.int(1, 3))]
    kernel, strides, dilations, pads = window(draw, spatial)
    attrs = {"kernel_shape": kernel, "strides": draw.maybe(strides), "pads": draw.maybe(pads)}
    attrs["dilations"] = draw.maybe(dilations, 0.4)
    attrs["ceil_mode"] = draw.maybe(draw.int(0, 1), 0.4)
    if op == "AveragePool":
        attrs["count_include_pad"] = draw.maybe(draw.int(0, 1))
    if op == "LpPool":
        attrs["p"] = draw.int(1, 3)
    shape = [draw.int(1, 2), draw.int(1, 3), *spatial]
    return Node(op, [draw.array("float32", shape, -4, 4)], **attrs)


@ops("GlobalAveragePool", "GlobalMaxPool")
def global_pool(draw, op):
    shape = [draw.int(1, 2), draw.int(1, 3), *draw.shape(1, 3, zero=0)]
    return Node(op, [draw.array(draw.of(FLOATS[:2]), shape)])


# Normalization.


@ops("BatchNormalization")
def batch_norm(draw, op):
    channels = draw.int(1, 4)
    shape = [draw.int(1, 3), channels, *draw.shape(0, 3, zero=0)]
    per_channel = [draw.array("float32", [channels]) for _ in range(3)]
    return Node(op, [draw.array("float32", shape), *per_channel, draw.array("float32", [channels], 0.5, 2)],
                params=[1, 2, 3, 4], epsilon=draw.maybe(draw.int(1, 9) / 1000))  # fmt: skip


@ops("InstanceNormalization", "GroupNormalization")
def instance_norm(draw, op):
    groups = draw.int(1, 3)
    channels = groups * draw.int(1, 3)
    shape = [draw.int(1, 2), channels, draw.int(2, 5), *draw.shape(0, 1, zero=0)]
    inputs = [draw.array("float32", shape), draw.array("float32", [channels]), draw.array("float32", [channels])]
    attrs = {"num_groups": groups} if op == "GroupNormalization" else {}
    return Node(op, inputs, params=[1, 2], epsilon=draw.maybe(draw.int(1, 9) / 100), **attrs)


@ops("LayerNormalization", "RMSNormalization")
def layer_norm(draw, op):
    shape = draw.shape(1, 4, zero=0)
    axis = draw.axis(len(shape))
    rest = shape[axis:] if axis < 0 else shape[axis:]
    inputs = [draw.array("float32", shape), draw.array("float32", rest)]
    if op == "LayerNormalization":
        inputs.append(draw.maybe(draw.array("float32", rest)))
    return Node(op, inputs, params=[1, 2], axis=axis, epsilon=draw.maybe(draw.int(1, 9) / 100))


@ops("LpNormalization")
def lp_norm(draw, op):
    shape = draw.shape(1, 4, zero=0)
    return Node(op, [draw.array("float32", shape)], axis=draw.axis(len(shape)), p=draw.int(1, 2))


@ops("MeanVarianceNormalization")
def mean_variance(draw, op):
    shape = [draw.int(2, 3) for _ in range(4)]
    return Node(op, [draw.array("float32", shape)], axes=draw.maybe([0, 2, 3]))


@ops("LRN")
def lrn(draw, op):
    channels = draw.int(1, 6)
    shape = [draw.of([channels, 2]), channels, draw.int(1, 4), draw.int(1, 4)]
    return Node(op, [draw.array("float32", shape)], size=draw.of([1, 3, 5]), alpha=draw.maybe(0.01),
                bias=draw.maybe(2.0))  # fmt: skip


# Movement.


@ops("Transpose")
def transpose(draw, op):
    shape = draw.shape(0, 5)
    perm = [int(a) for a in draw.rng.permutation(len(shape))]
    array = draw.strings(shape) if draw.chance(0.1) else draw.array(draw.of(ALL), shape)
    return Node(op, [array], perm=draw.maybe(perm, 0.8) if perm else None)


@ops("Reshape")
def reshape(draw, op):
    shape = draw.shape(0, 4)
    total = int(np.prod(shape, dtype=np.int64))
    left, target = total, []
    while left > 1 and draw.chance(0.8):
        divisors = [d for d in range(1, left + 1) if left % d == 0]
        target.append(draw.of(divisors))
        left //= target[-1]
    target.append(left)
    if total and draw.chance(0.4):
        target[draw.int(0, len(target) - 1)] = -1
    elif draw.chance(0.4):
        for at in range(min(len(shape), len(target))):
            if shape[at] == target[at]:
                target[at] = 0
    if total == 0:
        target = list(shape)
        if draw.chance(0.5):
            return Node(op, [draw.array("float32", shape), ints(target[::-1])], params=[1], allowzero=1)
    return Node(op, [draw.array(draw.of(ALL), shape), ints(target)], params=[1])


@ops("Squeeze")
def squeeze(draw, op):
    shape = [1 if draw.chance(0.5) else dim for dim in draw.shape(0, 5)]
    ones = [at for at, dim in enumerate(shape) if dim == 1]
    some = [at - len(shape) if draw.chance(0.4) else at for at in ones if draw.chance(0.7)]
    axes = draw.maybe(ints(some), 0.7)
    return Node(op, [draw.array(draw.of(ALL), shape), axes], fixed=[1])


@ops("Unsqueeze")
def unsqueeze(draw, op):
    shape = draw.shape(0, 3)
    count = draw.int(0, 2)
    rank = len(shape) + count
    axes = [int(a) for a in draw.rng.permutation(rank)[:count]]
    axes = [a - rank if draw.chance(0.4) else a for a in axes]
    return Node(op, [draw.array(draw.of(ALL), shape), ints(axes)], fixed=[1])


@ops("Concat")
def concat(draw, op):
    shape = draw.shape(1, 4)
    axis = draw.axis(len(shape))
    dtype, inputs = draw.of(ALL), []
    for _ in range(draw.int(1, 4)):
        part = list(shape)
        part[axis] = draw.int(0, 4)
        inputs.append(draw.array(dtype, part))
    return Node(op, inputs, params=range(1, len(inputs)), axis=axis)


@ops("Split")
def split(draw, op):
    shape = draw.shape(1, 4, most=7, zero=0)
    axis = draw.axis(len(shape))
    array = draw.array(draw.of(ALL), shape)
    if draw.chance(0.5):
        count = draw.int(1, shape[axis])
        # Each part is as large as the first, but for the last one.
        size = -(-shape[axis] // count)
        if size * (count - 1) >= shape[axis]:
            raise Unfit("the last part would be empty")
        return Node(op, [array], outputs=count, axis=axis, num_outputs=count)
    cuts = sorted(draw.int(0, shape[axis]) for _ in range(draw.int(0, 3)))
    parts = np.diff([0, *cuts, shape[axis]])
    return Node(op, [array, ints(parts)], params=[1], outputs=len(parts), axis=axis)


@ops("Slice")
def slice_(draw, op):
    shape = draw.shape(1, 4, most=7)
    axes = draw.axes(len(shape), 1)
    dtype = draw.of(["int32", "int64"])
    starts = [draw.int(-shape[a] - 2, shape[a] + 2) for a in axes]
    ends = [draw.int(-shape[a] - 2, shape[a] + 2) for a in axes]
    far = np.iinfo(dtype)
    ends = [draw.of([far.max, far.min]) if draw.chance(0.15) else end for end in ends]
    steps = [draw.of([1, 1, 2, 3, -1, -2, -3]) for _ in axes]
    as_list = lambda values: np.array(values, dtype=dtype)
    inputs = [draw.array(draw.of(ALL), shape), as_list(starts), as_list(ends), as_list(axes), as_list(steps)]
    return Node(op, inputs, params=[1, 2, 3, 4])


def indices(draw, limit, shape, dtype=None):
    if limit == 0 and np.prod(shape, dtype=np.int64):
        raise Unfit("there is nothing to point to")
    low, high = (-limit, max(limit - 1, -limit))
    return draw.array(dtype or draw.of(["int32", "int64"]), shape, low, high)


@ops("Gather")
def gather(draw, op):
    shape = draw.shape(1, 4)
    axis = draw.axis(len(shape))
    array = draw.strings(shape) if draw.chance(0.1) else draw.array(draw.of(ALL), shape)
    return Node(op, [array, indices(draw, shape[axis], draw.shape(0, 3))], params=[1], axis=axis)


@ops("GatherElements")
def gather_elements(draw, op):
    shape = draw.shape(1, 4, zero=0)
    axis = draw.axis(len(shape))
    where = [draw.int(1, dim) for dim in shape]
    where[axis] = draw.int(0, 5)
    return Node(op, [draw.array(draw.of(ALL), shape), indices(draw, shape[axis], where)], params=[1], axis=axis)


@ops("GatherND")
def gather_nd(draw, op):
    shape = draw.shape(1, 4, zero=0)
    batch = draw.int(0, min(1, len(shape) - 1))
    depth = draw.int(1, len(shape) - batch)
    lead = shape[:batch] + draw.shape(1 - batch, 2, zero=0)
    columns = [indices(draw, shape[batch + at], lead, "int64") for at in range(depth)]
    return Node(op, [draw.array(draw.of(ALL), shape), np.stack(columns, axis=-1)], params=[1], batch_dims=batch)


@ops("ScatterElements")
def scatter_elements(draw, op):
    shape = draw.shape(1, 3, zero=0)
    axis = draw.axis(len(shape))
    where = [draw.int(1, dim) for dim in shape]
    reduction = draw.of(["none", "add", "mul", "max", "min"])
    dtype = draw.of(["float32", "int32", "int64"])
    # Without a reduction, two updates of one element are in no order.
    index = np.argsort(draw.rng.random([*shape]), axis=axis)[tuple(slice(0, n) for n in where)].astype(np.int64)
    updates = draw.array(dtype, index.shape)
    return Node(op, [draw.array(dtype, shape), index, updates], params=[1], axis=axis, reduction=reduction)


@ops("ScatterND")
def scatter_nd(draw, op):
    shape = draw.shape(1, 3, zero=0)
    depth = draw.int(1, len(shape))
    places = int(np.prod(shape[:depth]))
    count = draw.int(1, places)
    chosen = draw.rng.permutation(places)[:count]
    where = np.stack(np.unravel_index(chosen, shape[:depth]), axis=-1).astype(np.int64)
    dtype = draw.of(["float32", "int64"])
    reduction = draw.of(["none", "add", "mul", "max", "min"])
    updates = draw.array(dtype, [count, *shape[depth:]])
    return Node(op, [draw.array(dtype, shape), where, updates], params=[1], reduction=reduction)


@ops("Expand")
def expand(draw, op):
    left, right = draw.pair()
    return Node(op, [draw.array(draw.of(ALL), left), ints(right)], params=[1])


@ops("Tile")
def tile(draw, op):
    shape = draw.shape(0, 4, most=3)
    return Node(op, [draw.array(draw.of(ALL), shape), ints([draw.int(0, 3) for _ in shape])], params=[1])


@ops("Pad")
def pad(draw, op):
    shape = draw.shape(1, 4, zero=0)
    mode = draw.of(["constant", "constant", "edge", "reflect", "wrap"])
    axes = draw.axes(len(shape), 1) if draw.chance(0.5) else list(range(len(shape)))
    sizes = [shape[a] for a in axes]
    low = -1 if mode == "constant" and draw.chance(0.2) else 0
    most = [{"reflect": size - 1, "wrap": size}.get(mode, 3) for size in sizes]
    pads = [draw.int(min(low, high), high) for high in most * 2]
    for at, size in enumerate(sizes):
        if size + min(pads[at], 0) + min(pads[at + len(sizes)], 0) < 0:
            raise Unfit("more is cut off than there is")
    dtype = draw.of(["float32", "float64", "int32", "int64"])
    value = draw.maybe(draw.array(dtype, [])) if mode == "constant" else None
    listed = ints(axes) if axes != list(range(len(shape))) or draw.chance(0.3) else None
    return Node(op, [draw.array(dtype, shape), ints(pads), value, listed], params=[1, 2, 3], mode=mode)


@ops("Flatten")
def flatten(draw, op):
    shape = draw.shape(0, 4)
    return Node(op, [draw.array(draw.of(ALL), shape)], axis=draw.int(-len(shape), len(shape)))


@ops("DepthToSpace", "SpaceToDepth")
def depth_space(draw, op):
    block, n, c, h, w = draw.int(1, 3), draw.int(1, 2), draw.int(1, 3), draw.int(1, 3), draw.int(1, 3)
    if op == "DepthToSpace":
        return Node(op, [draw.array("float32", [n, c * block * block, h, w])], blocksize=block,
                    mode=draw.maybe(draw.of(["DCR", "CRD"])))  # fmt: skip
    return Node(op, [draw.array("float32", [n, c, h * block, w * block])], blocksize=block)


@ops("ReverseSequence")
def reverse_sequence(draw, op):
    shape = draw.shape(2, 4, zero=0)
    batch = draw.int(0, 1)
    lengths = ints([draw.int(1, shape[1 - batch]) for _ in range(shape[batch])])
    return Node(op, [draw.array("float32", shape), lengths], params=[1], batch_axis=batch, time_axis=1 - batch)


@ops("Trilu")
def trilu(draw, op):
    shape = draw.shape(2, 4)
    k = draw.maybe(np.array(draw.int(-6, 6), dtype=np.int64))
    return Node(op, [draw.array(draw.of(ALL), shape), k], params=[1], upper=draw.maybe(draw.int(0, 1)))


@ops("EyeLike")
def eye_like(draw, op):
    return Node(op, [draw.array(draw.of(NUMBERS), draw.shape(2, 2))], k=draw.maybe(draw.int(-3, 3)),
                dtype=draw.maybe(draw.of([1, 7, 11])))  # fmt: skip


@ops("Shape")
def shape_of(draw, op):
    shape = draw.shape(0, 4)
    bound = lambda: draw.maybe(draw.int(-len(shape) - 1, len(shape) + 1))
    return Node(op, [draw.array(draw.of(ALL), shape)], start=bound(), end=bound())


@ops("Size")
def size_of(draw, op):
    return Node(op, [draw.array(draw.of(ALL), draw.shape())])


@ops("Range")
def range_(draw, op):
    dtype = draw.of(["float32", "float64", "int16", "int32", "int64"])
    step = draw.of([1, 2, 3, -1, -2])
    scalar = lambda value: np.array(value, dtype=dtype)
    return Node(op, [scalar(draw.int(-5, 5)), scalar(draw.int(-9, 9)), scalar(step)], params=[0, 1, 2])


@ops("ConstantOfShape")
def constant_of_shape(draw, op):
    from onnx import numpy_helper

    value = draw.maybe(numpy_helper.from_array(draw.array(draw.of(ALL), [1])))
    return Node(op, [ints(draw.shape())], params=[0], value=value)


@ops("OneHot")
def one_hot(draw, op):
    depth = draw.int(1, 5)
    shape = draw.shape(1, 3)
    where = draw.array(draw.of(["int32", "int64", "float32"]), shape, -depth - 1, depth + 1).round()
    dtype = draw.of(["float32", "int32", "int64"])
    size = np.array(depth, dtype=draw.of(["int32", "int64"]))
    return Node(op, [where, size, draw.array(dtype, [2])], params=[1, 2], axis=draw.maybe(draw.axis(len(shape) + 1)))


@ops("NonZero")
def non_zero(draw, op):
    return Node(op, [draw.array(draw.of(["float32", "int64", "bool"]), draw.shape(1, 4), -1, 1).round()
                     if draw.chance(0.9) else draw.array("bool", draw.shape(1, 3))])  # fmt: skip


@ops("Unique")
def unique(draw, op):
    shape = draw.shape(1, 3, zero=0)
    array = draw.array(draw.of(["float32", "int64"]), shape, 0, 2).round()
    return Node(op, [array], outputs=4, axis=draw.maybe(draw.axis(len(shape))), sorted=draw.int(0, 1))


@ops("Compress")
def compress(draw, op):
    shape = draw.shape(1, 3, zero=0)
    axis = draw.maybe(draw.axis(len(shape)), 0.7)
    length = shape[axis] if axis is not None else int(np.prod(shape))
    return Node(op, [draw.array(draw.of(ALL), shape), draw.array("bool", [draw.int(1, length)])], params=[1], axis=axis)


# Quantization.


@ops("QuantizeLinear", "DequantizeLinear")
def quantize(draw, op):
    shape = draw.shape(1, 4, zero=0)
    axis = draw.axis(len(shape))
    count = draw.of([[], [shape[axis]]])
    dtype = draw.of(["int8", "uint8", "int16", "uint16"])
    scale = draw.array("float32", count, 0.05, 0.5)
    zero = draw.array(dtype, count, -9, 9) if op == "DequantizeLinear" or dtype != "uint8" else None
    x = draw.array("float32", shape, -40, 40) if op == "QuantizeLinear" else draw.array(dtype, shape, -300, 300)
    return Node(op, [x, scale, zero], params=[1, 2], axis=axis)


@ops("QLinearMatMul", "QLinearConv")
def quantized_product(draw, op):
    left, right, result = (draw.of(["int8", "uint8"]) for _ in range(3))
    scale = lambda count=(): draw.array("float32", count, 0.01, 0.1)
    zero = lambda dtype: draw.array(dtype, [], -9, 9)
    if op == "QLinearMatMul":
        m, k, n = (draw.int(1, 6) for _ in range(3))
        x, w = draw.array(left, [m, k], -128, 255), draw.array(right, [k, n], -128, 255)
        inputs = [x, scale(), zero(left), w, scale(), zero(right), scale(), zero(result)]
        return Node(op, inputs, params=[1, 2, 3, 4, 5, 6, 7])
    spatial = [draw.int(3, 6), draw.int(3, 6)]
    kernel, strides, dilations, pads = window(draw, spatial)
    x, outer = draw.array(left, [1, 2, *spatial], -128, 255), draw.int(1, 3)
    w = draw.array(right, [outer, 2, *kernel], -128, 255)
    bias = draw.maybe(draw.array("int32", [outer], -500, 500))
    inputs = [x, scale(), zero(left), w, scale(), zero(right), scale(), zero(result), bias]
    return Node(op, inputs, params=[1, 2, 3, 4, 5, 6, 7, 8], pads=pads, strides=strides, dilations=dilations)


@ops("DynamicQuantizeLinear")
def dynamic_quantize(draw, op):
    return Node(op, [draw.array("float32", draw.shape(1, 3, zero=0), draw.of([-4, 1]), draw.of([4, 8]))], outputs=3)


# Recurrent.


@ops("LSTM", "GRU", "RNN")
def recurrent(draw, op):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    steps, batch, size, hidden = draw.int(1, 4), draw.int(1, 3), draw.int(1, 4), draw.int(1, 4)
    array = lambda *shape: draw.array("float32", shape, -1, 1)
    inputs = [array(steps, batch, size), array(1, gates * hidden, size), array(1, gates * hidden, hidden)]
    inputs.append(draw.maybe(array(1, 2 * gates * hidden)))
    attrs = {"hidden_size": hidden}
    if op == "GRU":
        attrs["linear_before_reset"] = draw.int(0, 1)
    return Node(op, inputs, params=[1, 2, 3], outputs=3 if op == "LSTM" else 2, **attrs)


# Images.


@ops("Resize")
def resize(draw, op):
    shape = [1, draw.int(1, 2), draw.int(2, 5), draw.int(2, 5)]
    sizes = ints(shape[:2] + [draw.int(1, 9), draw.int(1, 9)])
    mode = draw.of(["nearest", "linear", "cubic"])
    how = draw.of(["half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"])
    attrs = {"mode": mode, "coordinate_transformation_mode": how}
    if mode == "nearest":
        attrs["nearest_mode"] = draw.of(["round_prefer_floor", "floor", "ceil", "round_prefer_ceil"])
    else:
        attrs["antialias"] = draw.maybe(draw.int(0, 1), 0.3)
    x = draw.array("float32", shape)
    if draw.chance(0.3):
        factors = np.array([1, 1, draw.int(1, 3), draw.int(1, 3)], dtype=np.float32)
        return Node(op, [x, None, factors], params=[2], **attrs)
    return Node(op, [x, None, None, sizes], fixed=[3], **attrs)


@ops("GridSample")
def grid_sample(draw, op):
    n, c = draw.int(1, 2), draw.int(1, 2)
    x = draw.array("float32", [n, c, draw.int(2, 5), draw.int(2, 5)])
    grid = draw.array("float32", [n, draw.int(1, 4), draw.int(1, 4), 2], -1.3, 1.3)
    return Node(op, [x, grid], mode=draw.of(["linear", "nearest", "cubic"]),
                padding_mode=draw.of(["zeros", "border", "reflection"]), align_corners=draw.int(0, 1))  # fmt: skip


@ops("AffineGrid")
def affine_grid(draw, op):
    n = draw.int(1, 2)
    size = ints([n, 1, draw.int(2, 4), draw.int(2, 4)])
    return Node(op, [draw.array("float32", [n, 2, 3]), size], fixed=[1], align_corners=draw.int(0, 1))


@ops("CenterCropPad")
def center_crop_pad(draw, op):
    shape = draw.shape(1, 4, zero=0)
    axes = draw.maybe(draw.axes(len(shape), 1))
    count = len(axes) if axes is not None else len(shape)
    return Node(op, [draw.array("float32", shape), ints([draw.int(1, 7) for _ in range(count)])], params=[1], axes=axes)


@ops("HannWindow", "HammingWindow", "BlackmanWindow")
def window_function(draw, op):
    return Node(op, [np.array(draw.int(2, 12), dtype=np.int64)], params=[0], periodic=draw.int(0, 1))


@ops("DFT")
def dft(draw, op):
    shape = [draw.int(1, 2), draw.int(2, 8), draw.int(2, 5)]
    axis = np.array(draw.int(0, 1) + 1 if draw.chance(0.8) else -2, dtype=np.int64)
    return Node(op, [draw.array("float32", [*shape, 2]), None, axis], fixed=[2], inverse=draw.int(0, 1))


# Losses.


@ops("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(draw, op):
    n, c, rest = draw.int(1, 3), draw.int(2, 5), draw.shape(0, 2, zero=0)
    target = draw.array("int64", [n, *rest], 0, c - 1)
    weight = draw.maybe(draw.array("float32", [c], 0.2, 2))
    reduction = draw.of(["none", "mean", "sum"])
    return Node(op, [draw.array("float32", [n, c, *rest], -3, 0), target, weight], params=[2], reduction=reduction,
                ignore_index=draw.maybe(draw.int(0, c - 1), 0.3))  # fmt: skip


# Text.


@ops("StringConcat")
def string_concat(draw, op):
    return Node(op, [draw.strings(shape) for shape in draw.pair()], params=[1])


@ops("StringSplit")
def string_split(draw, op):
    array = draw.strings(draw.shape(1, 2, zero=0))
    return Node(op, [array], outputs=2, delimiter=draw.maybe(draw.of(["a", "B", " "])), maxsplit=draw.maybe(draw.int(0, 2)))


@ops("RegexFullMatch")
def regex(draw, op):
    return Node(op, [draw.strings(draw.shape())], pattern=draw.of(["[ab]*", "a.*", ".?1?", "é|A+"]))


# Sequences.


def sequence(draw):
    return [draw.array("float32", draw.shape(1, 3)) for _ in range(draw.int(1, 4))]


@ops("SequenceAt", "SequenceErase")
def sequence_at(draw, op):
    values = sequence(draw)
    at = np.array(draw.int(-len(values), len(values) - 1), dtype=draw.of(["int32", "int64"]))
    return Node(op, [values, at], params=[1])


@ops("SequenceInsert")
def sequence_insert(draw, op):
    values = sequence(draw)
    at = draw.maybe(np.array(draw.int(-len(values), len(values)), dtype=np.int64))
    return Node(op, [values, draw.array("float32", draw.shape(1, 3)), at], params=[2])


@ops("SequenceLength")
def sequence_length(draw, op):
    return Node(op, [sequence(draw)])


@ops("SequenceConstruct")
def sequence_construct(draw, op):
    return Node(op, sequence(draw))


@ops("ConcatFromSequence")
def concat_from_sequence(draw, op):
    shape = draw.shape(1, 3)
    values = [draw.array("float32", shape) for _ in range(draw.int(1, 3))]
    new = draw.int(0, 1)
    return Node(op, [values], axis=draw.axis(len(shape) + new), new_axis=new)


@ops("SplitToSequence")
def split_to_sequence(draw, op):
    shape = draw.shape(1, 3, zero=0)
    axis = draw.axis(len(shape))
    cut = draw.int(0, shape[axis])
    sizes = draw.of([None, np.array(draw.int(1, shape[axis]), dtype=np.int64), ints([cut, shape[axis] - cut])])
    return Node(op, [draw.array("float32", shape), sizes], params=[1], axis=axis,
                keepdims=draw.int(0, 1) if sizes is None else None)  # fmt: skip


# The domain ai.onnx.ml.


@ops("Binarizer", "Normalizer", "Scaler")
def ml_numbers(draw, op):
    shape = [draw.int(1, 4), draw.int(1, 4)]
    attrs = {}
    if op == "Binarizer":
        attrs = {"threshold": draw.int(-4, 4) / 2}
    elif op == "Normalizer":
        attrs = {"norm": draw.of(["MAX", "L1", "L2"])}
    else:
        attrs = {name: [draw.int(1, 9) / 4 for _ in range(shape[1])] for name in ("offset", "scale")}
    return Node(op, [draw.array("float32", shape)], domain="ai.onnx.ml", **attrs)


@ops("ArrayFeatureExtractor")
def array_feature_extractor(draw, op):
    shape = [draw.int(1, 4), draw.int(1, 5)]
    picked = draw.array("int64", [1, draw.int(1, 4)], 0, shape[1] - 1)
    return Node(op, [draw.array("float32", shape), picked], params=[1], domain="ai.onnx.ml")


@ops("LabelEncoder")
def label_encoder(draw, op):
    return Node(op, [draw.array("int64", draw.shape(), 0, 5)], domain="ai.onnx.ml", keys_int64s=[1, 2, 4],
                values_floats=[0.5, 1.5, 2.5], default_float=-1.0)  # fmt: skip
