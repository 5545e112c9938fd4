"""Checks that each model's known right answer comes out of `rabot`.

    python3 answers.py [--models NAME ...] [--target T] [--threads N] [--engine rabot|onnxruntime]

Needs what `zoo/zoo.py get --all` and `zoo/zoo.py data` put into the cache, and `rabot` (the RABOT
variable, or target/release/rabot). Where a model's output is its next input, `rabot` decodes
a few steps on its own; the rest is checked on the inputs that ONNX Runtime's answers lead to.
"""

import argparse
import fnmatch
import sys
import time
from pathlib import Path

import numpy as np
import onnx

from cases import (
    CASES,
    END,
    LIBRIVOX,
    LIGHT,
    NO_TIMESTAMPS,
    SENTENCES,
    SPEECH,
    START,
    empty_past,
    magika_config,
    phantom,
    photo,
    ramp,
    scene,
    select,
    silero_feeds,
    to_past,
    wake_mel,
    wake_windows,
    written,
)
from engines import (
    DEMO,
    ENGINES,
    Cache,
    EngineError,
    ZooError,
    add_rabot_options,
    open_zoo,
    rabot_options,
)
from signals import head_and_tail, log_mel, text_image, to_nchw, windows, word_errors, words

CHECKS = []  # (function, names of the models it runs)
NEXT_WORDS = 4
VOICE_STEPS = 12


class Wrong(Exception):
    """A model gave another answer than the known one."""


def expect(condition, message):
    """Raise Wrong unless the condition holds; returns the message otherwise."""
    if not condition:
        raise Wrong(message)
    return message


def check(*names):
    """Register a check function for one or more models."""

    def register(function):
        CHECKS.append((function, names))
        return function

    return register


def sigmoid(x):
    """Logistic function."""
    return 1 / (1 + np.exp(-x))


@check("digits")
def digits(cache):
    """Accuracy on the demo's test images."""
    test = np.load(DEMO / "digits-test.npz")
    accuracy = float((cache.model("digits")(test["image"]).argmax(1) == test["label"]).mean())
    return expect(accuracy > 0.985, f"accuracy {accuracy:.2%}")


@check("efficientnet-lite0")
def image_classes(cache):
    """ImageNet classes of clear photos."""
    photos = {
        "skimage/chelsea.png": 285,  # Egyptian cat
        "skimage/coffee.png": 967,  # espresso
        "skimage/rocket.jpg": 657,  # missile
        "sklearn/images/china.jpg": 698,  # palace
        "sklearn/images/flower.jpg": 985,  # daisy
    }
    logits = cache.model("efficientnet-lite0").many([photo(cache, name) for name in photos])
    found = [int(row.argmax()) for row in logits]
    return expect(found == list(photos.values()), f"classes {found}")


@check("ssd-mobilenet-v2-coco")
def objects(cache):
    """COCO classes of the boxes with a score of at least 0.5."""
    photos = {
        "skimage/motorcycle_left.png": {4},
        "skimage/chelsea.png": {17},
        "skimage/astronaut.png": {1},
        "ultralytics/bus.jpg": {1, 6},
        "ultralytics/zidane.jpg": {1},
    }
    results = cache.model("ssd-mobilenet-v2-coco").many([scene(cache, name) for name in photos])
    messages = []
    for (name, expected), result in zip(photos.items(), results):
        scores = sigmoid(result["concat_1:0"][0])
        scores[:, 0] = 0  # background
        found = {int(row.argmax()) for row in scores if row.max() > 0.5}
        messages.append(expect(expected <= found, f"{Path(name).stem} {sorted(found)}"))
    return "; ".join(messages)


@check("ncf-movielens")
def ratings(cache):
    """Error on 10,000 held-out ratings; always answering the mean gives 1.05."""
    model = cache.model("ncf-movielens")
    test = np.load(model.folder / "test.npz")
    predicted = model(test["user"], test["item"])[:, 0]
    error = float(np.sqrt(((predicted - test["rating"]) ** 2).mean()))
    return expect(error < 0.89, f"RMSE {error:.3f}")


