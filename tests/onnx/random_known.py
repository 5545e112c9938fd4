"""What ONNX Runtime 1.32 does wrong or cannot do, among random models: by what the model holds, never by its seed."""

import onnx

# An operator, a part of what ONNX Runtime says when it refuses a model with it, and why that is not rabot's.
REFUSALS = [
    ("LRN", "lrn.h", "LRN of an even size: ONNX does not ask for an odd one"),
    ("LRN", "lrn.cc", "LRN of other ranks than 4: ONNX takes them"),
    ("ConvInteger", "conv_integer.cc", "ConvInteger with a zero point for each channel of the weights"),
    ("Conv", "Dilation not supported for AutoPadType", "Conv with auto_pad = SAME_* and dilations"),
    ("ConvInteger", "Dilation not supported for AutoPadType", "ConvInteger with auto_pad = SAME_* and dilations"),
    ("QLinearConv", "Dilation not supported for AutoPadType", "QLinearConv with auto_pad = SAME_* and dilations"),
    ("MaxPool", "padding values must be non-negative", "MaxPool with negative padding"),
    ("Resize", "'Cubic' mode only supports", "Resize by cubic interpolation along other axes than two"),
]
NO_KERNEL = "Could not find an implementation for "


def nodes_before(model, output):
    """The nodes that an output is computed from."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found, waiting = {}, [output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.output[0] in found:
            continue
        found[node.output[0]] = node
        nested = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        waiting += [*node.input, *(name for graph in nested for inner in graph.node for name in inner.input)]
    return found.values()


def is_dilated_same(node):
    """A pool or integer convolution whose auto_pad counts the window without its dilations."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    same = attributes.get("auto_pad", b"NOTSET").startswith(b"SAME")
    kinds = ("AveragePool", "MaxPool", "ConvInteger", "QLinearConv")
    return node.op_type in kinds and same and any(d > 1 for d in attributes.get("dilations", []))


def is_valid_rounded_up(node):
    """A pool with auto_pad = VALID and ceil_mode, whose size ONNX gives as ceil((input - window + 1) / stride)."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    pool = node.op_type in ("AveragePool", "MaxPool", "LpPool")
    return pool and attributes.get("auto_pad") == b"VALID" and attributes.get("ceil_mode", 0) == 1


def is_empty_product(node, shapes):
    """An integer product that sums nothing."""
    return node.op_type == "MatMulInteger" and shapes.get(node.input[0], [1])[-1:] == [0]


def shapes_of(model):
    """Dims of values by name, as far as inference tells; -1 for others."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    dims = {value.name: value.type.tensor_type.shape.dim for value in values}
    return {name: [dim.dim_value if dim.HasField("dim_value") else -1 for dim in of] for name, of in dims.items()}


def known(model, text, output):
    """Why a disagreement is not rabot's; `None` if it may be. `output` is `None` where the model is refused."""
    if output is not None:
        if any(is_dilated_same(node) for node in nodes_before(model, output)):
            return "pools and integer convolutions with auto_pad = SAME_* and dilations: the result is smaller than ceil(input / stride)"
        if any(is_valid_rounded_up(node) for node in nodes_before(model, output)):
            return "pools with auto_pad = VALID and ceil_mode: the result is larger than ceil((input - window + 1) / stride)"
        shapes = shapes_of(model)
        if any(is_empty_product(node, shapes) for node in nodes_before(model, output)):
            return "MatMulInteger over no elements: the result is not written"
        return None
    if NO_KERNEL in text:
        return f"there is no kernel for {text.split(NO_KERNEL)[1].split('(')[0]} of these dtypes"
    operators = {node.op_type for node in model.graph.node}
    reasons = (reason for op, part, reason in REFUSALS if op in operators and part in text)
    return next(reasons, None)
