"""Evaluates a model in float64, for the few on which float32 engines must disagree; bench/ takes the widened model too.

`synthetic-mobilenetv2` has random weights that magnify rounding errors a thousandfold, and the
wake-word heads end in a sigmoid of about 1e-5 where ONNX Runtime is right to three digits only.
"""

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

UNSTABLE = ["synthetic-mobilenetv2", "openwakeword-hey-jarvis", "openwakeword-alexa"]


def widened(array):
    """float32 as float64, anything else as it is."""
    return array.astype(np.float64) if array.dtype == np.float32 else array


def widen_tensor(tensor):
    """Make a float32 tensor of a model float64."""
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(widened(numpy_helper.to_array(tensor)), tensor.name))


def takes_single(node, index, versions):
    """Is float32 the only type of this input of a node? It is for the scales of Resize, for one."""
    if node.domain not in versions or not defs.has(node.op_type, node.domain):
        return False
    formal = defs.get_schema(node.op_type, versions[node.domain], node.domain).inputs
    return index < len(formal) and formal[index].type_str == "tensor(float)"


def widen_graph(graph, versions):
    """Make all float32 of a graph and of those inside it float64; `versions` of operator sets by domain."""
    for tensor in graph.initializer:
        widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            widen_attribute(node, attribute, versions)
        for index, name in enumerate(node.input):
            if name and takes_single(node, index, versions):
                node.input[index] = f"{node.output[0]}.float32.{index}"
                nodes.append(helper.make_node("Cast", [name], [node.input[index]], to=TensorProto.FLOAT))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def widen_attribute(node, attribute, versions):
    """Make what is float32 in an attribute float64."""
    if attribute.type == AttributeProto.TENSOR:
        widen_tensor(attribute.t)
    elif attribute.type == AttributeProto.GRAPH:
        widen_graph(attribute.g, versions)
    elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.DOUBLE


def widened_model(path):
    """A model with float64 in place of float32."""
    model = onnx.load(path)
    widen_graph(model.graph, {entry.domain: entry.version for entry in model.opset_import})
    return model


def exact_outputs(path, inputs):
    """Outputs by name, for each of several inputs."""
    evaluator = ReferenceEvaluator(widened_model(path))
    runs = (evaluator.run(None, {name: widened(array) for name, array in feeds.items()}) for feeds in inputs)
    return [dict(zip(evaluator.output_names, results)) for results in runs]
