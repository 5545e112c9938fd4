"""From files to model inputs: pictures, sounds and text, as the models were trained on them."""

import wave

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def read_wave(path):
    """A mono .wav file as float samples at 16 kHz (from 16 or 48 kHz)."""
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    factor = rate // 16000
    return samples[: len(samples) // factor * factor].reshape(-1, factor).mean(1)


def windows(samples, size, step):
    """Whole windows of a signal."""
    return [samples[start : start + size] for start in range(0, len(samples) - size + 1, step)]


def to_nchw(image, mean=0.0, scale=1.0):
    """(pixels - mean) / scale with a batch axis and channels first."""
    pixels = (np.asarray(image, np.float32) - np.float32(mean)) / np.float32(scale)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]


def centre_crop(image, size):
    """The middle square, resized."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.BICUBIC)


def text_image(text, size, position, font_size):
    """Black text on white; returns the picture and the box of the text."""
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(font_size)
    draw.text(position, text, fill="black", font=font)
    return image, draw.textbbox(position, text, font=font)


def mel_filters(count=80, fft=400, rate=16000):
    """Slaney mel filter bank."""
    step, log_step = 200 / 3, np.log(6.4) / 27
    top = 15 + np.log(rate / 2 / 1000) / log_step
    mels = np.linspace(0, top, count + 2)
    edges = np.where(mels < 15, mels * step, 1000 * np.exp(log_step * (mels - 15)))
    widths, ramps = np.diff(edges), edges[:, None] - np.linspace(0, rate / 2, fft // 2 + 1)
    filters = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]))
    return filters * (2 / (edges[2:] - edges[:-2]))[:, None]


def log_mel(samples, seconds=30):
    """Whisper's log-mel spectrogram of 16 kHz samples, padded to 30 seconds."""
    padded = np.zeros(16000 * seconds, np.float32)
    padded[: len(samples)] = samples[: len(padded)]
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(padded, 200, mode="reflect"), 400)[::160]
    power = np.abs(np.fft.rfft(frames[: 100 * seconds] * np.hanning(401)[:-1])) ** 2
    mel = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
    return ((np.maximum(mel, mel.max() - 8) + 4) / 4).astype(np.float32)[None]


def head_and_tail(data, config):
    """Magika's features: the first and the last bytes of a file."""
    block, size, pad = config["block_size"], config["beg_size"], config["padding_token"]
    head, tail = list(data[:block].lstrip()[:size]), list(data[-block:].rstrip()[-size:])
    return np.array([head + [pad] * (size - len(head)) + [pad] * (size - len(tail)) + tail], np.int32)


def word_errors(expected, actual):
    """Edit distance between two lists of words."""
    row = list(range(len(actual) + 1))
    for i, word in enumerate(expected, start=1):
        previous, row[0] = row[0], i
        for j, other in enumerate(actual, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def words(text):
    """Lower-case words without punctuation."""
    return "".join(c if c.isalnum() else " " for c in text.lower().replace("mr.", "mister")).split()