@check("spam-mlp")
def spam(cache):
    """Accuracy on 1,000 held-out mails; the larger class has 0.59."""
    model = cache.model("spam-mlp")
    test = np.load(model.folder / "test.npz")
    accuracy = float(((model(test["features"])[:, 0] > 0.5) == test["label"]).mean())
    return expect(accuracy > 0.86, f"accuracy {accuracy:.3f}")


@check("magika")
def file_types(cache):
    """Types of files at hand, by content only."""
    config = magika_config(cache)
    files = {
        Path(__file__): "python",
        cache.zoo.folder / "zoo.toml": "toml",
        cache.data("skimage/coffee.png"): "png",
        cache.data("ultralytics/bus.jpg"): "jpeg",
        cache.path("magika"): "onnx",
        Path(sys.executable): "elf",
    }
    scores = cache.model("magika").many([head_and_tail(path.read_bytes(), config) for path in files])
    found = [config["target_labels_space"][int(row.argmax())] for row in scores]
    return expect(found == list(files.values()), f"types {found}")


def continue_text(model, ids, count):
    """Greedy decoding with the cache of keys and values."""
    past, made = empty_past(30, 3, 64), []
    for _ in range(count):
        results = model(input_ids=np.array([ids]), **past)
        ids = [int(results["logits"][0, -1].argmax())]
        made += ids
        past = to_past(results)
    return made


@check("smollm2-135m")
def next_words(cache):
    """Completes a sentence, as ONNX Runtime does."""
    model, reference = cache.model("smollm2-135m"), cache.reference("smollm2-135m")
    tokenizer = model.tokenizer()
    prompt = tokenizer.encode("The capital of France is").ids
    made = continue_text(model, prompt, NEXT_WORDS)
    text = tokenizer.decode(made)
    expect(made == continue_text(reference, prompt, NEXT_WORDS), f"{text!r} is not what onnxruntime says")
    return expect(text.startswith(" Paris"), f"The capital of France is{text!r}")


def transcribe(decoder, states):
    """Greedy decoding of one sentence; returns the tokens from the start on."""
    tokens = [START, NO_TIMESTAMPS]
    while tokens[-1] != END and len(tokens) < 60:
        tokens.append(int(decoder(np.array([tokens]), states)[0, -1].argmax()))
    return tokens


@check("whisper-tiny-en-encoder", "whisper-tiny-en-decoder")
def speech_to_text(cache):
    """Word error rate on five sentences; each token is the best one after those that ONNX Runtime gave before it.

    If all are the same as ONNX Runtime's, decoding step by step gives the same transcript.
    """
    encoder, decoder = cache.model("whisper-tiny-en-encoder"), cache.model("whisper-tiny-en-decoder")
    reference, tokenizer = cache.reference("whisper-tiny-en-decoder"), decoder.tokenizer()
    lines = cache.data(f"{LIBRIVOX}/transcription").read_text().splitlines()
    texts, _, names = zip(*(line.removeprefix("<s> ").rstrip(")").rpartition(" </s> (") for line in lines))
    states = encoder.many([log_mel(cache.sound(f"{LIBRIVOX}/{name}.wav")) for name in names])
    drafts = [transcribe(reference, state) for state in states]
    logits = decoder.many(
        [dict(zip(decoder.inputs, (np.array([draft[:-1]]), state))) for draft, state in zip(drafts, states)]
    )
    errors = total = 0
    for text, draft, scores in zip(texts, drafts, logits):
        tokens = scores[0, 1:].argmax(-1).tolist()
        expect(tokens == draft[2:], f"{tokenizer.decode(tokens)!r} is not {tokenizer.decode(draft)!r}")
        errors += word_errors(words(text), words(tokenizer.decode(tokens[:-1])))
        total += len(words(text))
    return expect(errors / total < 0.15, f"{errors} of {total} words wrong")


