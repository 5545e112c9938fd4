"""Trains the demo network on scikit-learn's handwritten digits and writes it as ONNX.

    python3 -m pip install -r requirements.txt
    python3 train.py [--out DIR]

Writes digits.onnx, digits-test.npz (the held-out fifth of the images) and
digits-calibration.npz (128 training images). One thread, fixed seeds: the same machine
gives the same files. The README says how and why the training makes weights sparse.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
SEED = 1
EPOCHS = 120
BATCH = 32
PEAK_RATE = 4e-3
SMOOTHING = 0.1  # of the labels
WEIGHT_DECAY = 0.05  # of all weights
SPARSE_FROM = 0.4  # share of the training after which small weights decay faster
SPARSE_DECAY = 10.0  # of the small weights
SPARSE_SHARE = 0.8  # of a tensor's weights, taken as small ones
EPSILON = 1e-5
MOMENTUM = 0.05  # of the running statistics of batch norm
TINY = 1e-30  # where there is no gradient, moments would shrink to denormals, which are slow
CALIBRATION_IMAGES = 128


def small(weight):
    """Mask of the smallest weights of a matrix, and of the smaller two of every four inputs in a row."""
    size = np.abs(weight)
    pairs = size.reshape(-1, 2, 2, weight.shape[1])
    high, low = pairs.max(2), pairs.min(2)
    second = np.maximum(high.min(1), low.max(1))  # second largest of four
    return (size < np.quantile(size, SPARSE_SHARE)) | (size < np.repeat(second, 4, axis=0))


class Parameter:
    """An array with its gradient and the moments of Adam."""

    def __init__(self, value, decays=False):
        self.value = value.astype(np.float32)
        self.gradient = np.zeros_like(self.value)
        self.moments = np.zeros((2, *value.shape), np.float32)
        self.decays = decays
        self.sparse = False
        self.fading = None  # mask of the entries of channels chosen to fade

    def step(self, number, rate, sparse):
        """One step of AdamW; with `sparse`, small weights and fading channels decay faster."""
        first, second = self.moments
        first += 0.1 * (self.gradient - first)
        second += 0.01 * (self.gradient**2 - second)
        self.moments[np.abs(self.moments) < TINY] = 0
        corrected = second / (1 - 0.99**number)
        self.value -= rate * (first / (1 - 0.9**number)) / (np.sqrt(corrected) + 1e-8)
        decay = np.full_like(self.value, WEIGHT_DECAY if self.decays else 0)
        if sparse and self.sparse:
            decay[small(self.value)] = SPARSE_DECAY
        if sparse and self.fading is not None:
            decay[self.fading] = SPARSE_DECAY
        self.value *= 1 - rate * decay


class Conv:
    """3x3 convolution with padding 1, channels last."""

    def __init__(self, random, inputs, outputs):
        scale = np.sqrt(2 / (9 * inputs))
        self.weight = Parameter(random.normal(size=(9 * inputs, outputs)) * scale, decays=True)
        self.weight.sparse = inputs > 1
        self.parameters = [self.weight]

    def forward(self, x, training):
        """The nine shifted images side by side, times the weights."""
        self.shape = batch, height, width, channels = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        self.columns = np.concatenate(shifts, axis=-1).reshape(-1, 9 * channels)
        return (self.columns @ self.weight.value).reshape(batch, height, width, -1)

    def backward(self, gradient):
        """Gradient of the input."""
        batch, height, width, channels = self.shape
        flat = gradient.reshape(-1, gradient.shape[-1])
        self.weight.gradient = self.columns.T @ flat
        columns = (flat @ self.weight.value.T).reshape(batch, height, width, 9, channels)
        padded = np.zeros((batch, height + 2, width + 2, channels), np.float32)
        for shift in range(9):
            i, j = divmod(shift, 3)
            padded[:, i : i + height, j : j + width] += columns[:, :, :, shift]
        return padded[:, 1:-1, 1:-1]

    def onnx_weight(self):
        """The weights as [outputs, inputs, 3, 3]."""
        return self.weight.value.reshape(3, 3, -1, self.weight.value.shape[1]).transpose(3, 2, 0, 1)


class BatchNorm:
    """Batch normalisation over all but the last axis."""

    def __init__(self, channels):
        self.scale, self.shift = Parameter(np.ones(channels)), Parameter(np.zeros(channels))
        self.mean, self.variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        self.parameters = [self.scale, self.shift]

    def forward(self, x, training):
        """Normalise by the batch when training, else by the running statistics."""
        if training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.mean += MOMENTUM * (mean - self.mean)
            self.variance += MOMENTUM * (variance - self.variance)
        else:
            mean, variance = self.mean, self.variance
        self.inverse = 1 / np.sqrt(variance + np.float32(EPSILON))
        self.normal = (x - mean) * self.inverse
        return self.normal * self.scale.value + self.shift.value

    def backward(self, gradient):
        """Gradient of the input."""
        self.shift.gradient = gradient.sum((0, 1, 2))
        self.scale.gradient = (gradient * self.normal).sum((0, 1, 2))
        count = gradient[..., 0].size
        centred = gradient - (self.shift.gradient + self.normal * self.scale.gradient) / count
        return centred * self.scale.value * self.inverse


class Relu:
    """max(x, 0)."""

    parameters = ()

    def forward(self, x, training):
        """Cut below zero."""
        self.positive = x > 0
        return x * self.positive

    def backward(self, gradient):
        """Gradient of the input."""
        return gradient * self.positive


class MaxPool:
    """Maximum of 2x2 windows."""

    parameters = ()

    def forward(self, x, training):
        """Halve height and width."""
        batch, height, width, channels = x.shape
        blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        best = blocks.max((2, 4), keepdims=True)
        hits = blocks == best
        self.share = hits / hits.sum((2, 4), keepdims=True, dtype=np.float32)
        return best[:, :, 0, :, 0]

    def backward(self, gradient):
        """Gradient of the input, shared among equal maxima."""
        blocks = self.share * gradient[:, :, None, :, None]
        batch, height, _, width, _, channels = blocks.shape
        return blocks.reshape(batch, 2 * height, 2 * width, channels)


class Residual:
    """x + layers(x)."""

    def __init__(self, *layers):
        self.layers = layers
        self.parameters = [parameter for layer in layers for parameter in layer.parameters]

    def forward(self, x, training):
        """Add the branch."""
        return x + forward(self.layers, x, training)

    def backward(self, gradient):
        """Gradient of the input."""
        return gradient + backward(self.layers, gradient)


class Gemm:
    """Flatten in ONNX's order (channels first), times weights, plus bias."""

    def __init__(self, random, inputs, outputs):
        self.weight = Parameter(random.normal(size=(inputs, outputs)) / np.sqrt(inputs), decays=True)
        self.weight.sparse = True
        self.bias = Parameter(np.zeros(outputs))
        self.parameters = [self.weight, self.bias]

    def forward(self, x, training):
        """Logits."""
        self.shape = x.shape
        self.flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return self.flat @ self.weight.value + self.bias.value

    def backward(self, gradient):
        """Gradient of the input."""
        self.weight.gradient = self.flat.T @ gradient
        self.bias.gradient = gradient.sum(0)
        batch, height, width, channels = self.shape
        flat = gradient @ self.weight.value.T
        return flat.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


