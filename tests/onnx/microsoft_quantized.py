"""Quantized operators of com.microsoft: random configurations, against ONNX Runtime.

    python microsoft_quantized.py RABOT DIR [SEED] [COUNT]

writes cases of one node each below DIR, in the layout of ONNX's suite, with what ONNX Runtime gives, and runs
`RABOT onnx-test` on them: compiled, and with --reference. Quantized results may be one step apart, where the exact
value is half way between two; floats as far as f32 sums are.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    np.dtype("float32"): TensorProto.FLOAT,
    np.dtype("float16"): TensorProto.FLOAT16,
    np.dtype("uint8"): TensorProto.UINT8,
    np.dtype("int8"): TensorProto.INT8,
    np.dtype("uint16"): TensorProto.UINT16,
    np.dtype("int16"): TensorProto.INT16,
    np.dtype("int32"): TensorProto.INT32,
    np.dtype("bool"): TensorProto.BOOL,
}


class Case:
    """A node in the making: operands in order, which of them are constants, attributes."""

    def __init__(self, op, rng, domain="com.microsoft"):
        self.op, self.rng, self.domain = op, rng, domain
        self.operands, self.constant, self.attrs = [], [], {}
        self.outputs, self.rtol, self.atol, self.steps = 1, 1e-5, 1e-6, 1

    def add(self, value, constant=True):
        self.operands.append(None if value is None else np.asarray(value))
        self.constant.append(constant)
        return value

    def bytes(self, dtype, shape, constant=False):
        info = np.iinfo(dtype)
        return self.add(self.rng.integers(info.min, info.max, size=shape, endpoint=True).astype(dtype), constant)

    def scale(self, shape=(), low=0.005, high=0.05, dtype=np.float32):
        return self.add(self.rng.uniform(low, high, size=shape).astype(dtype))

    def zero(self, dtype, shape=(), optional=False):
        if optional and self.rng.random() < 0.2:
            return self.add(None)
        info = np.iinfo(dtype)
        middle = (info.min + info.max + 1) // 2
        return self.add((middle + self.rng.integers(-20, 21, size=shape)).astype(dtype))

    def model(self, widened=False):
        """The node; `widened`, its result goes through `Cast` to float, whose tolerance is then one of steps."""
        names = [f"i{at}" if value is not None else "" for at, value in enumerate(self.operands)]
        # Names at the end stay even if they are empty: ONNX Runtime reads some without looking whether they are there.
        outputs = [f"y{at}" for at in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, domain=self.domain, name="node", **self.attrs)
        given = list(zip(names, self.operands, self.constant, strict=True))
        inputs = [
            helper.make_tensor_value_info(name, TYPES[value.dtype], value.shape)
            for name, value, constant in given
            if name and not constant
        ]
        weights = [numpy_helper.from_array(value, name) for name, value, constant in given if name and constant]
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        nodes = [node]
        if widened:
            node.output[0] = "narrow"
            nodes.append(helper.make_node("Cast", ["narrow"], [outputs[0]], to=TensorProto.FLOAT))
        graph = helper.make_graph(nodes, "case", inputs, infos, weights)
        sets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=sets, ir_version=10)

    def write(self, folder):
        model = self.model()
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {
            f"i{at}": value
            for at, (value, constant) in enumerate(zip(self.operands, self.constant, strict=True))
            if value is not None and not constant
        }
        results = session.run(None, feeds)
        if self.steps and self.outputs == 1 and results[0].dtype.kind in "iu" and results[0].dtype != np.int32:
            model = self.model(widened=True)
            results = [results[0].astype(np.float32)]
            self.rtol, self.atol = 0, self.steps
        for info, value in zip(model.graph.output, results, strict=True):
            info.CopyFrom(helper.make_tensor_value_info(info.name, TYPES[value.dtype], value.shape))
        data = folder / "test_data_set_0"
        data.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        (folder / "tolerance.json").write_text(json.dumps({"rtol": self.rtol, "atol": self.atol}))
        for at, (name, value) in enumerate(feeds.items()):
            (data / f"input_{at}.pb").write_bytes(numpy_helper.from_array(value, name).SerializeToString())
        for at, value in enumerate(results):
            (data / f"output_{at}.pb").write_bytes(numpy_helper.from_array(value, f"y{at}").SerializeToString())


def byte(rng):
    return rng.choice([np.uint8, np.int8])


def shape(rng, low=1, high=4, most=6):
    return tuple(int(rng.integers(1, most)) for _ in range(int(rng.integers(low, high + 1))))


def binary(op):
    def make(rng):
        case, dtype, full = Case(op, rng), byte(rng), shape(rng)
        other = tuple(dim if rng.random() < 0.6 else 1 for dim in full)
        other = other[int(rng.integers(0, len(other))) :]
        for dims in rng.permutation(np.array([full, other], dtype=object)):
            case.bytes(dtype, tuple(dims), constant=bool(rng.random() < 0.3))
            case.scale()
            case.zero(dtype, optional=True)
        if all(case.constant):
            case.constant[0] = False
        case.scale(low=0.01, high=0.1)
        case.zero(dtype, optional=True)
        return case

    return make


def unary(op, low, high, **attrs):
    def make(rng):
        case, dtype = Case(op, rng), byte(rng)
        case.bytes(dtype, shape(rng))
        case.scale(low=0.02, high=0.1)
        case.zero(dtype, optional=True)
        case.scale(low=low, high=high)
        case.zero(dtype, optional=True)
        case.attrs = attrs
        return case

    return make


def softmax(rng):
    case, dtype, dims = Case("QLinearSoftmax", rng), byte(rng), shape(rng, 2, 4)
    case.bytes(dtype, dims)
    case.scale(low=0.02, high=0.1)
    case.zero(dtype)
    # Of other scales ONNX Runtime takes the reciprocal rounded down.
    case.add(np.array(1 / 256, np.float32))
    case.add(np.array(np.iinfo(dtype).min, dtype))
    opset = int(rng.choice([11, 13]))
    axis = len(dims) - 1 if opset == 13 and rng.random() < 0.5 else int(rng.integers(-len(dims), len(dims)))
    case.attrs = {"axis": axis, "opset": opset}
    return case


def window(rng, image):
    kernel = [int(rng.integers(1, min(4, dim + 1))) for dim in image]
    attrs = {"kernel_shape": kernel, "strides": [int(rng.integers(1, 3)) for _ in image]}
    if rng.random() < 0.4:
        attrs["pads"] = [int(rng.integers(0, size)) for size in kernel] * 2
    return attrs


def average_pool(rng):
    case, dtype, last = Case("QLinearAveragePool", rng), byte(rng), int(rng.random() < 0.4)
    batch, channels, *image = (int(rng.integers(1, 3)), int(rng.integers(1, 9)), *rng.integers(4, 9, size=2).tolist())
    case.bytes(dtype, (batch, *image, channels) if last else (batch, channels, *image))
    case.scale()
    case.zero(dtype)
    case.scale()
    case.zero(dtype)
    include = int(rng.integers(0, 2))
    case.attrs = {**window(rng, image), "channels_last": last, "count_include_pad": include}
    return case


def global_average_pool(rng):
    case, dtype, last = Case("QLinearGlobalAveragePool", rng), byte(rng), int(rng.random() < 0.4)
    batch, channels, *image = (int(rng.integers(1, 3)), int(rng.integers(1, 9)), *rng.integers(1, 9, size=2).tolist())
    case.bytes(dtype, (batch, *image, channels) if last else (batch, channels, *image))
    case.scale()
    case.zero(dtype)
    case.scale()
    case.zero(dtype)
    case.attrs = {"channels_last": last}
    return case


def max_pool(rng):
    case, dtype = Case("NhwcMaxPool", rng), byte(rng)
    image = rng.integers(4, 9, size=2).tolist()
    case.bytes(dtype, (int(rng.integers(1, 3)), *image, int(rng.integers(1, 9))))
    case.attrs = window(rng, image)
    case.steps = 0
    return case


def concat(rng):
    case, dtype, dims = Case("QLinearConcat", rng), byte(rng), list(shape(rng, 1, 4))
    axis = int(rng.integers(0, len(dims)))
    case.scale(low=0.02, high=0.05)
    case.zero(dtype)
    for _ in range(int(rng.integers(1, 4))):
        dims[axis] = int(rng.integers(1, 5))
        case.bytes(dtype, tuple(dims))
        case.scale()
        case.zero(dtype)
    case.attrs = {"axis": axis}
    return case


def where(rng):
    case, dtype, dims = Case("QLinearWhere", rng), byte(rng), shape(rng)
    case.add(rng.random(dims) < 0.5, constant=False)
    for _ in range(2):
        case.bytes(dtype, dims)
        case.scale()
        case.zero(dtype)
    case.scale()
    case.zero(dtype)
    return case


def conv(rng):
    case, last = Case("QLinearConv", rng), int(rng.random() < 0.5)
    x, w = rng.choice([(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
    group = int(rng.choice([1, 1, 2]))
    channels, filters = group * int(rng.integers(1, 4)), group * int(rng.integers(1, 5))
    image = rng.integers(4, 9, size=2).tolist()
    case.bytes(x, (1, *image, channels) if last else (1, channels, *image))
    case.scale()
    case.zero(x)
    attrs = window(rng, image)
    case.bytes(w, (filters, channels // group, *attrs["kernel_shape"]), constant=True)
    case.scale((filters,) if rng.random() < 0.5 else ())
    case.add(np.zeros((), w) if w == np.int8 else np.array(130, w))
    case.scale(low=0.3, high=1.0)
    case.zero(x)
    if rng.random() < 0.5:
        case.add(rng.integers(-500, 500, size=filters).astype(np.int32))
    case.attrs = {**attrs, "group": group, "channels_last": last}
    return case


def matrices(rng, case, constant, b=None):
    """Operands A and B of a product; gives their dtypes and the number of columns."""
    depth, columns = int(rng.integers(1, 20)), int(rng.integers(1, 20))
    b = b or byte(rng)
    case.bytes(np.uint8, (*shape(rng, 1, 3), depth))
    case.bytes(b, (depth, columns), constant=constant)
    return np.uint8, b, columns


def integer_to_float(rng):
    case = Case("MatMulIntegerToFloat", rng)
    a, b, columns = matrices(rng, case, bool(rng.random() < 0.7))
    per_column = (columns,) if rng.random() < 0.5 else ()
    case.scale()
    case.scale(per_column)
    case.zero(a, optional=True)
    case.constant[-1] = bool(rng.random() < 0.5)
    case.zero(b, per_column if case.constant[1] else (), optional=True)
    if rng.random() < 0.5:
        case.add(rng.normal(size=columns).astype(np.float32))
    case.atol = 1e-4
    return case


def dynamic_mat_mul(rng):
    case, b = Case("DynamicQuantizeMatMul", rng), byte(rng)
    depth, columns = int(rng.integers(1, 20)), int(rng.integers(1, 20))
    case.add(rng.normal(size=(*shape(rng, 1, 3), depth)).astype(np.float32), constant=False)
    case.bytes(b, (depth, columns), constant=bool(rng.random() < 0.7))
    per_column = (columns,) if rng.random() < 0.5 else ()
    case.scale(per_column)
    case.zero(b, per_column, optional=True)
    if rng.random() < 0.5:
        case.add(rng.normal(size=columns).astype(np.float32))
    case.atol = 1e-4
    return case


def gemm(rng):
    case = Case("QGemm", rng)
    rows, depth, columns = rng.integers(1, 12, size=3).tolist()
    trans_a, trans_b = rng.integers(0, 2, size=2).tolist()
    a, b = rng.choice([(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
    per_column = (columns,) if rng.random() < 0.5 else ()
    case.bytes(a, (depth, rows) if trans_a else (rows, depth))
    case.scale()
    case.zero(a)
    case.bytes(b, (columns, depth) if trans_b else (depth, columns), constant=bool(rng.random() < 0.7))
    case.scale(per_column)
    case.zero(b, per_column)
    case.add(rng.integers(-500, 500, size=columns).astype(np.int32) if rng.random() < 0.5 else None)
    if rng.random() < 0.6:
        case.scale(low=0.05, high=0.2)
        case.zero(a)
    case.attrs = {"transA": trans_a, "transB": trans_b, "alpha": float(rng.choice([1.0, 0.5]))}
    case.atol = 1e-4
    return case


def attention(rng):
    case, b = Case("QAttention", rng), byte(rng)
    heads, size, batch, length = rng.integers(1, 4, size=4).tolist()
    hidden, inputs = heads * size * 2, int(rng.integers(2, 9))
    case.bytes(np.uint8, (batch, length, inputs))
    case.bytes(b, (inputs, 3 * hidden), constant=True)
    case.add(rng.normal(size=3 * hidden).astype(np.float32))
    case.scale()
    case.scale()
    case.add(rng.integers(1, length + 1, size=batch).astype(np.int32) if rng.random() < 0.5 else None, constant=False)
    case.zero(np.uint8)
    case.zero(b)
    case.attrs = {"num_heads": heads, "unidirectional": int(rng.integers(0, 2))}
    case.atol = 1e-4
    return case


def lstm(rng):
    case, b = Case("DynamicQuantizeLSTM", rng), byte(rng)
    length, batch, inputs, hidden = rng.integers(1, 6, size=4).tolist()
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions = 2 if direction == "bidirectional" else 1
    case.add(rng.normal(size=(length, batch, inputs)).astype(np.float32), constant=False)
    case.bytes(b, (directions, inputs, 4 * hidden), constant=True)
    case.bytes(b, (directions, hidden, 4 * hidden), constant=True)
    case.add(rng.normal(size=(directions, 8 * hidden)).astype(np.float32) if rng.random() < 0.6 else None)
    for _ in range(4):
        case.add(None)
    per = (directions, 4 * hidden) if rng.random() < 0.5 else (directions,)
    for _ in range(2):
        case.scale(per, low=0.002, high=0.01)
        case.zero(b, per)
    case.attrs, case.outputs = {"hidden_size": hidden, "direction": direction}, 3
    # A value that rounds to another byte moves what follows.
    case.rtol, case.atol = 1e-2, 1e-2
    return case


def quantize(rng):
    dtype = rng.choice([np.uint8, np.int8, np.uint16, np.int16])
    case, dims, real = Case("QuantizeLinear", rng), shape(rng), rng.choice([np.float32, np.float16])
    case.add(rng.normal(size=dims).astype(real), constant=False)
    axis = int(rng.integers(0, len(dims)))
    per = (dims[axis],) if rng.random() < 0.5 else ()
    case.scale(per, dtype=real)
    case.zero(dtype, per, optional=dtype == np.uint8)
    case.attrs = {"axis": axis} if per else {}
    return case


def dequantize(rng):
    dtype = rng.choice([np.uint8, np.int8, np.uint16, np.int16])
    case, dims, real = Case("DequantizeLinear", rng), shape(rng), rng.choice([np.float32, np.float16])
    case.bytes(dtype, dims)
    axis = int(rng.integers(0, len(dims)))
    per = (dims[axis],) if rng.random() < 0.5 else ()
    case.scale(per, dtype=real)
    case.zero(dtype, per, optional=True)
    case.attrs = {"axis": axis} if per else {}
    case.rtol = 1e-3 if real == np.float16 else 1e-6
    return case


def integer_product(rng):
    case = Case("MatMulInteger", rng, domain="")
    a, b, columns = matrices(rng, case, bool(rng.random() < 0.5))
    case.zero(a, optional=True)
    case.constant[-1] = bool(rng.random() < 0.5)
    per_column = (columns,) if rng.random() < 0.5 else ()
    case.zero(b, per_column, optional=True)
    case.constant[-1] = bool(rng.random() < 0.5)
    case.rtol = case.atol = 0
    return case


def integer_conv(rng):
    case, dtype = Case("ConvInteger", rng, domain=""), np.uint8
    group = int(rng.choice([1, 1, 2]))
    channels, filters = group * int(rng.integers(1, 4)), group * int(rng.integers(1, 5))
    image = rng.integers(4, 9, size=2).tolist()
    case.bytes(dtype, (1, channels, *image))
    attrs = window(rng, image)
    case.bytes(dtype, (filters, channels // group, *attrs["kernel_shape"]), constant=True)
    case.zero(dtype, optional=True)
    case.constant[-1] = bool(rng.random() < 0.5)
    case.zero(dtype, optional=True)
    case.attrs = {**attrs, "group": group}
    case.rtol = case.atol = 0
    return case


def dynamic_linear(rng):
    case = Case("DynamicQuantizeLinear", rng, domain="")
    low = float(rng.choice([-3.0, 0.5, -9.0]))
    case.add(rng.uniform(low, low + 5, size=shape(rng)).astype(np.float32), constant=False)
    case.outputs = 3
    return case


MAKERS = {
    "QLinearAdd": binary("QLinearAdd"),
    "QLinearMul": binary("QLinearMul"),
    "QLinearSigmoid": unary("QLinearSigmoid", 1 / 256, 1 / 128),
    "QLinearLeakyRelu": unary("QLinearLeakyRelu", 0.02, 0.1, alpha=0.15),
    "QLinearSoftmax": softmax,
    "QLinearAveragePool": average_pool,
    "QLinearGlobalAveragePool": global_average_pool,
    "NhwcMaxPool": max_pool,
    "QLinearConcat": concat,
    "QLinearWhere": where,
    "QLinearConv": conv,
    "MatMulIntegerToFloat": integer_to_float,
    "DynamicQuantizeMatMul": dynamic_mat_mul,
    "QGemm": gemm,
    "QAttention": attention,
    "DynamicQuantizeLSTM": lstm,
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "MatMulInteger": integer_product,
    "ConvInteger": integer_conv,
    "DynamicQuantizeLinear": dynamic_linear,
}


def main():
    rabot, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    onnxruntime.set_default_logger_severity(4)
    for op, make in MAKERS.items():
        written = refused = 0
        while written < count and refused < 5 * count:
            rng = np.random.default_rng([seed, written, refused, len(op)])
            try:
                make(rng).write(folder / f"{op.lower()}_{written}")
                written += 1
            except Exception as error:  # What ONNX Runtime refuses says nothing of rabot.
                reason, refused = error, refused + 1
        if written < count:
            sys.exit(f"{op}: ONNX Runtime took {written} of {written + refused} cases: {reason}")
    status = 0
    for arguments in [[], ["--reference"]]:
        status |= subprocess.run([rabot, "onnx-test", str(folder), *arguments], check=False).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
