"""Accuracy of digits.onnx on its test images, as it is and after simple changes to its weights.

    python3 check.py [--folder DIR]

The changes are made to the initializers and run by ONNX Runtime: halves pruned in several
ways without retraining, and weights rounded to int8. Convolutions stand for themselves
(`raw`) and with their batch normalisation folded in (`folded`), as a compiler may do either first.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper


def fold(model):
    """A copy in which every Conv carries its batch normalisation."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    for norm in [node for node in model.graph.node if node.op_type == "BatchNormalization"]:
        conv = makers[norm.input[0]]
        scale, bias, mean, variance = (numpy_helper.to_array(weights[name]) for name in norm.input[1:])
        factor = scale / np.sqrt(variance + norm.attribute[0].f)
        kernel = weights[conv.input[1]]
        folded = numpy_helper.to_array(kernel) * factor[:, None, None, None]
        kernel.CopyFrom(numpy_helper.from_array(folded, kernel.name))
        shift = numpy_helper.from_array(bias - mean * factor, f"{conv.name}.bias")
        model.graph.initializer.append(shift)
        conv.input.append(shift.name)
        conv.output[0] = norm.output[0]
        model.graph.node.remove(norm)
    return model


def half(weight):
    """Zero the smaller half of a tensor."""
    size = np.abs(weight)
    return weight * (size >= np.quantile(size, 0.5))


def two_of_four(weight, axis):
    """Keep the two largest of every four neighbours along an axis of [outputs, inputs, ...]."""
    if weight.shape[axis] % 4:
        return weight
    moved = np.moveaxis(weight, axis, -1)
    groups = moved.reshape(-1, 4)
    keep = np.abs(groups).argsort(1, kind="stable").argsort(1, kind="stable") >= 2
    return np.moveaxis((groups * keep).reshape(moved.shape), -1, axis)


def two_of_four_in_row(weight):
    """Two of every four weights of an output, in the file's order."""
    return two_of_four(weight.reshape(len(weight), -1), 1).reshape(weight.shape)


def int8(weight):
    """Round to 255 levels per output channel."""
    step = np.abs(weight).reshape(len(weight), -1).max(1).reshape(-1, *[1] * (weight.ndim - 1)) / 127
    step[step == 0] = 1
    return (np.round(weight / step) * step).astype(np.float32)


def change_all(change):
    """A change of every weight matrix and kernel."""

    def apply(model):
        for tensor in model.graph.initializer:
            if len(tensor.dims) > 1:
                changed = change(numpy_helper.to_array(tensor)).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))

    return apply


def free_convs(model):
    """The convolutions whose outputs reach only one other convolution, and their batch norms."""
    readers = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        chain = [conv]
        while len(following := readers.get(chain[-1].output[0], [])) == 1:
            chain.append(following[0])
            if chain[-1].op_type not in ("BatchNormalization", "Relu", "MaxPool"):
                break
        if chain[-1].op_type == "Conv" and chain[-1] is not conv:
            yield chain


def drop_channels(share):
    """Remove the output channels with the smallest norms from convolutions that one other reads."""

    def apply(model):
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        for conv, *_, reader in free_convs(model):
            outputs = numpy_helper.to_array(weights[conv.input[1]])
            norms = np.linalg.norm(outputs.reshape(len(outputs), -1), axis=1)
            kernel = weights[reader.input[1]]
            changed = numpy_helper.to_array(kernel).copy()
            changed[:, np.argsort(norms)[: int(share * len(norms))]] = 0
            kernel.CopyFrom(numpy_helper.from_array(changed, kernel.name))

    return apply


CHANGES = {
    "as it is": lambda model: None,
    "half of each tensor by magnitude": change_all(half),
    "2 of 4 along the input channels": change_all(lambda weight: two_of_four(weight, 1)),
    "2 of 4 in file order": change_all(two_of_four_in_row),
    "quarter of the output channels": drop_channels(0.25),
    "half of the output channels": drop_channels(0.5),
    "int8 weights": change_all(int8),
}


def accuracy(model, test):
    """Share of right answers."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # folding leaves unused weights, which it would warn about
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": test["image"]})
    return float((logits.argmax(1) == test["label"]).mean())


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("--folder", type=Path, default=here, help="where the files are (now: %(default)s)")
    folder = parser.parse_args().folder
    model, test = onnx.load(folder / "digits.onnx"), np.load(folder / "digits-test.npz")
    print(f"{'change':36} {'raw':>8} {'folded':>8}")
    for name, change in CHANGES.items():
        row = []
        for source in (model, fold(model)):
            changed = onnx.ModelProto.FromString(source.SerializeToString())
            change(changed)
            row.append(f"{accuracy(changed, test):8.2%}")
        print(f"{name:36}", *row)


if __name__ == "__main__":
    sys.exit(main())
