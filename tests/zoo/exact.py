"""Evaluates a model in float64, for the few on which float32 engines must disagree.

`synthetic-mobilenetv2` has random weights that magnify rounding errors a thousandfold, and the
wake-word heads end in a sigmoid of about 1e-5 where ONNX Runtime is right to three digits only.
"""

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

UNSTABLE = ["synthetic-mobilenetv2", "openwakeword-hey-jarvis", "openwakeword-alexa"]


def widened(array):
    """float32 as float64, anything else as it is."""
    return array.astype(np.float64) if array.dtype == np.float32 else array


def widen_tensor(tensor):
    """Make a float32 tensor of a model float64."""
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(widened(numpy_helper.to_array(tensor)), tensor.name))


def widen_graph(graph):
    """Make all float32 of a graph and of those inside it float64."""
    for tensor in graph.initializer:
        widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            widen_attribute(node, attribute)


def widen_attribute(node, attribute):
    """Make what is float32 in an attribute float64."""
    if attribute.type == AttributeProto.TENSOR:
        widen_tensor(attribute.t)
    elif attribute.type == AttributeProto.GRAPH:
        widen_graph(attribute.g)
    elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.DOUBLE


def exact_outputs(path, inputs):
    """Outputs by name, for each of several inputs."""
    model = onnx.load(path)
    widen_graph(model.graph)
    evaluator = ReferenceEvaluator(model)
    runs = (evaluator.run(None, {name: widened(array) for name, array in feeds.items()}) for feeds in inputs)
    return [dict(zip(evaluator.output_names, results)) for results in runs]
