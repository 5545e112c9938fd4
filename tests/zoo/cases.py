"""Inputs made from real data for every model: the first of a model's is what benchmarks use.

The others have other batch sizes and lengths, where the model leaves them open.
"""

import fnmatch
import json

import numpy as np
from PIL import Image

from engines import DEMO, ZooError
from signals import centre_crop, head_and_tail, log_mel, text_image, to_nchw, windows

LIBRIVOX = "pocketsphinx/librivox"  # read sentences in the test data
SPEECH = f"{LIBRIVOX}/sense_and_sensibility_01_austen_64kb-0870.wav"
OTHER_SPEECH = f"{LIBRIVOX}/sense_and_sensibility_01_austen_64kb-0880.wav"
SENTENCES = [
    "How do I reset my password?",
    "I forgot my login credentials",
    "The cat sat on the mat",
    "A kitten is resting on a rug",
]
PARAGRAPH = (
    "A hand plane is a tool for shaping wood, pushed over the surface by the strength of its user alone. "
    "It flattens, thins and smooths a rough piece of timber, and a carpenter sets how deep its iron bites. "
    "Planes with long soles make long boards straight, while short ones follow small curves and take off less."
)
PHOTOS = ["skimage/chelsea.png", "skimage/coffee.png", "skimage/rocket.jpg"]
TUMOR_SIZE = (240, 240)
START, NO_TIMESTAMPS, END = 50257, 50362, 50256  # Whisper's tokens

LIGHT = [
    "alexnet",
    "densenet121",
    "inception-v1",
    "inception-v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
]
CASES = {}


def cases(*names):
    """Register a function that makes the inputs of a model."""

    def register(function):
        CASES.update(dict.fromkeys(names, function))
        return function

    return register