@check("silero-vad")
def voice(cache):
    """Share of 32 ms windows with voice, in speech and in noise.

    The windows start from the states that ONNX Runtime reached; the first ones are run in sequence too.
    """
    model, reference = cache.model("silero-vad"), cache.reference("silero-vad")
    noise = np.random.default_rng(0).normal(size=48000) * 0.01
    inputs = [silero_feeds(reference, samples) for samples in (cache.sound(SPEECH), noise)]
    results = model.many(inputs[0] + inputs[1])
    heard = [result["output"][0, 0] > 0.5 for result in results]
    speech, other = np.mean(heard[: len(inputs[0])]), np.mean(heard[len(inputs[0]) :])
    state = inputs[0][0]["state"]
    for feeds, stepped in zip(inputs[0][:VOICE_STEPS], results):
        result = model(**feeds | {"state": state})
        state = result["stateN"]
        expect(abs(result["output"] - stepped["output"]).max() < 1e-4, "drifts from onnxruntime over the windows")
    return expect(speech > 0.85 and other < 0.05, f"voice in {speech:.0%} of speech, {other:.0%} of noise")


@check("openwakeword-melspectrogram", "openwakeword-embedding", "openwakeword-hey-jarvis", "openwakeword-alexa")
def wake_words(cache):
    """Each wake word, spoken by a synthesiser, is heard by its own head only, and neither in ordinary speech."""
    sounds = {"hey_jarvis.wav": [True, False], "alexa.wav": [False, True], SPEECH: [False, False]}
    heads = [cache.model("openwakeword-hey-jarvis"), cache.model("openwakeword-alexa")]
    mels = cache.model("openwakeword-melspectrogram").many([wake_mel(cache.sound(name)) for name in sounds])
    parts = [wake_windows(mel) for mel in mels]
    vectors = cache.model("openwakeword-embedding").many(sum(parts, []))
    inputs, start = [], 0
    for count in map(len, parts):
        stacked = np.stack([vector[0, 0, 0] for vector in vectors[start : start + count]])
        inputs.append([part[None] for part in windows(stacked, 16, 1)])
        start += count
    scores = [head.many(sum(inputs, [])) for head in heads]
    messages, start = [], 0
    for (name, expected), count in zip(sounds.items(), map(len, inputs)):
        best = [max(float(score.max()) for score in row[start : start + count]) for row in scores]
        start += count
        message = f"{Path(name).stem.split('_')[0]} {best[0]:.2f} {best[1]:.2f}"
        messages.append(expect([score > 0.5 for score in best] == expected, message))
    return "; ".join(messages)


@check("tumor-vgg16")
def tumor(cache):
    """A drawn head phantom: no labelled scan is at hand, so this is ONNX Runtime's own answer."""
    scores = cache.model("tumor-vgg16")(phantom(cache))[0]
    best = ["glioma", "meningioma", "notumor", "pituitary"][int(scores.argmax())]
    return expect(best == "meningioma" and abs(scores.max() - 0.784) < 0.01, f"{best} {scores.max():.3f}")


@check("minilm-l6-v2")
def similar_sentences(cache):
    """Cosine similarity of two pairs of paraphrases, and between the pairs."""
    model = cache.model("minilm-l6-v2")
    tokenizer, inputs = model.tokenizer(), []
    for encoding in map(tokenizer.encode, SENTENCES):
        ids, mask = np.array([encoding.ids]), np.array([encoding.attention_mask])
        inputs.append(dict(zip(model.inputs, (ids, mask, np.zeros_like(ids)))))
    vectors = np.stack([result["sentence_embedding"][0] for result in model.many(inputs)])
    similarity = vectors @ vectors.T
    near, far = min(similarity[0, 1], similarity[2, 3]), similarity[:2, 2:].max()
    return expect(near > 0.55 and far < 0.15, f"paraphrases {near:.2f} or more, others {far:.2f} or less")