def forward(layers, x, training=False):
    """Run layers one after the other."""
    for layer in layers:
        x = layer.forward(x, training)
    return x


def backward(layers, gradient):
    """Run the layers' gradients from last to first."""
    for layer in reversed(layers):
        gradient = layer.backward(gradient)
    return gradient


def network(random):
    """The layers of the demo network."""
    return [
        Conv(random, 1, 32),
        BatchNorm(32),
        Relu(),
        Conv(random, 32, 32),
        BatchNorm(32),
        Relu(),
        MaxPool(),
        Residual(Conv(random, 32, 64), BatchNorm(64), Relu(), Conv(random, 64, 32), BatchNorm(32)),
        Relu(),
        MaxPool(),
        Gemm(random, 128, 10),
    ]


def flat_layers(layers):
    """All layers, those inside residual branches too."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from layer.layers
        else:
            yield layer


def fade_channels(layers):
    """Choose the weaker half of the channels that only one convolution reads; they will fade."""
    flat = list(flat_layers(layers))
    convs = [index for index, layer in enumerate(flat) if isinstance(layer, Conv)]
    for index in (convs[0], convs[2]):
        conv, norm = flat[index : index + 2]
        order = np.argsort(np.abs(norm.scale.value))
        weak = order[: len(order) // 2]
        for parameter in (conv.weight, norm.scale, norm.shift):
            parameter.fading = np.zeros(parameter.value.shape, bool)
            parameter.fading[..., weak] = True


def shifted(random, images):
    """Every image moved by up to one pixel each way."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moves = random.integers(0, 3, (len(images), 2))
    return np.stack([padded[n, i : i + 8, j : j + 8] for n, (i, j) in enumerate(moves)])


def rate_at(progress):
    """Learning rate: a short rise, then a cosine."""
    return PEAK_RATE * min(progress / 0.1, 0.5 * (1 + np.cos(np.pi * progress)))