def select(patterns):
    """The models whose names match, in the order of cases.py."""
    for pattern in patterns:
        if not fnmatch.filter(CASES, pattern):
            raise ZooError(f"no model is called {pattern!r}")
    return [name for name in CASES if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def feeds(model, *arrays):
    """Arrays by input name."""
    return dict(zip(model.inputs, arrays, strict=True))


def photo(cache, name):
    """A photo as EfficientNet-Lite0 takes it."""
    return to_nchw(centre_crop(cache.image(name), 224), 127, 128)


def scene(cache, name):
    """A photo as SSD takes it."""
    return to_nchw(cache.image(name).resize((300, 300), Image.BILINEAR), 127.5, 127.5)


def ramp(model):
    """The input of the models that the onnx package ships."""
    shape = model.session.get_inputs()[0].shape
    return (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)


def phantom(cache):
    """A drawn head as the tumor classifier takes it."""
    return np.asarray(cache.image("skimage/phantom.png").resize(TUMOR_SIZE), np.float32)[None] / np.float32(255)


def written(text, size, position, font_size):
    """Rendered text as the OCR models take it."""
    return to_nchw(text_image(text, size, position, font_size)[0], 127.5, 127.5)


def magika_config(cache):
    """Settings of the file type classifier."""
    return json.loads((cache.path("magika").parent / "config.min.json").read_text())


def empty_past(layers, heads, width, batch=1):
    """Keys and values of no tokens."""
    nothing = np.zeros((batch, heads, 0, width), np.float32)
    return {f"past_{kind}_{layer}": nothing for layer in range(layers) for kind in "kv"}


def to_past(results):
    """The keys and values that a run gave, named as inputs of the next."""
    return {name.replace("present", "past"): value for name, value in results.items() if name != "logits"}


def silero_windows(samples):
    """Windows of 64 old and 512 new samples."""
    padded = np.concatenate([np.zeros(64, np.float32), samples.astype(np.float32)])
    return [window[None] for window in windows(padded, 576, 512)]


def silero_feeds(model, samples):
    """The inputs of all windows, each with the state that ONNX Runtime had reached."""
    state, made = np.zeros((2, 1, 128), np.float32), []
    for window in silero_windows(samples):
        made.append({"input": window, "state": state, "sr": np.array(16000)})
        state = model(**made[-1])["stateN"]
    return made


def wake_mel(samples):
    """Samples as the melspectrogram model takes them."""
    return (samples[None] * 32768).astype(np.float32)


def wake_windows(mel):
    """The output of the melspectrogram model as inputs of the embedding."""
    return [np.ascontiguousarray(part[None, :, :, None]) for part in windows(mel[0, 0] / 10 + 2, 76, 8)]


def wake_vectors(cache, samples):
    """Inputs of the wake-word heads, from ONNX Runtime's embeddings."""
    mel = cache.reference("openwakeword-melspectrogram")(wake_mel(samples))
    vectors = cache.reference("openwakeword-embedding").many(wake_windows(mel))
    return [part[None] for part in windows(np.stack([vector[0, 0, 0] for vector in vectors]), 16, 1)]


@cases("digits")
def digits(cache, model):
    """Test images of the demo."""
    images = np.load(DEMO / "digits-test.npz")["image"]
    return [feeds(model, images[:1]), feeds(model, images), feeds(model, images[5:12])]


@cases("efficientnet-lite0")
def efficientnet(cache, model):
    """One photo, and three at once."""
    photos = [photo(cache, name) for name in PHOTOS]
    return [feeds(model, photos[0]), feeds(model, np.concatenate(photos)), feeds(model, photos[2])]


@cases("ssd-mobilenet-v2-coco")
def ssd(cache, model):
    """Two photos."""
    return [feeds(model, scene(cache, name)) for name in ("skimage/motorcycle_left.png", "ultralytics/bus.jpg")]


@cases("ncf-movielens")
def ncf(cache, model):
    """Held-out ratings."""
    test = np.load(model.folder / "test.npz")
    return [feeds(model, test["user"][:count], test["item"][:count]) for count in (64, 1, 10000)]


@cases("spam-mlp")
def spam(cache, model):
    """Held-out mails."""
    test = np.load(model.folder / "test.npz")
    return [feeds(model, test["features"][:count]) for count in (64, 1, 1000)]


@cases("magika")
def magika(cache, model):
    """A picture, then all kinds of files at once."""
    config = magika_config(cache)
    files = [cache.data(name) for name in ("skimage/coffee.png", "ultralytics/bus.jpg", SPEECH)]
    files += [cache.zoo.folder / "zoo.py", cache.path("spam-mlp")]
    rows = [head_and_tail(path.read_bytes(), config) for path in files]
    return [feeds(model, rows[0]), feeds(model, np.concatenate(rows)), feeds(model, rows[3])]


@cases("smollm2-135m")
def smollm2(cache, model):
    """One token after 31, a prompt, five tokens after 31, two prompts at once."""
    tokenizer = model.tokenizer()
    ids = np.array([tokenizer.encode(PARAGRAPH).ids])
    past = to_past(model(input_ids=ids[:, :31], **empty_past(30, 3, 64)))
    prompt = np.array([tokenizer.encode("The capital of France is").ids])
    both = np.concatenate([prompt, ids[:, : prompt.shape[1]]])
    return [
        {"input_ids": ids[:, 31:32]} | past,
        {"input_ids": prompt} | empty_past(30, 3, 64),
        {"input_ids": ids[:, 31:36]} | past,
        {"input_ids": both} | empty_past(30, 3, 64, batch=2),
    ]


@cases("whisper-tiny-en-encoder")
def whisper_encoder(cache, model):
    """One sentence, and two at once."""
    first, second = log_mel(cache.sound(SPEECH)), log_mel(cache.sound(OTHER_SPEECH))
    return [feeds(model, first), feeds(model, np.concatenate([second, first]))]


@cases("whisper-tiny-en-decoder")
def whisper_decoder(cache, model):
    """Six tokens, two, 18, and two sentences at once."""
    tokenizer = model.tokenizer()
    text = " Mrs. Dashwood now saw that she had no time to lose, and wrote to her mother without delay."
    tokens = np.array([[START, NO_TIMESTAMPS, *tokenizer.encode(text, add_special_tokens=False).ids]])
    encoder = cache.reference("whisper-tiny-en-encoder")
    first, second = (encoder(log_mel(cache.sound(name))) for name in (SPEECH, OTHER_SPEECH))
    both = np.concatenate([first, second])
    made = [feeds(model, tokens[:, :count], first) for count in (6, 2, 18)]
    return [*made, feeds(model, np.repeat(tokens[:, :4], 2, axis=0), both)]


@cases("silero-vad")
def silero(cache, model):
    """A window in speech, the first one, one of a pause, and three at once."""
    made = silero_feeds(model, cache.sound(SPEECH))
    chosen = [made[index] for index in (40, 0, 100)]
    three = {"input": np.concatenate([one["input"] for one in chosen]), "sr": np.array(16000)}
    three["state"] = np.concatenate([one["state"] for one in chosen], axis=1)
    return [*chosen, three]


@cases("openwakeword-melspectrogram")
def melspectrogram(cache, model):
    """About a second of speech, and a whole recording."""
    speech, word = cache.sound(SPEECH), cache.sound("hey_jarvis.wav")
    return [feeds(model, wake_mel(samples)) for samples in (speech[:17280], word)]


@cases("openwakeword-embedding")
def embedding(cache, model):
    """One window, and five at once."""
    mel = cache.reference("openwakeword-melspectrogram")(wake_mel(cache.sound("alexa.wav")))
    parts = wake_windows(mel)
    return [feeds(model, parts[3]), feeds(model, np.concatenate(parts[:5]))]


@cases("openwakeword-hey-jarvis", "openwakeword-alexa")
def wake_head(cache, model):
    """The moment each word is heard, and ordinary speech."""
    best = []
    for name in ("hey_jarvis.wav", "alexa.wav", SPEECH):
        parts = wake_vectors(cache, cache.sound(name))
        scores = [float(score[0, 0]) for score in model.many(parts)]
        best.append(feeds(model, parts[int(np.argmax(scores))]))
    return best


@cases("tumor-vgg16")
def tumor(cache, model):
    """The drawn head, and it with a photo."""
    face = np.asarray(cache.image("skimage/astronaut.png").resize(TUMOR_SIZE), np.float32)[None] / np.float32(255)
    return [feeds(model, phantom(cache)), feeds(model, np.concatenate([face, phantom(cache)]))]


@cases("minilm-l6-v2")
def minilm(cache, model):
    """64 tokens, a short sentence, and two sentences of which one is padded."""
    tokenizer = model.tokenizer()

    def rows(*texts, width=None):
        ids = [tokenizer.encode(text).ids[:width] for text in texts]
        width = max(map(len, ids))
        padded = np.array([row + [0] * (width - len(row)) for row in ids])
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        return feeds(model, padded, mask, np.zeros_like(padded))

    return [rows(PARAGRAPH, width=64), rows(SENTENCES[0]), rows(SENTENCES[3], SENTENCES[0])]


@cases("ppocrv4-det")
def text_boxes(cache, model):
    """Rendered text on a square, and on a smaller picture of another shape."""
    square = written("Invoice 2024-07", (640, 640), (150, 300), 48)
    return [feeds(model, square), feeds(model, written("Total 17.50", (416, 224), (60, 90), 40))]


@cases("ppocrv4-rec")
def read_text(cache, model):
    """A line of text, a longer one, and two at once."""
    line = written("Invoice 2024-07", (320, 48), (6, 4), 34)
    longer = written("A hand plane shaves wood", (480, 48), (6, 4), 34)
    both = np.concatenate([line, written("Total 17.50", (320, 48), (6, 4), 34)])
    return [feeds(model, line), feeds(model, longer), feeds(model, both)]


@cases("ppocrv4-cls")
def text_direction(cache, model):
    """Upright text, and it with the same on its head."""
    image, _ = text_image("Invoice 2024", (192, 48), (4, 6), 28)
    both = [to_nchw(picture, 127.5, 127.5) for picture in (image, image.rotate(180))]
    return [feeds(model, both[0]), feeds(model, np.concatenate(both))]


@cases(*(f"onnx-light-{suffix}" for suffix in LIGHT))
def light(cache, model):
    """The ramp from 0 to 1."""
    return [feeds(model, ramp(model))]


@cases("synthetic-resnet50", "synthetic-mobilenetv2")
def synthetic_cnn(cache, model):
    """A seeded random picture."""
    return [feeds(model, np.random.default_rng(0).random((1, 3, 224, 224), np.float32))]


@cases("synthetic-bert-base")
def synthetic_bert(cache, model):
    """128 tokens, and two rows of which one is padded."""
    ids = np.arange(128)[None]
    mask = np.ones((2, 128), np.int64)
    mask[1, 90:] = 0
    return [feeds(model, ids, np.ones_like(ids)), feeds(model, np.concatenate([ids, ids + 500]), mask)]


@cases("synthetic-gpt2")
def synthetic_gpt2(cache, model):
    """One token after 31, and eight tokens after none."""
    random = np.random.default_rng(0)
    past = empty_past(12, 12, 64)
    full = {name: random.normal(size=(1, 12, 31, 64)).astype(np.float32) for name in past}
    mask = np.triu(np.full((1, 1, 8, 8), -1e9, np.float32), k=1)
    one = {"ids": np.array([[7]]), "positions": np.array([[31]])}
    eight = {"ids": np.arange(7, 15)[None], "positions": np.arange(8)[None]}
    return [
        one | {"attention_mask": np.zeros((1, 1, 1, 32), np.float32)} | full,
        eight | {"attention_mask": mask} | past,
    ]
