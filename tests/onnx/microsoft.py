"""Compares operators of the domain com.microsoft with ONNX Runtime.

    python microsoft.py RABOT DIR

writes a case for each configuration of each operator to DIR, in the layout of ONNX's test suite, with the outputs that
ONNX Runtime gives, and runs `rabot onnx-test` on them, compiled and with --reference. Numbers are random with fixed
seeds.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"


class Case:
    """One node with inputs, of which some are initializers."""

    def __init__(self, name, op, inputs, outputs, *, domain=MS, constant=(), tolerance=(2e-4, 2e-5), **attributes):
        self.name, self.op, self.domain, self.attributes = name, op, domain, attributes
        self.inputs, self.outputs = inputs, outputs
        self.constant, self.tolerance = constant, tolerance

    def model(self):
        names = ["" if value is None else f"x{at}" for at, value in enumerate(self.inputs)]
        node = helper.make_node(self.op, names, self.outputs, domain=self.domain, name="n", **self.attributes)
        infos, initializers = [], []
        for at, (name, value) in enumerate(zip(names, self.inputs, strict=True)):
            if value is None:
                continue
            if at in self.constant:
                initializers.append(numpy_helper.from_array(value, name))
                continue
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            infos.append(helper.make_tensor_value_info(name, kind, value.shape))
        outputs = [helper.make_empty_tensor_value_info(name) for name in self.outputs if name]
        graph = helper.make_graph([node], self.name, infos, outputs, initializers)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def write(self, folder):
        model = self.model()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [info.name for info in model.graph.input]
        values = [value for at, value in enumerate(self.inputs) if value is not None and at not in self.constant]
        results = session.run(None, dict(zip(names, values, strict=True)))
        for info, value in zip(model.graph.output, results, strict=True):
            info.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
            for size in value.shape:
                info.type.tensor_type.shape.dim.add().dim_value = size
        data = folder / self.name / "test_data_set_0"
        data.mkdir(parents=True)
        (data.parent / "model.onnx").write_bytes(model.SerializeToString())
        rtol, atol = self.tolerance
        (data.parent / "tolerance.json").write_text(json.dumps({"rtol": rtol, "atol": atol}))
        for what, infos, arrays in [("input", model.graph.input, values), ("output", model.graph.output, results)]:
            for at, (info, array) in enumerate(zip(infos, arrays, strict=True)):
                (data / f"{what}_{at}.pb").write_bytes(numpy_helper.from_array(array, info.name).SerializeToString())


def numbers(seed):
    """A source of arrays of small normal numbers."""
    random = np.random.default_rng(seed)

    def make(*shape, scale=0.5):
        return (random.standard_normal(shape) * scale).astype(np.float32)

    return make, random


def products():
    x, _ = numbers(1)
    for a, b, extra in [
        ((2, 3, 4), (2, 4, 5), {}),
        ((2, 4, 3), (2, 4, 5), {"transA": 1, "alpha": 0.5}),
        ((2, 3, 4), (2, 5, 4), {"transB": 1, "alpha": 2.0}),
        ((3, 2, 6, 4), (3, 2, 4, 5), {"alpha": -1.5}),
        ((3, 2, 4), (2, 4, 5), {"transBatchA": 1}),
        ((2, 3, 4), (4, 2, 5), {"transBatchB": 1}),
        ((4, 2, 3), (4, 2, 5), {"transBatchA": 1, "transBatchB": 1, "transA": 1}),
    ]:
        label = "_".join(f"{key}{value}" for key, value in extra.items()).replace(".", "p").replace("-", "m")
        try:
            yield Case(f"fused_matmul_{label or 'plain'}", "FusedMatMul", [x(*a), x(*b)], ["y"], **extra)
        except ValueError:
            continue
    yield Case("transpose_matmul", "TransposeMatMul", [x(4, 3), x(5, 4)], ["y"], transA=1, transB=1)
    for activation, extra in [
        ("Relu", {}),
        ("LeakyRelu", {"activation_alpha": 0.2}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
    ]:
        operands = [x(3, 4), x(5, 4), x(5)]
        yield Case(f"fused_gemm_{activation}", "FusedGemm", operands, ["y"], activation=activation, transB=1, **extra)
    for activation, params in [
        ("Relu", []),
        ("LeakyRelu", [0.3]),
        ("Clip", [-0.2, 0.4]),
        ("HardSigmoid", [0.3, 0.4]),
        ("Tanh", []),
        ("Sigmoid", []),
    ]:
        extra = {"activation_params": params} if params else {}
        operands = [x(1, 3, 6, 6), x(4, 3, 3, 3), x(4)]
        name = f"fused_conv_{activation}"
        yield Case(name, "FusedConv", operands, ["y"], activation=activation, pads=[1, 1, 1, 1], **extra)
    operands = [x(1, 4, 6, 6), x(4, 2, 3, 3), None, x(1, 4, 3, 3)]
    extra = {"activation": "Relu", "pads": [1, 1, 1, 1], "strides": [2, 2], "group": 2}
    yield Case("fused_conv_residual", "FusedConv", operands, ["y"], **extra)


def activations():
    x, _ = numbers(2)
    yield Case("bias_gelu", "BiasGelu", [x(2, 3, 8, scale=2), x(8)], ["y"])
    yield Case("fast_gelu", "FastGelu", [x(2, 3, 8, scale=2)], ["y"])
    yield Case("fast_gelu_bias", "FastGelu", [x(2, 3, 8, scale=2), x(8)], ["y"])
    yield Case("gelu", "Gelu", [x(2, 3, 8, scale=2)], ["y"])
    yield Case("quick_gelu", "QuickGelu", [x(2, 3, 8, scale=2)], ["y"])
    yield Case("quick_gelu_alpha", "QuickGelu", [x(2, 3, 8, scale=2)], ["y"], alpha=-0.7)


def mirrors():
    x, _ = numbers(3)
    axis = lambda value: np.array(value, np.int32)
    yield Case("expand_dims", "ExpandDims", [x(2, 3), axis(1)], ["y"], constant=(1,))
    yield Case("expand_dims_last", "ExpandDims", [x(2, 3), axis(-1)], ["y"], constant=(1,))
    scalars = [np.array(value, np.float32) for value in (1, 7, 1.5)]
    yield Case("range", "Range", scalars, ["y"], constant=(0, 1, 2))
    yield Case("range_step", "Range", [np.array([2], np.int64), np.array([6], np.int64)], ["y"], constant=(0, 1))
    pads = np.array([[0, 1, 0, 2]], np.int64)
    yield Case("pad", "Pad", [x(2, 3), pads, np.array([0.5], np.float32)], ["y"], constant=(1, 2))
    yield Case("pad_reflect", "Pad", [x(2, 3), pads[0]], ["y"], constant=(1,), mode="reflect")
    yield Case("gather_nd", "GatherND", [x(3, 4), np.array([[0, 1], [2, 3]], np.int64)], ["y"])
    yield Case("trilu", "Trilu", [x(2, 4, 4), np.array(1, np.int64)], ["y"], upper=0)
    yield Case("inverse", "Inverse", [x(2, 4, 4, scale=1) + 2 * np.eye(4, dtype=np.float32)], ["y"])


def norms():
    x, random = numbers(4)
    simplified = {"domain": "", "epsilon": 1e-5, "axis": -1}
    yield Case("simplified", "SimplifiedLayerNormalization", [x(2, 3, 8), x(8)], ["y"], **simplified)
    yield Case("simplified_inverse", "SimplifiedLayerNormalization", [x(2, 3, 8), x(8)], ["y", "i"], **simplified)
    base = [x(2, 3, 8), x(2, 3, 8), x(8)]
    yield Case("skip_layer", "SkipLayerNormalization", [*base, x(8)], ["y"], epsilon=1e-5)
    yield Case("skip_layer_plain", "SkipLayerNormalization", base, ["y"])
    yield Case("skip_layer_bias", "SkipLayerNormalization", [*base, x(8), x(8)], ["y", "", "", "s"], epsilon=1e-3)
    yield Case("skip_layer_wide", "SkipLayerNormalization", [x(2, 3, 8), x(3, 8), x(8), None, x(8)], ["y"])
    name = "SkipSimplifiedLayerNormalization"
    yield Case("skip_simplified", name, base, ["y"], epsilon=1e-5)
    yield Case("skip_simplified_bias", name, [*base, x(8)], ["y", "", "", "s"], epsilon=1e-3)
    ids = random.integers(0, 10, (2, 4)).astype(np.int32)
    kinds = random.integers(0, 2, (2, 4)).astype(np.int32)
    places = random.integers(0, 6, (2, 4)).astype(np.int32)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
    words, positions, segments = x(10, 8), x(6, 8), x(2, 8)
    full = [ids, kinds, words, positions, segments, x(8), x(8)]
    name = "EmbedLayerNormalization"
    yield Case("embed", name, full, ["y", "m"])
    yield Case("embed_mask", name, [*full, mask], ["y", "m"], epsilon=1e-5)
    yield Case("embed_sum", name, [*full, mask, places], ["y", "m", "s"])
    bare = [ids, None, words, positions, None, x(8), x(8)]
    yield Case("embed_bare", name, bare, ["y", "m", "s"])


def rotary():
    x, random = numbers(5)
    tables = [np.cos(x(16, 4, scale=3)), np.sin(x(16, 4, scale=3))]
    ids = random.integers(0, 16, (2, 3)).astype(np.int64)
    start = np.array([2], np.int64)
    for interleaved in (0, 1):
        for label, data, places in [
            ("flat", x(2, 3, 16), ids),
            ("heads", x(2, 2, 3, 8), ids),
            ("start", x(2, 3, 16), start),
        ]:
            name = f"rotary_{label}_{interleaved}"
            yield Case(name, "RotaryEmbedding", [data, places, *tables], ["y"], interleaved=interleaved)
        part = {"interleaved": interleaved, "num_heads": 2, "rotary_embedding_dim": 8}
        yield Case(f"rotary_part_{interleaved}", "RotaryEmbedding", [x(2, 3, 24), ids, *tables], ["y"], **part)


def attentions():
    x, _ = numbers(6)
    batch, length, hidden, heads, size = 2, 4, 8, 2, 4
    data, weights, bias = x(batch, length, 6), x(6, 3 * hidden), x(3 * hidden)
    past = x(2, batch, heads, 3, size)
    ints = lambda values: np.array(values, np.int32)
    mask = ints([[1, 1, 1, 0], [1, 1, 0, 0]])
    long = np.concatenate([np.ones((batch, 3), np.int32), mask], 1)
    square = ints(np.tril(np.ones((length, length))))[None].repeat(batch, 0)
    for label, inputs, extra in [
        ("plain", [data, weights, bias], {}),
        ("no_bias", [data, weights], {"scale": 0.3}),
        ("causal", [data, weights, bias], {"unidirectional": 1}),
        ("lengths", [data, weights, bias, ints([3, 2])], {}),
        ("ranges", [data, weights, bias, ints([4, 3, 1, 0])], {}),
        ("mask", [data, weights, bias, mask], {}),
        ("mask_value", [data, weights, bias, mask], {"mask_filter_value": -1.0}),
        ("square", [data, weights, bias, square], {}),
        ("mask_causal", [data, weights, bias, mask], {"unidirectional": 1}),
        ("past", [data, weights, bias, None, past], {"unidirectional": 1}),
        ("past_mask", [data, weights, bias, long, past], {}),
        ("bias", [data, weights, bias, None, None, x(batch, heads, length, length)], {}),
        ("bias_wide", [data, weights, bias, mask, None, x(1, heads, length, length)], {}),
    ]:
        outputs = ["y", "p"] if len(inputs) > 4 and inputs[4] is not None else ["y"]
        yield Case(f"attention_{label}", "Attention", inputs, outputs, num_heads=heads, **extra)
    sizes = {"qkv_hidden_sizes": [8, 8, 12]}
    yield Case("attention_sizes", "Attention", [data, x(6, 28), x(28)], ["y"], num_heads=heads, **sizes)
    yield from multi_head(x, mask)


def multi_head(x, mask):
    batch, length, other, hidden, heads, size = 2, 4, 4, 8, 2, 4
    q, k, v = x(batch, length, hidden), x(batch, other, hidden), x(batch, other, hidden)
    wide, bias = x(batch, other, 12), x(3 * hidden)
    past = [x(batch, heads, 3, size), x(batch, heads, 3, size)]
    long = np.concatenate([np.ones((batch, 3), np.int32), mask], 1)
    for label, inputs, outputs, extra in [
        ("plain", [q, k, v], ["y"], {}),
        ("bias", [q, k, v, bias], ["y"], {"scale": 0.4}),
        ("wide", [q, k, wide, x(2 * hidden + 12)], ["y"], {}),
        ("lengths", [q, k, v, bias, np.array([3, 2], np.int32)], ["y"], {}),
        ("mask", [q, k, v, bias, mask], ["y"], {"mask_filter_value": -5.0}),
        ("causal", [q, k, v], ["y"], {"unidirectional": 1}),
        ("added", [q, k, v, None, None, x(1, heads, length, other)], ["y"], {}),
        ("present", [q, k, v, bias, None, None, *past], ["y", "k", "v"], {}),
        ("present_mask", [q, k, v, None, long, None, *past], ["y", "k", "v"], {"unidirectional": 1}),
        ("packed", [x(batch, length, heads, 3, size)], ["y"], {}),
        ("packed_pair", [q, x(batch, other, heads, 2, size)], ["y"], {}),
        ("cross", [q, x(batch, heads, 5, size), x(batch, heads, 5, size)], ["y"], {}),
    ]:
        yield Case(f"multi_head_{label}", "MultiHeadAttention", inputs, outputs, num_heads=heads, **extra)


def grouped():
    x, _ = numbers(7)
    batch, queries, keys, size = 2, 4, 2, 16
    ints = lambda *values: np.array(values, np.int32)
    tables = [np.cos(x(16, 8, scale=3)), np.sin(x(16, 8, scale=3))]
    outputs = ["y", "k", "v"]

    def heads(length, new):
        return [x(batch, length, queries * size), x(batch, new, keys * size), x(batch, new, keys * size)]

    def case(label, data, past, lengths, total, rest=(), outputs=outputs, **extra):
        inputs = [*data, *past, ints(*lengths), np.array(total, np.int32), *rest]
        counts = {"num_heads": queries, "kv_num_heads": keys}
        return Case(f"grouped_{label}", "GroupQueryAttention", inputs, outputs, **counts, **extra)

    def cache(length):
        return [x(batch, keys, length, size), x(batch, keys, length, size)]

    none = [None, None]
    turned = {"do_rotary": 1}
    yield case("prompt", heads(5, 5), none, (4, 4), 5)
    yield case("prompt_empty", heads(5, 5), cache(0), (4, 4), 5)
    yield case("prompt_rotary", heads(5, 5), none, (4, 4), 5, tables, **turned)
    yield case("prompt_interleaved", heads(5, 5), none, (4, 4), 5, tables, rotary_interleaved=1, **turned)
    yield case("token", heads(1, 1), cache(5), (5, 5), 6, scale=0.2)
    yield case("token_rotary", heads(1, 1), cache(5), (5, 5), 6, tables, **turned)
    yield case("token_ragged", heads(1, 1), cache(5), (5, 3), 6, tables, **turned)
    yield case("token_buffer", heads(1, 1), cache(9), (5, 3), 6, tables, **turned)
    places = np.array([[7], [3]], np.int64)
    yield case("token_places", heads(1, 1), cache(5), (5, 5), 6, [*tables, places], **turned)
    yield case("prompt_ragged", heads(5, 5), none, (4, 2), 5, tables, **turned)
    # ONNX Runtime takes several new positions after others of one row only.
    one = lambda arrays: [array[:1] for array in arrays]
    yield case("chunk", one(heads(3, 3)), one(cache(5)), (7,), 8, tables, **turned)
    yield case("window", heads(6, 6), none, (5, 5), 6, local_window_size=2)
    yield case("window_token", heads(1, 1), cache(5), (5, 5), 6, local_window_size=3)
    yield case("softcap", heads(5, 5), none, (4, 4), 5, softcap=0.5)
    yield case("smooth", heads(5, 5), none, (4, 4), 5, smooth_softmax=1)
    yield case("sink", heads(5, 5), none, (4, 4), 5, [None, None, None, None, x(queries)])
    yield case("added", heads(5, 5), none, (4, 4), 5, [None, None, None, x(1, 1, 5, 5)])
    yield case("both_ways", heads(5, 5), none, (4, 4), 5, causal=0)
    packed = [x(batch, 5, (queries + 2 * keys) * size), None, None]
    yield case("packed", packed, none, (4, 4), 5, tables, **turned)


def few_bits():
    x, random = numbers(8)
    rows, block = 6, 16
    for bits in (4, 8):
        for columns in (32, 40):
            blocks = -(-columns // block)
            packed = random.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8)
            scales = x(rows, blocks, scale=0.1)
            zeros = random.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8)
            sizes = {"K": columns, "N": rows, "bits": bits, "block_size": block}
            data = x(2, 3, columns)
            for label, rest in [
                ("plain", []),
                ("zeros", [zeros]),
                ("float", [x(rows, blocks, scale=3) + 8]),
                ("bias", [zeros, None, x(rows)]),
            ]:
                inputs = [data, packed, scales, *rest]
                constant = tuple(at for at in range(1, len(inputs)))
                name = f"matmul_bits_{bits}_{columns}_{label}"
                yield Case(name, "MatMulNBits", inputs, ["y"], constant=constant, **sizes)


FAMILIES = [products, activations, mirrors, norms, rotary, attentions, grouped, few_bits]


def main(families, rabot, folder):
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    refused = 0
    for family in families:
        for case in family():
            try:
                case.write(folder)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime raises errors of its own
                refused += 1
                shutil.rmtree(folder / case.name, ignore_errors=True)
                print(f"not in ONNX Runtime: {case.name}: {str(error).splitlines()[0][:160]}")
    print(f"{len(list(folder.iterdir()))} cases, {refused} that ONNX Runtime refuses")
    for mode in ([], ["--reference"]):
        subprocess.run([rabot, "onnx-test", str(folder), "--quiet", *mode], check=True)


if __name__ == "__main__":
    main(FAMILIES, *sys.argv[1:])