def logit_gradient(logits, labels):
    """Gradient of the smoothed cross entropy, averaged over the batch."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    goal = np.eye(10, dtype=np.float32)[labels] * (1 - SMOOTHING) + SMOOTHING / 10
    return (odds / odds.sum(1, keepdims=True) - goal) / len(labels)


def train(images, labels):
    """Train a network on NHWC images; returns its layers."""
    random = np.random.default_rng(SEED)
    layers = network(random)
    parameters = [parameter for layer in layers for parameter in layer.parameters]
    batches = len(images) // BATCH
    for epoch in range(EPOCHS):
        sparse = epoch >= SPARSE_FROM * EPOCHS
        if sparse and parameters[0].fading is None:
            fade_channels(layers)
        order = random.permutation(len(images))
        for index in range(batches):
            chosen = order[index * BATCH : (index + 1) * BATCH]
            logits = forward(layers, shifted(random, images[chosen]), training=True)
            backward(layers, logit_gradient(logits, labels[chosen]))
            number = epoch * batches + index + 1
            rate = rate_at(number / (EPOCHS * batches))
            for parameter in parameters:
                parameter.step(number, rate, sparse)
    return layers


def accuracy(layers, images, labels):
    """Share of right answers."""
    return float((forward(layers, images).argmax(1) == labels).mean())


class Writer:
    """Collects the nodes and weights of an ONNX graph."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def constant(self, name, array):
        """Add a weight."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def node(self, kind, *inputs, output=None, **attributes):
        """Add a node; returns the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name, **attributes))
        return output or name

    def layers(self, layers, value):
        """Add layers one after the other."""
        for layer in layers:
            value = self.layer(layer, value)
        return value

    def layer(self, layer, value):
        """Add one layer."""
        prefix = f"{type(layer).__name__.lower()}_{len(self.nodes)}"
        match layer:
            case Conv():
                weight = self.constant(f"{prefix}.weight", layer.onnx_weight())
                return self.node("Conv", value, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            case BatchNorm():
                return self.batch_norm(layer, value, prefix)
            case Relu():
                return self.node("Relu", value)
            case MaxPool():
                return self.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
            case Residual():
                return self.node("Add", value, self.layers(layer.layers, value))
            case Gemm():
                flat = self.node("Flatten", value)
                weight = self.constant(f"{prefix}.weight", layer.weight.value.T)
                bias = self.constant(f"{prefix}.bias", layer.bias.value)
                return self.node("Gemm", flat, weight, bias, output="logits", transB=1)

    def batch_norm(self, layer, value, prefix):
        """Add a batch normalisation with its running statistics."""
        parts = {"scale": layer.scale.value, "bias": layer.shift.value, "mean": layer.mean, "var": layer.variance}
        names = [self.constant(f"{prefix}.{part}", array) for part, array in parts.items()]
        return self.node("BatchNormalization", value, *names, epsilon=EPSILON)


def export(layers, path):
    """Write the network as ONNX, each operator its own node."""
    writer = Writer()
    writer.layers(layers, "image")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(writer.nodes, "digits", [image], [logits], writer.weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="rabot demo"
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def split(images, labels, seed):
    """Hold out a fifth, with the same share of each digit."""
    return train_test_split(images, labels, test_size=0.2, random_state=seed, stratify=labels)


def channels_first(images):
    """NHWC to NCHW."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder (now: %(default)s)")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="hold out a fifth of the training images instead, to choose settings without seeing the test images",
    )
    arguments = parser.parse_args()
    if arguments.validate and arguments.out == HERE:
        parser.error("--validate needs --out: its files are not the demo's")
    digits = load_digits()
    images, labels = (digits.images[..., None] / 16).astype(np.float32), digits.target.astype(np.int64)
    images, held_out, labels, held_out_labels = split(images, labels, seed=0)
    if arguments.validate:
        images, held_out, labels, held_out_labels = split(images, labels, seed=1)
    layers = train(images, labels)
    count = sum(parameter.value.size for layer in layers for parameter in layer.parameters)
    print(f"{count} parameters, {len(labels)} training images, {len(held_out)} held out")
    print(f"accuracy: training {accuracy(layers, images, labels):.2%}", end=", ")
    print(f"held out {accuracy(layers, held_out, held_out_labels):.2%}")
    export(layers, arguments.out / "digits.onnx")
    np.savez_compressed(arguments.out / "digits-test.npz", image=channels_first(held_out), label=held_out_labels)
    np.savez_compressed(
        arguments.out / "digits-calibration.npz", image=channels_first(images[:CALIBRATION_IMAGES])
    )


if __name__ == "__main__":
    sys.exit(main())
