"""Models of operators that no case has: random numbers, maps, and rare ones that neither ONNX's suite nor its reference
evaluator knows."""

from onnx import TensorProto, helper

F32, I64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
U8, I16 = TensorProto.UINT8, TensorProto.INT16
MS = "com.microsoft"


def tensor(code, *shape):
    return helper.make_tensor_type_proto(code, shape)


def mapped(key):
    return helper.make_map_type_proto(key, tensor(F32))


# Operator, domain, types of the inputs, attributes.
PROBES = [
    ("GlobalLpPool", "", [tensor(F32, 1, 2, 3, 3)], {}),
    ("MaxRoiPool", "", [tensor(F32, 1, 1, 4, 4), tensor(F32, 1, 5)], {"pooled_shape": [2, 2]}),
    ("Multinomial", "", [tensor(F32, 1, 3)], {"sample_size": 2}),
    ("Optional", "", [tensor(F32, 2)], {}),
    ("RandomNormal", "", [], {"shape": [2, 3]}),
    ("RandomNormalLike", "", [tensor(F32, 2, 3)], {}),
    ("RandomUniform", "", [], {"shape": [2, 3]}),
    ("CastMap", "ai.onnx.ml", [mapped(I64)], {}),
    ("DictVectorizer", "ai.onnx.ml", [mapped(STRING)], {"string_vocabulary": ["a", "b"]}),
    ("BiasAdd", MS, [tensor(F32, 1, 2, 4), tensor(F32, 4), tensor(F32, 1, 2, 4)], {}),
    ("LayerNormalization", MS, [tensor(F32, 2, 4), tensor(F32, 4)], {}),
    ("MatMulInteger16", MS, [tensor(I16, 2, 3), tensor(I16, 3, 2)], {}),
    ("MulInteger", MS, [tensor(U8, 4), tensor(U8), tensor(U8, 4), tensor(U8)], {}),
    ("QLinearReduceMean", MS, [tensor(U8, 2, 4), tensor(F32), tensor(U8), tensor(F32), tensor(U8)],
     {"axes": [1], "keepdims": 1}),
    ("ReduceSumInteger", MS, [tensor(U8, 2, 4)], {"axes": [1], "keepdims": 1}),
    ("SimplifiedLayerNormalization", MS, [tensor(F32, 2, 4), tensor(F32, 4)], {}),
]  # fmt: skip


def models():
    for op, domain, types, attrs in PROBES:
        names = [f"x{at}" for at in range(len(types))]
        node = helper.make_node(op, names, ["y"], domain=domain, **attrs)
        inputs = [helper.make_value_info(name, ty) for name, ty in zip(names, types, strict=True)]
        graph = helper.make_graph([node], op, inputs, [helper.make_empty_tensor_value_info("y")])
        imports = [helper.make_opsetid("", 22), helper.make_opsetid("ai.onnx.ml", 5), helper.make_opsetid(MS, 1)]
        yield op, helper.make_model(graph, opset_imports=imports, ir_version=10)
