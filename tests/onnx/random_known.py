"""What ONNX Runtime 1.32 does wrong or cannot do, among random models: by what the model holds, never by its seed."""

import re

import onnx
from onnx import numpy_helper

# An operator, a part of what ONNX Runtime says when it refuses a model with it, and why that is not rabot's.
REFUSALS = [
    ("LRN", "lrn.h", "LRN of an even size: ONNX does not ask for an odd one"),
    ("LRN", "lrn.cc", "LRN of other ranks than 4: ONNX takes them"),
    ("ConvInteger", "conv_integer.cc", "ConvInteger with a zero point for each channel of the weights"),
    ("Conv", "Dilation not supported for AutoPadType", "Conv with auto_pad = SAME_* and dilations"),
    ("ConvInteger", "Dilation not supported for AutoPadType", "ConvInteger with auto_pad = SAME_* and dilations"),
    ("QLinearConv", "Dilation not supported for AutoPadType", "QLinearConv with auto_pad = SAME_* and dilations"),
    ("Resize", "'Cubic' mode only supports", "Resize by cubic interpolation along other axes than two"),
    ("Pad", "Unexpected mode of 3", "Pad by wrapping of a tensor without elements along an axis that is not padded"),
]
NO_KERNEL = "Could not find an implementation for "
REUSED = "attempting to re-use buffer"
NEGATIVE = "padding values must be non-negative"
NOT_MADE = "is not a graph input, initializer, or output of a previous node"
REWRITTEN = "onnxruntime's optimizer writes a model that it then refuses; the model as it is gets past that check"
SAME_STRIDES = "pools with auto_pad = SAME_* and strides larger than the window: padding below 0, which is refused or crops; ONNX's inference takes none"
# Parts of texts that name the node that was refused, or run.
NAMED = re.compile(r"(?:Name:'|[Nn]ode \()([^')]+)")
POOLS = ("AveragePool", "MaxPool", "LpPool")