@check("ppocrv4-det")
def text_boxes(cache):
    """The text's pixels are found, and no others."""
    image, (left, top, right, bottom) = text_image("Invoice 2024-07", (640, 640), (150, 300), 48)
    mask = cache.model("ppocrv4-det")(to_nchw(image, 127.5, 127.5))[0, 0] > 0.3
    rows, columns = np.nonzero(mask)
    expect(len(rows), "no text found")
    found = columns.min(), rows.min(), columns.max(), rows.max()
    distance = max(abs(a - b) for a, b in zip(found, (left, top, right, bottom)))
    return expect(distance < 20, f"box within {distance:.0f} pixels")


@check("ppocrv4-rec")
def read_text(cache):
    """Reads rendered text."""
    model, text = cache.model("ppocrv4-rec"), "Invoice 2024-07"
    characters = ["", *model.metadata()["character"].split("\n"), " "]
    best = model(written(text, (320, 48), (6, 4), 34))[0].argmax(-1)
    changes = [index for index, before in zip(best, [0, *best]) if index and index != before]
    found = "".join(characters[index] for index in changes)
    return expect(found == text, f"read {found!r}")


@check("ppocrv4-cls")
def text_direction(cache):
    """Tells upright text from text on its head."""
    image, _ = text_image("Invoice 2024", (192, 48), (4, 6), 28)
    pictures = [to_nchw(picture, 127.5, 127.5) for picture in (image, image.rotate(180))]
    found = [int(row.argmax()) for row in cache.model("ppocrv4-cls").many(pictures)]
    return expect(found == [0, 1], f"turned: {found}")


def light_model(cache, name):
    """Compares with the output that the onnx package ships."""
    model = cache.model(name)
    (expected_file,) = model.folder.glob("*_output_0.pb")
    expected = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(expected_file.read_bytes()))
    difference = float(np.abs(model(ramp(cache.reference(name))) - expected).max())
    return expect(difference < 1e-3 * np.abs(expected).max() + 1e-7, f"largest difference {difference:.1e}")


def synthetic(cache, name):
    """Random weights have no right answer: only runs."""
    model = cache.model(name)
    results = model(**CASES[name](cache, cache.reference(name))[0])
    arrays = results.values() if isinstance(results, dict) else [results]
    return expect(all(np.isfinite(array).all() for array in arrays), "finite (random weights)")


for suffix in LIGHT:
    check(f"onnx-light-{suffix}")(lambda cache, name=f"onnx-light-{suffix}": light_model(cache, name))
for model_name in fnmatch.filter(CASES, "synthetic-*"):
    check(model_name)(lambda cache, name=model_name: synthetic(cache, name))


def run(cache, chosen):
    """Run every check that has a chosen model; returns the exit status."""
    failed = count = 0
    for function, names in CHECKS:
        if not chosen.intersection(names):
            continue
        cache.loaded.clear()
        count, start = count + 1, time.perf_counter()
        try:
            message, status = function(cache), "ok"
        except (Wrong, EngineError, ZooError) as error:
            message, status = str(error), "FAILED"
            failed += 1
        seconds = time.perf_counter() - start
        print(f"{status:6} {', '.join(names)}: {message} [{seconds:.1f} s]", flush=True)
    print(f"{count - failed} of {count} checks passed")
    return 1 if failed else 0


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rabot_options(parser)
    parser.add_argument("--threads", type=int, help="number of threads (rabot's default)")
    parser.add_argument("--engine", choices=ENGINES, default="rabot", help="what runs the models (now: %(default)s)")
    arguments = parser.parse_args()
    try:
        cache = Cache(open_zoo(arguments.cache), arguments.engine, rabot_options(arguments, arguments.threads))
        return run(cache, set(select(arguments.models)))
    except (ZooError, EngineError) as error:
        print(f"answers: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
