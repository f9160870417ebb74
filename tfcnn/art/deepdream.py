"""DeepDream: a picture is changed so that a layer sees more of what it sees in it already.

Letters: H W height and width, C channels, M locations of a guide. The program of google/deepdream dream.ipynb
line by line: make_step is the problem's step, deepdream is `dream`, the zoom loop is `zoom`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.errors import InputError
from tfcnn.imageopt import (
    Objective,
    TiledProblem,
    constraints,
    maximize,
    objectives,
    optimizers,
    transforms,
)

SMALLEST = 16  # side of an octave, pixels

# Layers that dream well: net -> {layer: weight}. Seen on Lite0: block 7 gives ornaments and eyes, 10 heads
# with fur, 12 trees, whole animals and houses; 7 and 12 together all of it, each where it fits.
LAYERS = {
    "efficientnet_lite0": {"block7_expand_conv": 1.0, "block12_expand_conv": 1.0},
    "googlenet": {"inception_4c/output": 1.0},
    "inception_v3": {"mixed4": 1.0, "mixed5": 1.5, "mixed6": 2.0, "mixed7": 2.5},
    "vgg16": {"block5_conv2": 1.0},
    "vgg19": {"block5_conv2": 1.0},
}


def objective(layers: Mapping[str, float], channels: Sequence[int] = ()) -> Objective:
    """The weighted mean squares of layers: the gradient at a layer is its activations (objective_L2).

    Args:
        layers: {name: weight}.
        channels: only these of each layer; all when empty.
    """
    if not channels:
        terms = [weight * objectives.mean_square(layer) for layer, weight in layers.items()]
    else:
        name = ":".join(["", ",".join(map(str, channels))])
        terms = [weight * _square(layer, channels, layer + name) for layer, weight in layers.items()]
    return sum(terms[1:], terms[0])


def _square(layer, channels, name):
    def square(features):
        return tf.reduce_mean(tf.square(tf.gather(features, channels, axis=-1)), axis=[1, 2, 3])

    return objectives.of(name, layer, square)


def guided_objective(layers: Mapping[str, float], guide: Mapping[str, tf.Tensor]) -> Objective:
    """At each location the dot product with the guide's vector that has the largest one (objective_guide).

    Args:
        layers: {name: weight}.
        guide: {name: the guide picture's features [1, h, w, C]}, of the same net at the guide's own size.
    """
    terms = [weight * _guided(layer, guide[layer]) for layer, weight in layers.items()]
    return sum(terms[1:], terms[0])


def _guided(layer, guide):
    vectors = tf.reshape(tf.cast(guide, tf.float32), [-1, guide.shape[-1]])  # [M, C]

    def match(features):  # [N, h, w, C]
        best = tf.argmax(tf.tensordot(features, vectors, [[-1], [-1]]), axis=-1)
        wanted = tf.stop_gradient(tf.gather(vectors, best))
        return tf.reduce_mean(tf.reduce_sum(features * wanted, axis=-1), axis=[1, 2])

    return objectives.of(f"guide {layer}", layer, match)


def guide_similarity(features: tf.Tensor, guide: tf.Tensor) -> float:
    """How near a picture is to a guide: the cosine of each location to its nearest of the guide, averaged.

    Args:
        features: [1, h, w, C]. guide: [1, h', w', C].
    """
    rows, vectors = (
        tf.math.l2_normalize(tf.reshape(each, [-1, each.shape[-1]]), axis=-1) for each in (features, guide)
    )
    return float(tf.reduce_mean(tf.reduce_max(tf.matmul(rows, vectors, transpose_b=True), axis=-1)))


def problem(
    net: keras.Model,
    what: Objective,
    *,
    step_size: float = 1.5,
    jitter: int = 32,
    clip: bool = True,
    tile: int = 1024,
) -> TiledProblem:
    """What a step of the dream is (make_step): roll, normalised gradient, roll back, clip.

    Args:
        net: a flat functional model from pixels [N, H, W, 3], 0..255.
        what: an objective of this module, or any other whose terms are means over locations.
        step_size: grey levels that a pixel changes by on average in a step.
        jitter: pixels by which the picture is rolled at most, both ways.
        clip: keep pixels in 0..255; without it see `shown`.
        tile: pictures with a longer side are computed in tiles of this side, pixels; 0 never.

    Returns:
        The problem, compiled at first use and good for any number of pictures and sizes.
    """
    return TiledProblem(
        net,
        what,
        optimizer=optimizers.Normalized(step_size),
        transform=transforms.jitter(jitter),
        constraint=constraints.in_range() if clip else None,
        tile=tile,
    )


@dataclasses.dataclass(frozen=True)
class Dream:
    """A finished dream.

    Args:
        image: float32 [H, W, 3].
        history: an entry a step: {step (from 1), octave (from 1), value, each term}.
        octaves: an entry an octave: {height, width, before, after}, the value at its start and at its end,
            without jitter.
        final: {value, each term} of the finished picture.
    """

    image: np.ndarray
    history: list[dict]
    octaves: list[dict]
    final: dict[str, float]


def octave_sizes(height: int, width: int, octave_n: int, octave_scale: float) -> list[tuple[int, int]]:
    """Sizes of the octaves, the smallest first.

    Raises:
        InputError: the smallest is too small.
    """
    sizes = [
        (round(height / octave_scale**k), round(width / octave_scale**k)) for k in reversed(range(octave_n))
    ]
    least = min(sizes[0])
    if least < SMALLEST:
        needed = math.ceil(SMALLEST * octave_scale ** (octave_n - 1))
        raise InputError(
            f"a picture of {width}x{height} pixels has no {octave_n} octaves: the smallest would be "
            f"{sizes[0][1]}x{sizes[0][0]}, below {SMALLEST}; take fewer octaves, or a shorter side of at "
            f"least {needed}"
        )
    return sizes


def dream(
    problem: TiledProblem,
    image: np.ndarray,
    *,
    steps: int = 10,
    octave_n: int = 4,
    octave_scale: float = 1.4,
    seed: int = 0,
    callback: Callable[[dict], None] | None = None,
) -> Dream:
    """Dream from the smallest octave to the picture's own size, carrying over what was dreamt (deepdream).

    Args:
        problem: what a step is; see `problem`.
        image: uint8 or float32 [H, W, 3].
        steps: of each octave; the program's iter_n.
        octave_n: how many sizes. octave_scale: from each to the next.
        seed: of the jitter.
        callback: called after each step with its entry of the history.

    Raises:
        InputError: the smallest octave is too small.
    """
    sizes = octave_sizes(*image.shape[:2], octave_n, octave_scale)
    original = tf.cast(image, tf.float32)[None]
    detail = tf.zeros([1, *sizes[0], 3])
    history, octaves = [], []
    for octave, size in enumerate(sizes, 1):
        base = original if octave == octave_n else tf.image.resize(original, size)
        start = base + tf.image.resize(detail, size)
        before = sum(problem.evaluate(start).values())

        def report(moment, octave=octave):
            terms = {name: float(term[0]) for name, term in moment.terms.items()}
            history.append({"step": len(history) + 1, "octave": octave, "value": sum(terms.values())} | terms)
            if callback is not None:
                callback(history[-1])

        result = maximize(problem, start, steps, seed=seed + 7919 * octave, callback=report)
        final = result.final_entry()
        octaves.append(
            {"height": size[0], "width": size[1], "before": float(before[0]), "after": final["value"]}
        )
        detail = result.image - base
    return Dream(result.image[0], history, octaves, final)


def zoom(
    problem: TiledProblem,
    image: np.ndarray,
    frames: int,
    *,
    zoom: float = 0.05,
    seed: int = 0,
    **options: object,
) -> Iterator[Dream]:
    """Dream, enlarge the middle, dream of that, and so on: the frames of a film.

    Args:
        problem, seed, options: as `dream` takes them.
        image: uint8 or float32 [H, W, 3].
        frames: how many.
        zoom: share of the sides that is lost from a frame to the next; the program's s.
    """
    for frame in range(frames):
        result = dream(problem, image, seed=seed + frame, **options)
        yield result
        height, width = image.shape[:2]
        y, x = zoom / 2, zoom / 2
        box = [[y, x, 1 - y, 1 - x]]
        image = tf.image.crop_and_resize(result.image[None], box, [0], [height, width])[0].numpy()


def shown(image: np.ndarray) -> np.ndarray:
    """An unclipped dream as it is shown: its 99.98th percentile becomes white."""
    return image * (255.0 / np.percentile(image, 99.98))
