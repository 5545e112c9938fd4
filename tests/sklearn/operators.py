"""Writes small random models of single operators, with ONNX Runtime's outputs.

    python operators.py DIR

Cases are as those of pipelines.py. They cover what exporters of pipelines do not happen to use: all modes of trees,
aggregations, functions of scores, kernels, and all modes of the text operators.
"""

import itertools
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pipelines import build

ML, TEXT = "ai.onnx.ml", "com.microsoft"
POSTS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def model_of(node, feeds, opset):
    inputs = [
        helper.make_tensor_value_info(name, type_of(array), [f"{name}{axis}" for axis in range(array.ndim)])
        for name, array in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "case", inputs, outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(ML, opset), helper.make_opsetid(TEXT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    # ONNX Runtime says what the outputs are.
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for info, found, value in zip(graph.output, session.get_outputs(), session.run(None, feeds), strict=True):
        info.CopyFrom(helper.make_tensor_value_info(
            found.name, type_of(np.asarray(value)), [f"{found.name}.{axis}" for axis in range(np.ndim(value))]))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def type_of(array):
    return TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)


def trees(random, count, features, modes):
    """Node lists of random trees, as the older operators have them, and the leaves."""
    lists = {name: [] for name in ["treeids", "nodeids", "featureids", "modes", "values", "truenodeids",
                                   "falsenodeids", "missing_value_tracks_true"]}
    leaves = []

    def add(tree, node, depth, ids):
        leaf = depth == 0 or random.random() < 0.2
        children = (0, 0) if leaf else (next(ids), next(ids))
        row = [tree, node, int(random.integers(features)), "LEAF" if leaf else str(random.choice(modes)),
               float(random.integers(-2, 3)), *children, int(random.integers(2))]
        for name, value in zip(lists, row):
            lists[name].append(value)
        if leaf:
            leaves.append((tree, node))
        for child in () if leaf else children:
            add(tree, child, depth - 1, ids)

    for tree in range(count):
        ids = itertools.count(1)
        add(tree, 0, 4, ids)
    return {f"nodes_{name}": values for name, values in lists.items()}, leaves


def table(random, rows, features, dtype=np.float32):
    data = random.integers(-3, 4, (rows, features)).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        data.flat[:: 11] = np.nan
    return data


def tree_cases(random):
    for seed, (function, post, targets, dtype) in enumerate(itertools.product(
            ["SUM", "AVERAGE", "MIN", "MAX"], POSTS, [1, 3], [np.float32, np.float64])):
        nodes, leaves = trees(random, 5, 4, MODES)
        # ONNX Runtime forgets the base value of a target that no tree speaks of; the specification does not.
        sparse = seed % 3 == 0
        picked = [(leaf, target) for leaf in leaves for target in range(targets)
                  if not sparse or target == 0 or random.random() < 0.8]
        attributes = dict(
            nodes, n_targets=targets, aggregate_function=function, post_transform=post,
            target_treeids=[leaf[0] for leaf, _ in picked], target_nodeids=[leaf[1] for leaf, _ in picked],
            target_ids=[target for _, target in picked], target_weights=random.normal(size=len(picked)).tolist())
        if not sparse:
            attributes["base_values"] = random.normal(size=targets).tolist()
        node = helper.make_node("TreeEnsembleRegressor", ["X"], ["Y"], domain=ML, **attributes)
        yield f"tree_regressor_{seed}", node, {"X": table(random, 40, 4, dtype)}, 3
    seed = 0
    for classes, post, sign, one, base in itertools.product(
            [2, 3], POSTS, [False, True], [False, True], [False, True]):
        nodes, leaves = trees(random, 4, 4, MODES[:1] if seed % 2 else MODES)
        ids = [0] if one and classes == 2 else list(range(classes))
        picked = [(leaf, target) for leaf in leaves for target in ids]
        weights = random.normal(size=len(picked))
        # Two classes that both have weights are numbered as their labels: ONNX Runtime does not look at labels then.
        labels = [0, 1] if classes == 2 and not one else list(range(3, 3 + classes))
        attributes = dict(
            nodes, post_transform=post, classlabels_int64s=labels,
            class_treeids=[leaf[0] for leaf, _ in picked], class_nodeids=[leaf[1] for leaf, _ in picked],
            class_ids=[target for _, target in picked], class_weights=(weights if sign else abs(weights) / 4).tolist())
        if base:
            attributes["base_values"] = random.normal(size=1 if len(ids) == 1 else classes).tolist()
        node = helper.make_node("TreeEnsembleClassifier", ["X"], ["L", "S"], domain=ML, **attributes)
        dtype = [np.float32, np.float64, np.int64, np.int32][seed % 4]
        yield f"tree_classifier_{seed}", node, {"X": table(random, 40, 4, dtype)}, 3
        seed += 1
    nodes, leaves = trees(random, 6, 3, ["BRANCH_LEQ"])
    attributes = dict(nodes, n_targets=1, target_treeids=[tree for tree, _ in leaves],
                      target_nodeids=[node for _, node in leaves], target_ids=[0] * len(leaves))
    values = np.array(attributes.pop("nodes_values")) + 1e-12
    attributes["nodes_values_as_tensor"] = numpy_helper.from_array(values)
    attributes["target_weights_as_tensor"] = numpy_helper.from_array(random.normal(size=len(leaves)))
    attributes["nodes_hitrates_as_tensor"] = numpy_helper.from_array(np.ones(len(values)))
    node = helper.make_node("TreeEnsembleRegressor", ["X"], ["Y"], domain=ML, **attributes)
    yield "tree_regressor_double", node, {"X": table(random, 40, 3, np.float64)}, 3


def linear_cases(random):
    for post, classes, targets in itertools.product(POSTS, [2, 4], [1, 4]):
        node = helper.make_node(
            "LinearRegressor", ["X"], ["Y"], domain=ML, coefficients=random.normal(size=3 * targets).tolist(),
            intercepts=random.normal(size=targets).tolist(), targets=targets, post_transform=post)
        yield f"linear_regressor_{post}_{classes}_{targets}", node, {"X": random.normal(size=(9, 3)).astype(np.float32)}, 1
        rows = 1 if (classes, targets) == (2, 1) else classes
        node = helper.make_node(
            "LinearClassifier", ["X"], ["L", "S"], domain=ML, coefficients=random.normal(size=3 * rows).tolist(),
            intercepts=random.normal(size=rows).tolist(), post_transform=post,
            classlabels_strings=[f"label {n}" for n in range(classes)])
        data = random.normal(size=(9, 3)) * 2
        for dtype in [np.float32, np.float64, np.int64, np.int32]:
            name = f"linear_classifier_{post}_{classes}_{targets}_{np.dtype(dtype).name}"
            yield name, node, {"X": data.astype(dtype)}, 1


def svm_cases(random):
    kernels = ["LINEAR", "POLY", "RBF", "SIGMOID"]
    for kernel, post in itertools.product(kernels, POSTS):
        for classes, probabilities in itertools.product([2, 3, 4], [False, True]):
            counts = random.integers(1, 4, classes)
            vectors, pairs = int(counts.sum()), classes * (classes - 1) // 2
            attributes = dict(
                classlabels_ints=[10 + n for n in range(classes)], kernel_type=kernel, kernel_params=[0.3, 0.4, 3.0],
                coefficients=random.normal(size=vectors * (classes - 1)).tolist(), post_transform=post,
                support_vectors=random.normal(size=vectors * 3).tolist(), rho=random.normal(size=pairs).tolist(),
                vectors_per_class=counts.tolist())
            if probabilities:
                attributes["prob_a"] = (-random.random(size=pairs) - 0.5).tolist()
                attributes["prob_b"] = random.normal(size=pairs).tolist()
            node = helper.make_node("SVMClassifier", ["X"], ["L", "S"], domain=ML, **attributes)
            name = f"svm_classifier_{kernel}_{post}_{classes}_{int(probabilities)}"
            yield name, node, {"X": random.normal(size=(12, 3)).astype(np.float32)}, 1
        node = helper.make_node(
            "SVMRegressor", ["X"], ["Y"], domain=ML, kernel_type=kernel, kernel_params=[0.3, 0.4, 2.0], n_supports=4,
            coefficients=random.normal(size=4).tolist(), support_vectors=random.normal(size=12).tolist(),
            rho=[0.25], one_class=int(post == "SOFTMAX"))
        yield f"svm_regressor_{kernel}_{post}", node, {"X": random.normal(size=(12, 3)).astype(np.float32)}, 1
    node = helper.make_node(
        "SVMClassifier", ["X"], ["L", "S"], domain=ML, classlabels_strings=["a", "b", "c"], rho=[0.2],
        coefficients=random.normal(size=9).tolist(), kernel_params=[0.0, 0.0, 0.0], post_transform="SOFTMAX")
    yield "svm_classifier_without_vectors", node, {"X": random.normal(size=(12, 3)).astype(np.float32)}, 1


def feature_cases(random):
    for norm, dtype in itertools.product(["MAX", "L1", "L2"], [np.float32, np.float64, np.int64, np.int32]):
        node = helper.make_node("Normalizer", ["X"], ["Y"], domain=ML, norm=norm)
        data = random.integers(-5, 6, (8, 3)).astype(dtype)
        data[2] = 0
        yield f"normalizer_{norm}_{np.dtype(dtype).name}", node, {"X": data}, 1
    for dtype in [np.float32, np.float64, np.int64, np.int32]:
        node = helper.make_node("Scaler", ["X"], ["Y"], domain=ML, offset=[0.5, 1.5, -2.25], scale=[0.1, 3.0, 7.5])
        yield f"scaler_{np.dtype(dtype).name}", node, {"X": random.integers(-5, 6, (8, 3)).astype(dtype)}, 1
    inputs = {"A": random.integers(0, 9, (4, 2)), "B": random.integers(0, 9, (4, 3)), "C": random.integers(0, 9, (4, 1))}
    node = helper.make_node("FeatureVectorizer", list(inputs), ["Y"], domain=ML, inputdimensions=[2, 2, 3])
    yield "feature_vectorizer", node, inputs, 1
    node = helper.make_node("ArrayFeatureExtractor", ["X", "I"], ["Y"], domain=ML)
    for name, array in [("list", np.arange(5.0)), ("cube", np.arange(24).reshape(2, 3, 4)),
                        ("strings", np.array([["a", "b"], ["c", "d"]], dtype=object))]:
        yield f"array_feature_extractor_{name}", node, {"X": array, "I": np.array([[1, 0, 1]])}, 1
    node = helper.make_node("Imputer", ["X"], ["Y"], domain=ML, imputed_value_int64s=[7, 8], replaced_value_int64=-1)
    yield "imputer_integers", node, {"X": np.array([[-1, 2], [3, -1]])}, 1
    node = helper.make_node("Imputer", ["X"], ["Y"], domain=ML, imputed_value_floats=[7.5],
                            replaced_value_float=float("nan"))
    yield "imputer_nan", node, {"X": np.array([[np.nan, 2], [3, np.nan]], np.float32)}, 1
    node = helper.make_node("OneHotEncoder", ["X"], ["Y"], domain=ML, cats_int64s=[3, 1, 2], zeros=1)
    yield "one_hot_floats", node, {"X": np.array([[1.0, 2.9], [3.0, 5.0]], np.float32)}, 1
    node = helper.make_node("OneHotEncoder", ["X"], ["Y"], domain=ML, cats_strings=["a", "b"])
    yield "one_hot_strings", node, {"X": np.array(["b", "c", "a"], dtype=object)}, 1
    node = helper.make_node("LabelEncoder", ["X"], ["Y"], domain=ML, classes_strings=["a", "b"], default_int64=9)
    yield "label_encoder_first_version", node, {"X": np.array(["b", "c", "a"], dtype=object)}, 1
    node = helper.make_node("LabelEncoder", ["X"], ["Y"], domain=ML, keys_floats=[0.5, 2.0],
                            values_strings=["half", "two"])
    yield "label_encoder_floats", node, {"X": np.array([[2.0, 0.5, 3.0]], np.float32)}, 2
    pairs = {"keys_tensor": numpy_helper.from_array(np.array([1.5, np.nan])),
             "values_tensor": numpy_helper.from_array(np.array([3.5, 4.5])),
             "default_tensor": numpy_helper.from_array(np.array([-7.5]))}
    node = helper.make_node("LabelEncoder", ["X"], ["Y"], domain=ML, **pairs)
    yield "label_encoder_nan", node, {"X": np.array([np.nan, 1.5, 0.0])}, 4
    for keys in [np.array(["dog", "cow", "cat"], dtype=object), np.array([3, 1, 0])]:
        node = helper.make_node("CategoryMapper", ["X"], ["Y"], domain=ML, cats_strings=["cat", "dog"],
                                cats_int64s=[1, 3], default_int64=8, default_string="none")
        yield f"category_mapper_{keys.dtype.name}", node, {"X": keys}, 1


def text_cases(random):
    words = np.array(["a", "b", "c", "d", "e"], dtype=object)
    for mode, lengths, skips, dtype in itertools.product(
            ["TF", "IDF", "TFIDF"], [(1, 1), (1, 2), (2, 2), (1, 3)], [0, 2], ["strings", "int64"]):
        pool = ["a", "c", "a", "b", "b", "c", "a", "b", "c"]
        numbers = [ord(word) for word in pool]
        node = helper.make_node(
            "TfIdfVectorizer", ["X"], ["Y"], mode=mode, min_gram_length=lengths[0], max_gram_length=lengths[1],
            max_skip_count=skips, ngram_counts=[0, 2, 6], ngram_indexes=[3, 0, 4, 1, 2],
            weights=[0.5, 1.5, 2.5, 3.5, 4.5],
            **({"pool_strings": pool} if dtype == "strings" else {"pool_int64s": numbers}))
        data = random.choice(words, (4, 9))
        data = data if dtype == "strings" else np.vectorize(ord)(data).astype(np.int64)
        yield f"tfidf_{mode}_{lengths[0]}_{lengths[1]}_{skips}_{dtype}", node, {"X": data}, 1
    texts = np.array([["buy now, cheap!", "größe  a1 b22"], ["", "x,y;;z zz"]], dtype=object)
    common = {"domain": TEXT, "pad_value": "#"}
    rules = {
        "expression": {"tokenexp": r"[a-zA-Z0-9_]+", "mincharnum": 1},
        "long_words": {"tokenexp": r"\w+", "mincharnum": 2},
        "longest": {"tokenexp": "z|zz|b|bu", "mincharnum": 1},
        "characters": {"tokenexp": ".", "mincharnum": 1},
        "separators": {"separators": [",", ";", " +"], "mincharnum": 1},
        "separated_words": {"separators": [r"\W"], "mincharnum": 2},
        "no_separator": {"separators": [""], "mincharnum": 1},
    }
    for (name, rule), mark in itertools.product(rules.items(), [0, 1]):
        node = helper.make_node("Tokenizer", ["X"], ["Y"], mark=mark, **common, **rule)
        yield f"tokenizer_{name}_{mark}", node, {"X": texts}, 1
        if mark:
            yield f"tokenizer_{name}_list", node, {"X": texts[1]}, 1


def cases():
    """Names, and what makes model and feeds."""
    random = np.random.default_rng(0)
    for family in [tree_cases, linear_cases, svm_cases, feature_cases, text_cases]:
        for name, node, feeds, opset in family(random):
            yield name, lambda: (model_of(node, feeds, opset), feeds)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(pathlib.Path(sys.argv[1]), __file__, cases())


if __name__ == "__main__":
    main()
