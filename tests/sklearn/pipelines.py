"""Trains scikit-learn pipelines, exports them with skl2onnx, and writes them as cases with ONNX Runtime's outputs.

    python pipelines.py DIR

Every case is a folder DIR/NAME with model.onnx, tolerance.json and test_data_set_0, as `rabot onnx-test DIR` reads
them: labels must be equal, probabilities and scores within 1e-5. Data ships with scikit-learn or is made here; seeds
are fixed. Nothing is done where DIR holds what this version of the script and of the packages made.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import shutil
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn import cluster, compose, datasets, decomposition, ensemble, feature_extraction, impute, linear_model
from sklearn import naive_bayes, neighbors, neural_network, pipeline, preprocessing, svm, tree

OPSET = {"": 21, "ai.onnx.ml": 3}
PACKAGES = ["numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx"]

SPAM = ["buy", "cheap", "pills", "winner", "prize", "free", "click", "offer", "CASH", "now!!!", "100%", "deal"]
HAM = ["meeting", "noon", "project", "lunch", "report", "thanks", "Tuesday", "review", "call", "team", "budget", "plan"]
COMMON = ["the", "a", "at", "for", "we", "you", "please", "is", "to", "and", "größe", "café"]


def messages(count, seed):
    """Texts of which every second one is spam."""
    random = np.random.default_rng(seed)
    texts = []
    for index in range(count):
        words = np.concatenate([random.choice(SPAM if index % 2 else HAM, 3), random.choice(COMMON, 4)])
        random.shuffle(words)
        texts.append(random.choice([" ", "  ", ", ", " - "]).join(words))
    return np.array(texts), np.where(np.arange(count) % 2, "spam", "ham")


def iris():
    data, target = datasets.load_iris(return_X_y=True)
    return data.astype(np.float32), target


def cancer():
    data, target = datasets.load_breast_cancer(return_X_y=True)
    return data.astype(np.float32), target


def diabetes():
    data, target = datasets.load_diabetes(return_X_y=True)
    return data.astype(np.float32), target


def digits():
    data, target = datasets.load_digits(return_X_y=True)
    return (data / 16).astype(np.float32), target


def holes():
    """Irises of which every seventh number is missing."""
    data, target = iris()
    data = data.copy()
    data.flat[::7] = np.nan
    return data, target


def mixed():
    """Two numbers, a word and an integer that decide together."""
    random = np.random.default_rng(7)
    count = 300
    numbers = random.normal(size=(count, 2)).astype(np.float32)
    colours = random.choice(["red", "green", "blue"], count)
    sizes = random.integers(0, 4, count)
    target = numbers[:, 0] + (colours == "red") * 1.5 - sizes * 0.5 + numbers[:, 1] ** 2 > 0.4
    columns = {"numbers": numbers, "colour": colours.astype(object).reshape(-1, 1), "size": sizes.reshape(-1, 1)}
    return columns, target.astype(int)


def text_case(vectorizer, classifier, **options):
    texts, target = messages(200, 1)
    model = pipeline.make_pipeline(vectorizer, classifier).fit(texts, target)
    fresh, _ = messages(24, 2)
    return export(model, {"text": fresh.astype(object)}, [("text", StringTensorType([None]))], **options)


def table_case(model, data, rows=64, **options):
    features, target = data
    model.fit(features, target)
    step = max(1, len(features) // rows)
    chosen = features[::step][:rows]
    return export(model, {"X": chosen}, [("X", FloatTensorType([None, features.shape[1]]))], **options)


def mixed_case(classifier):
    columns, target = mixed()
    # skl2onnx names the inputs; scikit-learn gets one table of objects.
    table = np.hstack([columns["numbers"].astype(object), columns["colour"], columns["size"].astype(object)])
    encode = compose.ColumnTransformer([
        ("scale", preprocessing.StandardScaler(), [0, 1]),
        ("colour", preprocessing.OneHotEncoder(handle_unknown="ignore"), [2]),
        ("size", preprocessing.OneHotEncoder(handle_unknown="ignore"), [3]),
    ])
    model = pipeline.make_pipeline(encode, classifier).fit(table, target)
    types = [
        ("numbers", FloatTensorType([None, 2])),
        ("colour", StringTensorType([None, 1])),
        ("size", Int64TensorType([None, 1])),
    ]
    feeds = {name: values[:40] for name, values in columns.items()}
    return export(model, feeds, types)


def export(model, feeds, types, zipmap=False):
    steps = [step for _, step in model.steps] if isinstance(model, pipeline.Pipeline) else [model]
    options = {id(steps[-1]): {"zipmap": zipmap}} if hasattr(steps[-1], "predict_proba") else {}
    # ONNX Runtime asks the machine for the locale; this one every Linux has.
    vectorizers = [step for step in steps if isinstance(step, feature_extraction.text.CountVectorizer)]
    options.update({id(step): {"locale": "C.UTF-8"} for step in vectorizers})
    return to_onnx(model, initial_types=types, target_opset=OPSET, options=options or None), feeds


def logistic(**options):
    return linear_model.LogisticRegression(max_iter=1000, **options)


def cases():
    """Names, and what trains and exports."""
    tfidf, count = feature_extraction.text.TfidfVectorizer, feature_extraction.text.CountVectorizer
    scaled = lambda model: pipeline.make_pipeline(preprocessing.StandardScaler(), model)
    return {
        "spam_tfidf_logistic": lambda: text_case(tfidf(), logistic()),
        "spam_tfidf_zipmap": lambda: text_case(tfidf(), logistic(), zipmap=True),
        "spam_bigrams_stop_words": lambda: text_case(
            tfidf(ngram_range=(1, 2), stop_words=["the", "a"], sublinear_tf=True), logistic()),
        "spam_case_bayes": lambda: text_case(count(lowercase=False), naive_bayes.MultinomialNB()),
        "spam_token_pattern": lambda: text_case(count(token_pattern="[a-zA-Z]+"), logistic()),
        "spam_characters": lambda: text_case(tfidf(analyzer="char", ngram_range=(1, 3)), logistic()),
        "iris_forest": lambda: table_case(ensemble.RandomForestClassifier(20, random_state=0), iris()),
        "iris_forest_zipmap": lambda: table_case(
            ensemble.RandomForestClassifier(5, random_state=0), iris(), zipmap=True),
        "cancer_forest": lambda: table_case(ensemble.RandomForestClassifier(50, random_state=0), cancer()),
        "cancer_extra_trees": lambda: table_case(ensemble.ExtraTreesClassifier(20, random_state=0), cancer()),
        "diabetes_forest": lambda: table_case(ensemble.RandomForestRegressor(20, random_state=0), diabetes()),
        "diabetes_boosting": lambda: table_case(ensemble.GradientBoostingRegressor(random_state=0), diabetes()),
        "cancer_boosting": lambda: table_case(ensemble.GradientBoostingClassifier(random_state=0), cancer()),
        "iris_boosting": lambda: table_case(ensemble.GradientBoostingClassifier(random_state=0), iris()),
        "iris_histogram_boosting": lambda: table_case(
            ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0), holes()),
        "diabetes_histogram_boosting": lambda: table_case(
            ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=0), diabetes()),
        "cancer_adaboost": lambda: table_case(ensemble.AdaBoostClassifier(n_estimators=10, random_state=0), cancer()),
        "iris_tree": lambda: table_case(tree.DecisionTreeClassifier(random_state=0), iris()),
        "iris_neighbors": lambda: table_case(neighbors.KNeighborsClassifier(5), iris()),
        "diabetes_neighbors": lambda: table_case(neighbors.KNeighborsRegressor(5, weights="distance"), diabetes()),
        "iris_isolation_forest": lambda: table_case(
            ensemble.IsolationForest(n_estimators=10, random_state=0), iris()),
        "mixed_scaler_onehot_svm": lambda: mixed_case(svm.SVC(probability=True, random_state=0)),
        "mixed_scaler_onehot_forest": lambda: mixed_case(ensemble.RandomForestClassifier(10, random_state=0)),
        "iris_svm": lambda: table_case(scaled(svm.SVC(kernel="poly", degree=3)), iris()),
        "iris_svm_probabilities": lambda: table_case(scaled(svm.SVC(probability=True, random_state=0)), iris()),
        "diabetes_svm": lambda: table_case(scaled(svm.SVR(kernel="sigmoid")), diabetes()),
        "iris_one_class_svm": lambda: table_case(scaled(svm.OneClassSVM(nu=0.2)), iris()),
        "diabetes_linear_svm": lambda: table_case(scaled(svm.LinearSVR(random_state=0)), diabetes()),
        "cancer_gradient_descent": lambda: table_case(
            scaled(linear_model.SGDClassifier(loss="log_loss", random_state=0)), cancer()),
        "iris_logistic": lambda: table_case(scaled(logistic()), iris()),
        "cancer_logistic": lambda: table_case(scaled(logistic()), cancer()),
        "diabetes_ridge": lambda: table_case(scaled(linear_model.Ridge()), diabetes()),
        "iris_perceptrons": lambda: table_case(
            scaled(neural_network.MLPClassifier((16, 8), max_iter=500, random_state=0)), iris()),
        "iris_gaussian_bayes": lambda: table_case(naive_bayes.GaussianNB(), iris()),
        "iris_kmeans": lambda: table_case(scaled(cluster.KMeans(3, n_init=4, random_state=0)), iris()),
        "digits_pca_logistic": lambda: table_case(
            pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(16, random_state=0), logistic()),
            digits()),
        "iris_imputer_min_max": lambda: table_case(
            pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.MinMaxScaler(), logistic()),
            holes()),
        "cancer_normalizer_binarizer": lambda: table_case(
            pipeline.make_pipeline(
                preprocessing.Normalizer("l1"), preprocessing.Binarizer(threshold=0.01), logistic()), cancer()),
        "diabetes_polynomials": lambda: table_case(
            pipeline.make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.Ridge()), diabetes()),
        "iris_discretizer": lambda: table_case(
            pipeline.make_pipeline(preprocessing.KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"), logistic()), iris()),
        "iris_stacked_votes": lambda: table_case(
            ensemble.VotingClassifier(
                [("tree", tree.DecisionTreeClassifier(max_depth=3, random_state=0)), ("line", logistic())],
                voting="soft", flatten_transform=False), iris()),
    }


def message_of(value, info):
    """The message that holds an output: a tensor, or a list of maps from labels to scores."""
    if info.type.WhichOneof("value") != "sequence_type":
        return numpy_helper.from_array(np.asarray(value), info.name)
    message = onnx.SequenceProto(name=info.name, elem_type=onnx.SequenceProto.MAP)
    for entry in value:
        message.map_values.append(map_of(entry))
    return message


def map_of(entry):
    texts = isinstance(next(iter(entry)), str)
    message = onnx.MapProto(key_type=onnx.TensorProto.STRING if texts else onnx.TensorProto.INT64)
    (message.string_keys if texts else message.keys).extend(
        key.encode() if texts else key for key in entry)
    message.values.elem_type = onnx.SequenceProto.TENSOR
    for score in entry.values():
        message.values.tensor_values.append(numpy_helper.from_array(np.float32(score)))
    return message


def write(folder, model, feeds):
    """One case with ONNX Runtime's outputs."""
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "tolerance.json").write_text(json.dumps({"rtol": 1e-5, "atol": 1e-5}))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for at, info in enumerate(model.graph.input):
        array = feeds[info.name]
        (data / f"input_{at}.pb").write_bytes(numpy_helper.from_array(array, info.name).SerializeToString())
    outputs = session.run(None, feeds)
    for at, (info, value) in enumerate(zip(model.graph.output, outputs, strict=True)):
        (data / f"output_{at}.pb").write_bytes(message_of(value, info).SerializeToString())


def build(target, script, cases):
    """Write all cases, given as pairs of a name and what makes model and feeds, unless they are there."""
    sources = [pathlib.Path(path).read_bytes() for path in [__file__, script]]
    made_by = {name: importlib.metadata.version(name) for name in PACKAGES}
    made_by["scripts"] = [hashlib.sha256(source).hexdigest() for source in sources]
    stamp = target / "made-by.json"
    if stamp.exists() and json.loads(stamp.read_text()) == made_by:
        print(f"{target} is up to date")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        fresh = pathlib.Path(temporary) / "cases"
        count = 0
        for name, make in cases:
            write(fresh / name, *make())
            count += 1
        (fresh / "made-by.json").write_text(json.dumps(made_by))
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        print(f"{count} cases in {target}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    warnings.filterwarnings("ignore")
    build(pathlib.Path(sys.argv[1]), __file__, cases().items())


if __name__ == "__main__":
    main()