class Model:
    """A model, with what is asked of it often."""

    def __init__(self, path):
        self.proto = onnx.load(path)
        graph = onnx.shape_inference.infer_shapes(self.proto).graph
        self.nodes = list(graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.shapes = {name: list(tensor.dims) for name, tensor in self.constants.items()}
        for value in [*graph.value_info, *graph.input, *graph.output]:
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = [d.dim_value if d.HasField("dim_value") else -1 for d in dims]

    def before(self, names):
        """The nodes that values are computed from."""
        found, waiting = {}, list(names)
        while waiting:
            node = self.makers.get(waiting.pop())
            if node is None or node.output[0] in found:
                continue
            found[node.output[0]] = node
            waiting += operands(node)
        return list(found.values())


def operands(node):
    """What a node reads, also in its graphs."""
    nested = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [*node.input, *(name for graph in nested for inner in graph.node for name in inner.input)]


def attributes(node):
    """Attributes by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def is_same(node):
    """True if padding is computed from the size of the input."""
    return attributes(node).get("auto_pad", b"NOTSET").startswith(b"SAME")


def is_dilated_same(model, node):
    """A pool or integer convolution whose auto_pad counts the window without its dilations."""
    dilated = any(d > 1 for d in attributes(node).get("dilations", []))
    return node.op_type in (*POOLS, "ConvInteger", "QLinearConv") and is_same(node) and dilated


def is_valid_rounded_up(model, node):
    """A pool with auto_pad = VALID and ceil_mode, whose size ONNX gives as ceil((input - window + 1) / stride)."""
    of = attributes(node)
    return node.op_type in POOLS and of.get("auto_pad") == b"VALID" and of.get("ceil_mode", 0) == 1


def is_narrow_same(model, node):
    """A pool with auto_pad = SAME_* that steps over elements."""
    of = attributes(node)
    window = of.get("kernel_shape", [])
    return node.op_type in POOLS and is_same(node) and any(s > k for s, k in zip(of.get("strides", []), window))


def starts_in_the_padding(model, node):
    """A pool with ceil_mode whose last window, by the formula alone, would start behind the input: ONNX ignores it."""
    of = attributes(node)
    if node.op_type not in POOLS or not of.get("ceil_mode", 0) or is_same(node):
        return False
    window, sizes = of["kernel_shape"], model.shapes.get(node.input[0], [])[2:]
    rank = len(window)
    pads, strides, dilations = of.get("pads", [0] * 2 * rank), of.get("strides", [1] * rank), of.get("dilations", [1] * rank)
    for axis, size in enumerate(sizes):
        reach = size + pads[axis] + pads[axis + rank] - dilations[axis] * (window[axis] - 1) - 1
        if size >= 0 and -(-reach // strides[axis]) * strides[axis] >= size + pads[axis]:
            return True
    return False


def is_empty_product(model, node):
    """An integer product that sums nothing."""
    return node.op_type == "MatMulInteger" and model.shapes.get(node.input[0], [1])[-1:] == [0]


def is_fractional_corners(model, node):
    """A Resize that aligns corners, and by scales that give no whole length."""
    of = attributes(node)
    scales = node.input[2] if len(node.input) > 2 else ""
    if node.op_type != "Resize" or of.get("coordinate_transformation_mode") != b"align_corners":
        return False
    if scales not in model.constants:
        return False
    factors = numpy_helper.to_array(model.constants[scales])
    sizes = model.shapes.get(node.input[0], [])
    axes = of.get("axes", range(len(sizes)))
    return any(sizes[axis] >= 0 and (sizes[axis] * factor) % 1 for axis, factor in zip(axes, factors))


# A form of a node, and what ONNX Runtime does wrong with it: results of another size ...
SIZES = [
    (is_dilated_same, "pools and integer convolutions with auto_pad = SAME_* and dilations: the result is smaller than ceil(input / stride)"),
    (is_valid_rounded_up, "pools with auto_pad = VALID and ceil_mode: the result is larger than ceil((input - window + 1) / stride)"),
]
# ... results of other contents ...
CONTENTS = [
    (is_narrow_same, SAME_STRIDES),
    (is_empty_product, "MatMulInteger over no elements: the result is not written"),
    (is_fractional_corners, "Resize with align_corners and a scale that gives no whole length: the length is taken rounded down, where ONNX's reference takes it as it is"),
]
# ... and sizes that are inferred to be others than those that the kernels give.
INFERRED = [(starts_in_the_padding, "pools with ceil_mode before operator set 22: inference counts a window that starts in the padding")]


def first_of(forms, model, nodes):
    """The reason of the first form that one of the nodes has."""
    return next((reason for form, reason in forms if any(form(model, node) for node in nodes)), None)


def known_difference(model, output):
    """Why what an output is off by is not rabot's; `None` if it may be."""
    return first_of(SIZES + CONTENTS, model, model.before([output]))


def known_refusal(model, text):
    """Why it is not rabot's that a model is refused with this text; `None` if it may be."""
    if NO_KERNEL in text:
        return f"there is no kernel for {text.split(NO_KERNEL)[1].split('(')[0]} of these dtypes"
    if NEGATIVE in text and any(is_narrow_same(model, node) for node in model.nodes):
        return SAME_STRIDES
    operators = {node.op_type for node in model.nodes}
    direct = next((reason for op, part, reason in REFUSALS if op in operators and part in text), None)
    if direct:
        return direct
    refused = [node for node in model.nodes if node.name in NAMED.findall(text)]
    forms = SIZES + INFERRED if "InferenceError" in text or REUSED in text else SIZES
    # Buffers are planned for sizes that other values turn out not to have.
    suspects = model.nodes if REUSED in text else model.before(name for node in refused for name in operands(node))
    reason = first_of(forms, model, suspects)
    return reason and f"a later node does not take that size: {reason}"


def is_own_rewriting(model, text):
    """True if the text is of a node that the model does not have, or lacks a value that the model has."""
    names = {node.name for node in model.nodes}
    if NOT_MADE in text:
        onnx.checker.check_model(model.proto)
        return True
    return "InferenceError" not in text.replace("TypeInferenceError", "") and bool(set(NAMED.findall(text)) - names)
