"""Neural style: the content of one picture with the strokes and colours of another.

Letters: H W height and width, C channels, h w a layer's map. The loss is Gatys, Ecker and Bethge's with the
divisions of jcjohnson/neural-style: content weight x mean (F - P)^2 + style weight x mean (G - A)^2 of Gram
matrices + smoothness; by default each of them is divided by its target's own mean square, so that layers of
any net compare.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfcnn import images
from tfcnn.art.style_problem import Layers, StyleProblem
from tfcnn.backbones import Endpoint
from tfcnn.errors import InputError
from tfcnn.imageopt import lbfgs, minimize

SMALLEST = 16  # side of a picture, pixels


def _vgg(content: str) -> Layers:
    return Layers((content,), tuple(f"block{block}_conv1" for block in range(1, 6)))


# The layers of each net; Lite0's read strokes of all sizes, of which it has more layers than VGG.
LAYERS = {
    "efficientnet_lite0": Layers(
        ("block8_expand_conv",),
        (
            "stem_conv",
            "block0_project_conv",
            *(f"block{block}_expand_conv" for block in (1, 2, 3, 4, 5, 6, 8, 10)),
        ),
    ),
    "vgg16": _vgg("block4_conv2"),
    "vgg19": _vgg("block4_conv2"),
}


def layers_of(name: str, endpoints: Mapping[str, Endpoint]) -> Layers:
    """The layers of a net that is not in LAYERS: style from all its endpoints, content from the one at
    stride 8 or the middle one.

    Args:
        name: of the net.
        endpoints: of the factory's table.
    """
    if name in LAYERS:
        return LAYERS[name]
    names = list(endpoints)
    strides = [endpoints[each].stride for each in names]
    content = names[strides.index(8)] if 8 in strides else names[len(names) // 2]
    return Layers((content,), tuple(names))


@dataclasses.dataclass(frozen=True)
class Styled:
    """A finished picture.

    Args:
        image: float32 [H, W, 3], 0..255.
        history: an entry an evaluation: {step (from 1), size, value, each term}.
        final: {value, each term} of the finished picture.
    """

    image: np.ndarray
    history: list[dict]
    final: dict[str, float]


def transfer(
    problem: StyleProblem,
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    *,
    blend: Sequence[float] = (),
    sizes: Sequence[int] = (256, 512),
    steps: Sequence[int] = (150, 100),
    style_scale: float = 1.0,
    init: str | np.ndarray = "image",
    optimizer: str = "lbfgs",
    history_size: int = 10,
    seed: int = 0,
    callback: Callable[[dict, Callable[[], np.ndarray]], None] | None = None,
) -> Styled:
    """Paint a picture, coarse to fine: each size starts from the last one's result.

    Args:
        problem: the loss; its targets are set here, once a size.
        content: uint8 or float32 [H, W, 3].
        styles: pictures of any sizes.
        blend: the styles' shares, made to sum to 1; equal when empty.
        sizes: the longer side of the result, pixels, size by size.
        steps: evaluations at each size.
        style_scale: longer side of the styles, as a share of the result's.
        init: start at the first size: "image" the content, "random" noise N(0, 0.256^2) round the mean grey
            as in neural-style, or a picture, scaled to the content's size.
        optimizer: "lbfgs" or "adam".
        history_size: pairs that L-BFGS keeps.
        seed: of the noise.
        callback: called after each evaluation with its entry of the history and a function that gives the
            picture as it stands, [H, W, 3].

    Raises:
        InputError: a size that leaves a side too small.
    """
    history, image = [], None
    for size, count in zip(sizes, steps, strict=True):
        shape = scaled(content.shape, size)
        if min(shape) < SMALLEST:
            needed = math.ceil(SMALLEST * max(content.shape[:2]) / min(content.shape[:2]))
            raise InputError(
                f"at {size} px a picture of {content.shape[1]}x{content.shape[0]} is {shape[1]}x{shape[0]}, "
                f"below {SMALLEST}; take at least {needed} px"
            )
        target = _resize(content, shape)
        problem.set_content(target)
        problem.set_styles([_style_at(style, size * style_scale) for style in styles], blend)
        start = _resize(image if image is not None else _start(init, target, seed), shape)

        def report(moment, size=size):
            terms = {name: float(term[0]) for name, term in moment.terms.items()}
            entry = {"step": len(history) + 1, "size": size, "value": sum(terms.values())} | terms
            history.append(entry)
            if callback is not None:
                callback(entry, lambda: moment.image()[0])

        if optimizer == "lbfgs":
            bounds = (0.0, 255.0)
            result = lbfgs(problem, start, count, bounds=bounds, history_size=history_size, callback=report)
        else:
            result = minimize(problem, start, count, callback=report)
        image = result.image[0]
    return Styled(image, history, result.final_entry())


def scaled(shape: Sequence[int], longer: float) -> tuple[int, int]:
    """(height, width) of a picture of this shape whose longer side becomes `longer` pixels."""
    scale = math.ceil(longer) / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def lbfgs_bytes(shape: Sequence[int], history_size: int) -> int:
    """About how much memory L-BFGS takes for a picture of this shape: float64, 2 vectors a pair and some more."""
    return math.prod(shape[:2]) * 3 * 8 * (2 * history_size + 10)


def _resize(image, shape):
    return images.resize(np.asarray(image, np.float32), shape)[0][None]


def _style_at(style, longer):
    height, width = scaled(style.shape, longer)
    return _resize(style, (max(height, SMALLEST), max(width, SMALLEST)))


def _start(init, content, seed):
    if isinstance(init, np.ndarray):
        return init
    if init == "image":
        return content[0]
    noise = np.random.default_rng(seed).normal(127.5, 0.256, content.shape[1:])
    return noise.astype(np.float32)


def original_colors(result: np.ndarray, content: np.ndarray) -> np.ndarray:
    """The brightness (Y) of the result with the colours (U, V) of the content; float32 [H, W, 3]."""
    colours = tf.image.rgb_to_yuv(_resize(content, result.shape[:2])[0] / 255.0)
    brightness = tf.image.rgb_to_yuv(np.clip(result, 0, 255) / 255.0)
    mixed = tf.concat([brightness[..., :1], colours[..., 1:]], axis=-1)
    return tf.clip_by_value(tf.image.yuv_to_rgb(mixed) * 255.0, 0.0, 255.0).numpy()
