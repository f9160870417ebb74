"""Style and dream on sound: a spectrogram is the picture, its frequencies are the channels.

Letters: S samples, T frames, B frequency bins, F filters. A spectrogram is log(1 + |STFT|), float32 [1, 1, T, B].
The net has one layer of random filters over time; phase comes back by Griffin-Lim.

Source: DmitryUlyanov/neural-style-audio-tf, with fewer filters.
"""

import functools
import io
import os

import keras
import numpy as np
import scipy.signal
import soundfile
import tensorflow as tf

from tfcnn.art.deepdream import guided_objective
from tfcnn.errors import InputError
from tfcnn.imageopt import Problem, Result, constraints, lbfgs, maximize, objectives, optimizers, transforms
from tfcnn.imageopt.optimize import Callback

RATE = 22050  # samples a second
WINDOW, HOP = 2048, 512  # samples of a frame, and to the next
LAYER = "filters"
_LOUDEST = 12.0  # of a spectrogram's values: log(1 + 1024), a full-scale sine, is 6.2
_SILENT = 1e-4  # root mean square below which a sound is silence; full scale is 1


# ------------------------------------------------------------------------------------------ sounds


def read(source: str | os.PathLike | bytes, seconds: float = 10.0) -> np.ndarray:
    """Read a sound file: mono, RATE, at most so many seconds of its start.

    Returns:
        float32 [S], full scale is 1.

    Raises:
        InputError: not there, not a sound, too short, silent, or with values that are not numbers.
    """
    name = "the sound" if isinstance(source, bytes) else os.fspath(source)
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else name) as file:
            samples = file.read(int(seconds * file.samplerate), dtype="float32", always_2d=True).mean(axis=1)
            rate = file.samplerate
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise InputError(f"{name}: no sound file that can be read ({error})") from error
    if rate != RATE and len(samples):
        divisor = np.gcd(rate, RATE)
        samples = scipy.signal.resample_poly(samples, RATE // divisor, rate // divisor).astype(np.float32)
    require_sound(samples, name)
    return samples


def require_sound(samples: np.ndarray, name: str) -> None:
    """Raises InputError for silence, and for what is too short or not finite, by its name."""
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: samples that are not numbers")
    if len(samples) < WINDOW + 16 * HOP:
        raise InputError(f"{name}: {len(samples) / RATE:.2f} s of sound; it takes at least 0.5 s")
    if np.sqrt(np.mean(np.square(samples))) < _SILENT:
        raise InputError(f"{name}: silence; nothing in it could be painted or dreamt of")


def encode(samples: np.ndarray) -> bytes:
    """The bytes of a .wav file, 16 bits; louder than full scale is made softer as a whole."""
    samples = samples / max(1.0, np.abs(samples).max())
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


# ------------------------------------------------------------------------------------ spectrograms


def _stft(samples: tf.Tensor) -> tf.Tensor:
    return tf.signal.stft(samples, WINDOW, HOP)


def _inverse(spectrum: tf.Tensor) -> tf.Tensor:
    window = tf.signal.inverse_stft_window_fn(HOP)
    return tf.signal.inverse_stft(spectrum, WINDOW, HOP, window_fn=window)


def _padded(samples) -> tf.Tensor:
    """Mirrored at both ends by a window and filled up to whole frames, so that each sample lies in four."""
    rest = -len(samples) % HOP
    return tf.pad(tf.convert_to_tensor(samples, tf.float32), [[WINDOW, WINDOW + rest]], "REFLECT")


def spectrogram(samples: np.ndarray) -> np.ndarray:
    """log(1 + |STFT|) of a sound [S]: float32 [1, 1, T, B]."""
    return tf.math.log1p(tf.abs(_stft(_padded(samples))))[None, None].numpy()


def sound(log_magnitude: np.ndarray, start: np.ndarray, iterations: int = 60) -> np.ndarray:
    """Find a sound that has a spectrogram: Griffin and Lim's iteration, sped up by momentum.

    Args:
        log_magnitude: [1, 1, T, B].
        start: a sound [S] whose phase is the first guess; the result has its length.
        iterations: how many.

    Returns:
        float32 [S].

    Source: Griffin & Lim 1984; the momentum of 0.99 is Perraudin, Balazs, Sondergaard 2013.
    """
    magnitude = tf.math.expm1(tf.maximum(log_magnitude[0, 0], 0.0))
    samples = _griffin_lim(magnitude, _stft(_padded(start)), tf.constant(iterations))
    return samples.numpy()[WINDOW : WINDOW + len(start)]


@functools.cache
def _compiled():
    def solve(magnitude, first, iterations):
        def project(spectrum):
            phase = spectrum / tf.cast(tf.maximum(tf.abs(spectrum), 1e-9), tf.complex64)
            return tf.cast(magnitude, tf.complex64) * phase

        def body(guess, last, left):
            consistent = _stft(_inverse(project(guess)))
            return consistent + 0.99 * (consistent - last), consistent, left - 1

        guess, _, _ = tf.while_loop(lambda g, c, left: left > 0, body, (first, first, iterations))
        return _inverse(project(guess))

    return tf.function(solve, reduce_retracing=True)


def _griffin_lim(magnitude, first, iterations):
    return _compiled()(magnitude, first, iterations)


# ------------------------------------------------------------------------------- style and dreams


def random_net(filters: int = 512, length: int = 11, seed: int = 0) -> keras.Model:
    """One layer of random filters over time, fixed: [1, 1, T, B] -> {"filters": [1, 1, T - length + 1, F]}.

    Args:
        filters: how many; the source's 4096.
        length: of a filter, in frames.
        seed: of its weights.
    """
    bins = WINDOW // 2 + 1
    deviation = np.sqrt(2.0) * np.sqrt(2.0 / ((bins + filters) * length))
    picture = keras.Input((1, None, bins), name="spectrogram")
    weights = keras.initializers.RandomNormal(stddev=deviation, seed=seed)
    convolution = keras.layers.Conv2D(
        filters, (1, length), activation="relu", use_bias=False, kernel_initializer=weights, name=LAYER
    )
    return keras.Model(picture, {LAYER: convolution(picture)}, name="random_filters")


def transfer(
    net: keras.Model,
    content: np.ndarray,
    style: np.ndarray,
    evaluations: int,
    *,
    content_weight: float = 1.0,
    style_weight: float = 100.0,
    callback: Callback | None = None,
) -> Result:
    """Give a sound the style of another: L-BFGS from the content's spectrogram.

    Args:
        net: of `random_net`.
        content, style: spectrograms [1, 1, T, B]; the lengths may differ.
        evaluations: of the loss and its gradient.
        content_weight, style_weight: of the losses, each relative to its target; content 0 gives a texture.
        callback: as `imageopt.lbfgs` takes it.

    Returns:
        A result whose image is the spectrogram.
    """
    gram = objectives.gram_matrix(net(style)[LAYER])
    what = style_weight * objectives.gram_match(LAYER, gram, relative=True)
    if content_weight:
        what += content_weight * objectives.feature_match(LAYER, net(content)[LAYER], relative=True)
    bounds = (0.0, _LOUDEST)
    return lbfgs(Problem(net, what), content, evaluations, bounds=bounds, first_step=0.03, callback=callback)


def dream(
    net: keras.Model,
    content: np.ndarray,
    guide: np.ndarray | None,
    count: int,
    *,
    step_size: float = 0.02,
    seed: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Let a sound dream: its filters answer more of what they answer, or of what a guide has.

    Args:
        net: of `random_net`.
        content: a spectrogram [1, 1, T, B]. guide: another, or None.
        count: of steps.
        step_size: by which a value of the spectrogram changes on average in a step.
        seed: of the jitter, up to 16 frames.
        callback: as `imageopt.maximize` takes it.
    """
    what = objectives.mean_square(LAYER) if guide is None else guided_objective({LAYER: 1.0}, net(guide))
    loudest = max(float(content.max()), 0.0 if guide is None else float(guide.max()))
    problem = Problem(
        net,
        what,
        optimizer=optimizers.Normalized(step_size),
        transform=transforms.jitter(16),
        constraint=constraints.in_range(0.0, loudest),
    )
    return maximize(problem, content, count, seed=seed, callback=callback)
