"""Paint a picture in the style of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli, images
from tfcnn.cli import canvas, lists
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from tfcnn.art.style import StyleProblem
    from tfcnn.cli.progress import Progress

GROUP, SUMMARY = "art", "repaint a picture in the style of another"

text = (
    "Pictures whose style is taken, by commas; none takes one painted by tfcnn, e.g. --style=starry_night.jpg"
)
STYLE = flags.DEFINE_string("style", None, text)
text = "A share for each of --style, e.g. --style_blend_weights=3,1; none takes equal ones"
BLEND = flags.DEFINE_string("style_blend_weights", None, text)
text = "Longer side of the styles as a share of the result's: larger gives larger strokes, e.g. --style_scale=1.5"
STYLE_SCALE = flags.DEFINE_float("style_scale", 1.0, text, lower_bound=0.05, upper_bound=10.0)
text = "How much of the picture's own shapes stays, e.g. --content_weight=2 for a freer painting"
CONTENT_WEIGHT = flags.DEFINE_float("content_weight", 5.0, text, lower_bound=0.0)
STYLE_WEIGHT = flags.DEFINE_float("style_weight", 100.0, "How much of the style comes in", lower_bound=0.0)
text = "How smooth the result is, e.g. --tv_weight=0.01"
TV_WEIGHT = flags.DEFINE_float("tv_weight", 1e-3, text, lower_bound=0.0)
text = "Layers whose content stays, by commas; none takes the net's best, e.g. --content_layers=block8_expand_conv"
CONTENT_LAYERS = flags.DEFINE_string("content_layers", None, text)
text = (
    "Layers whose style is taken, by commas; none takes the net's best, e.g. --style_layers=stem_conv,stage2"
)
STYLE_LAYERS = flags.DEFINE_string("style_layers", None, text)
text = "Evaluations at each size, coarse to fine; one number serves all, none takes 120 at the first size and 80 at "
STEPS = flags.DEFINE_string("steps", None, text + "each other, e.g. --steps=200,100")
text = "Sizes that are painted at, each twice the last, up to --image_size, e.g. --sizes=3"
SIZES = flags.DEFINE_integer("sizes", 2, text, lower_bound=1, upper_bound=12)
OPTIMIZER = flags.DEFINE_enum("optimizer", "lbfgs", ["lbfgs", "adam"], "How the picture is changed")
text = "Of Adam, in grey levels, e.g. --learning_rate=10"
RATE = flags.DEFINE_float("learning_rate", 4.0, text, lower_bound=0.0)
text = "Pairs of vectors that L-BFGS keeps; fewer take less memory, e.g. --lbfgs_num_correction=5"
CORRECTIONS = flags.DEFINE_integer("lbfgs_num_correction", 10, text, lower_bound=1, upper_bound=1000)
text = "Where the first size starts: from the picture, or from grey noise"
INIT = flags.DEFINE_enum("init", "image", ["image", "random"], text)
text = "A picture to start from instead of --init, e.g. --init_image=out/style_transfer/cat_styled.png"
INIT_IMAGE = flags.DEFINE_string("init_image", None, text)
text = "Keep the picture's own colours, and take only brightness from the painting"
ORIGINAL = flags.DEFINE_bool("original_colors", False, text)
text = "avg puts the mean in place of each max pooling of the net"
POOLING = flags.DEFINE_enum("pooling", "max", ["max", "avg"], text)
text = "Divide each loss's gradient at its layer by its L1 norm, so that all layers pull alike"
NORMALIZE = flags.DEFINE_bool("normalize_gradients", False, text)
text = "Divide each loss by its target's own mean square; false takes plain means, as neural-style does"
RELATIVE = flags.DEFINE_bool("relative", True, text)
text = "Write the picture as it stands after so many evaluations; 0 never, e.g. --save_iter=50"
SAVE_ITER = flags.DEFINE_integer("save_iter", 0, text, lower_bound=0)
text = "Pictures with a longer side, in pixels, are computed in tiles of this side; 0 never, e.g. --tile_size=512"
TILE = flags.DEFINE_integer("tile_size", 1024, text, lower_bound=0)
canvas.describe("Longer side of the result in pixels, e.g. --image_size=1024")


def main(run: cli.Run) -> None:
    steps = lists.numbers(STEPS.value or "", "steps", int) or [120] + [80] * (SIZES.value - 1)
    steps = steps * SIZES.value if len(steps) == 1 else steps
    if len(steps) != SIZES.value or not all(steps):
        raise InputError(f"--steps={STEPS.value} gives no number above 0 for each of {SIZES.value} sizes")
    names = lists.paths(STYLE.value or "")
    styles = [images.read(name, run.flags.max_pixels) for name in names]
    blend = lists.numbers(BLEND.value or "", "style_blend_weights")
    if blend and (len(blend) != len(styles) or not sum(blend)):
        raise InputError(f"--style_blend_weights={BLEND.value} is no share for each of {len(styles)} styles")
    begin = images.read(INIT_IMAGE.value, run.flags.max_pixels) if INIT_IMAGE.value else INIT.value
    problem, layers = prepared(run)
    from tfcnn.art import paint, style

    if not styles:
        styles = [paint.swirls(seed=0)]
    longer = run.flags.image_size
    rows = []
    for picture in run.pictures():
        with picture:
            content = canvas.fitted(picture.image, longer, run.flags.resize)
            sizes = coarse_to_fine(content.shape, style.SMALLEST)
            needed = style.lbfgs_bytes(content.shape, CORRECTIONS.value) / 1e9
            if OPTIMIZER.value == "lbfgs" and needed > 2:
                run.say(
                    f"L-BFGS takes about {needed:.1f} GB at {longer} px; --optimizer=adam, or a smaller "
                    "--lbfgs_num_correction, takes less"
                )
            with run.progress(sum(steps), picture.name, "steps") as progress:
                painting = style.transfer(
                    problem,
                    picture.image if run.flags.resize is None else content,
                    styles,
                    blend=blend,
                    sizes=sizes,
                    steps=steps,
                    style_scale=STYLE_SCALE.value,
                    init=begin,
                    optimizer=OPTIMIZER.value,
                    history_size=CORRECTIONS.value,
                    seed=run.flags.seed,
                    callback=lambda entry, image, p=picture, bar=progress: after(run, p, bar, entry, image),
                )
            picture.show(content, "content")
            for name, each in zip(names or ["swirls, painted by tfcnn"], styles, strict=True):
                picture.show(each, f"style: {name}")
            result = painting.image
            result = style.original_colors(result, content) if ORIGINAL.value else result
            picture.save(result, "styled", "result", main=True)
            picture.entry |= {"styles": names, "layers": layers, "history": painting.history}
            picture.entry |= {"final": painting.final}
            values = [f"{entry['value']:.4g}" for entry in (painting.history[0], painting.final)]
            rows.append([picture.name, f"{result.shape[1]}x{result.shape[0]}", *values])
    run.table(["file", "size", "loss at first", "at last"], rows)


def coarse_to_fine(shape: Sequence[int], smallest: int) -> list[int]:
    """The longer sides to paint at; a size whose shorter side would be below `smallest` pixels is enlarged."""
    longer, shorter = max(shape[:2]), min(shape[:2])
    least = min(longer, math.ceil(smallest * longer / shorter))
    return [max(least, round(longer / 2**k)) for k in reversed(range(SIZES.value))]


def after(
    run: cli.Run, picture: cli.Picture, progress: Progress, entry: dict, image: Callable[[], np.ndarray]
) -> None:
    """Show an evaluation, and write the picture as it stands where --save_iter says so."""
    progress.advance(1, loss=entry["value"])
    if SAVE_ITER.value and entry["step"] % SAVE_ITER.value == 0:
        picture.save(image(), str(entry["step"]), f"after {entry['step']} evaluations")


def prepared(run: cli.Run) -> tuple[StyleProblem, dict[str, list[str]]]:
    """The loss that the flags ask for, and its layers {"content": [...], "style": [...]}."""
    content, style_layers = (
        tuple(name for name in (flag.value or "").split(",") if name)
        for flag in (CONTENT_LAYERS, STYLE_LAYERS)
    )
    if run.flags.model and not (content and style_layers):
        raise InputError("--model needs --content_layers and --style_layers (--list_layers shows all)")
    run.runtime  # noqa: B018  (starts TensorFlow silently)
    from tfcnn import backbones
    from tfcnn.art import style

    if run.flags.model:
        layers = style.Layers(content, style_layers)
    else:
        row = backbones.table.net(run.flags.net)
        best = style.layers_of(run.flags.net, row.endpoints)
        layers = style.Layers(content or best.content, style_layers or best.style)
    read = list(dict.fromkeys(layers.content + layers.style))
    net = run.load_net("backbone", endpoints=None if run.flags.model else read, at_own_size=True)
    taps = backbones.any_size(backbones.tap(net.model, read, "--list_layers shows all"))
    if taps is None:
        raise InputError(f"{net.name} takes one size of pictures; take earlier layers")
    for name, tensor in taps.output.items():
        if len(tensor.shape) != 4:
            raise InputError(f"{name} is no map [height, width, channels]; take an earlier layer")
    problem = style.StyleProblem(
        backbones.average_pooling(taps) if POOLING.value == "avg" else taps,
        layers,
        content_weight=CONTENT_WEIGHT.value,
        style_weight=STYLE_WEIGHT.value,
        tv_weight=TV_WEIGHT.value,
        relative=RELATIVE.value,
        normalize_gradients=NORMALIZE.value,
        learning_rate=RATE.value,
        tile=TILE.value,
    )
    return problem, {"content": list(layers.content), "style": list(layers.style)}


if __name__ == "__main__":
    cli.start(main, image_size=512, resize=None)
