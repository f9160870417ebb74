"""Linear classifiers are fooled as well: ten numbers, and pictures moved along the weights of a class.

N pictures of H x W, 0..255; K classes.
"""

import math
from collections.abc import Callable

import keras
import numpy as np

TEN_INPUTS = (2.0, -1.0, 3.0, -2.0, 2.0, 2.0, 1.0, -4.0, 5.0, 1.0)
TEN_WEIGHTS = (-1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0)


def ten_numbers(eps: float = 0.5) -> tuple[list[list[float]], list[tuple[float, float]]]:
    """Works out the lecture's example: a small step of each input along its weight's sign adds up.

    Args:
        eps: the step; the weights are 1 and -1, so that w is its own sign.

    Returns:
        Rows [x, w, x + eps w] for each of the ten inputs, and for x and x + eps w the pair (score, probability),
        probability = 1 / (1 + exp(-score)).

    Source: Karpathy 2015, Breaking Linear Classifiers on ImageNet: 0.0474 becomes 0.88.
    """
    moved = [x + eps * w for x, w in zip(TEN_INPUTS, TEN_WEIGHTS, strict=True)]
    scores = [sum(x * w for x, w in zip(xs, TEN_WEIGHTS, strict=True)) for xs in (TEN_INPUTS, moved)]
    rows = [list(row) for row in zip(TEN_INPUTS, TEN_WEIGHTS, moved, strict=True)]
    return rows, [(score, 1 / (1 + math.exp(-score))) for score in scores]


def train(
    images: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    epochs: int = 10,
    learning_rate: float = 1e-3,
    decay: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
    callback: Callable[[float], None] | None = None,
) -> keras.Model:
    """Trains a linear softmax on pixels, with all pictures in memory.

    Args:
        images: uint8 [N, H, W, 3].
        labels: int [N], 0..K-1.
        classes: K.
        epochs: how often every picture is seen.
        learning_rate: of Adam.
        decay: weight of the sum of the squared weights: the more, the smoother the templates.
        batch_size: pictures a step.
        seed: of the order of the pictures.
        callback: called after each epoch with its mean loss.

    Returns:
        A classifier [N, H, W, 3], 0..255 -> [N, K].
    """
    picture = keras.Input(images.shape[1:])
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(picture))
    dense = keras.layers.Dense(
        classes,
        activation="softmax",
        kernel_initializer=keras.initializers.RandomNormal(stddev=1e-4, seed=seed),
        kernel_regularizer=keras.regularizers.L2(decay),
        name="linear",
    )
    model = keras.Model(picture, dense(x), name="linear_softmax")
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    random, labels = np.random.default_rng(seed), np.asarray(labels, np.int32)
    for _ in range(epochs):
        order, loss = random.permutation(len(images)), 0.0
        model.reset_metrics()
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            loss = model.train_on_batch(images[rows].astype(np.float32), labels[rows])  # mean so far
        if callback is not None:
            callback(float(loss))
    return model


def probabilities(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Gives what the model answers, float32 [N, K].

    Args:
        model: what `train` gives.
        images: [N, H, W, 3], 0..255.
        batch_size: pictures at once.
    """
    parts = [images[begin : begin + batch_size] for begin in range(0, len(images), batch_size)]
    return np.concatenate([np.asarray(model(part.astype(np.float32), training=False)) for part in parts])


def templates(model: keras.Model) -> np.ndarray:
    """Gives the weights of each class as a picture's change, float32 [K, H, W, 3].

    Args:
        model: what `train` gives.
    """
    weights = model.get_layer("linear").get_weights()[0]  # [H W 3, K]
    return weights.T.reshape([-1, *model.input_shape[1:]])


def template_picture(template: np.ndarray, percentile: float = 99.5) -> np.ndarray:
    """Gives a template as a picture: grey is 0, and the percentile of its sizes black or full colour.

    Args:
        template: [H, W, 3].
        percentile: a few values are far larger than the rest.

    Returns:
        uint8 [H, W, 3].
    """
    size = np.percentile(np.abs(template), percentile) or 1.0
    return np.rint(np.clip(127.5 + 127.5 * template / size, 0, 255)).astype(np.uint8)


def moved(image: np.ndarray, template: np.ndarray, length: float) -> np.ndarray:
    """Gives a picture moved along a template, rounded to 8 bits.

    Args:
        image: [H, W, 3], 0..255.
        template: [H, W, 3], the weights of a class.
        length: mean size of the change, grey levels, before clipping to 0..255.
    """
    change = length * template / max(float(np.abs(template).mean()), 1e-20)
    return np.clip(np.rint(np.asarray(image, np.float64) + change), 0, 255).astype(np.uint8)


def move_until(
    model: keras.Model, image: np.ndarray, index: int, score: float = 0.995, steps: int = 24
) -> np.ndarray:
    """Moves a picture along the weights of a class as little as makes the model that sure of the class.

    Args:
        model: what `train` gives.
        image: [H, W, 3], 0..255.
        index: the class.
        score: its probability; from 0.995 on it reads as 100 %.
        steps: of the search for the length: doubled from half a grey level, then halved.

    Returns:
        uint8 [H, W, 3]; where no length does, the longest that was tried.

    Source: Karpathy 2015, Breaking Linear Classifiers on ImageNet: picture + a fraction of the weights.
    """
    template = templates(model)[index]
    low, high = 0.0, math.inf
    length = 0.5
    for _ in range(steps):
        answer = model(moved(image, template, length)[None].astype(np.float32), training=False)
        sure = float(answer[0, index]) >= score
        low, high = (low, length) if sure else (length, high)
        if low > 255:
            break
        length = 2 * low if math.isinf(high) else (low + high) / 2
    return moved(image, template, low if math.isinf(high) else high)
