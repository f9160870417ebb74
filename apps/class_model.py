"""Make, from nothing, a picture of what a class (or a channel) is to the net."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfcnn.imageopt import Moment, Objective
    from tfcnn.visualization.class_model import Ascent

GROUP, SUMMARY = "looking inside", "optimise a picture for a class or a channel"
LISTED = "--list_layers shows all"
SHOWN = "flamingo,goldfish,pelican,school bus,daisy,n03947888"  # ImageNet's classes when none is given

METHOD = flags.DEFINE_enum(
    "method",
    "fourier",
    ["fourier", "simonyan", "yosinski"],
    "fourier: Fourier coefficients under random transforms, from small to large; simonyan: score minus L2; "
    "yosinski: decay, blur, small pixels to zero",
)
CLASS = flags.DEFINE_string(
    "class",
    None,
    "Classes by index, synset or name, a picture each; none takes six, e.g. --class=flamingo,n02504458,1",
)
LAYER = flags.DEFINE_string(
    "layer", None, "Raise channels of this layer instead of classes, e.g. --layer=stage5"
)
CHANNEL = flags.DEFINE_list("channel", [], "Channels of --layer, a picture each, e.g. --channel=7,12")
SPATIAL = flags.DEFINE_list(
    "push_spatial",
    [],
    "Row and column of the layer's map to raise; none is its mean, e.g. --push_spatial=7,7",
)
DIRECTION = flags.DEFINE_float(
    "push_dir", 1.0, "The score is multiplied by this; -1 shows what speaks against, e.g. --push_dir=-1"
)
STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Steps; none takes fourier 350, simonyan 200, yosinski 500, e.g. --steps=100",
    lower_bound=1,
)
STATISTICS = flags.DEFINE_float(
    "statistics",
    60.0,
    "fourier: weight of layer statistics like photographs', e.g. --statistics=20",
    lower_bound=0.0,
)
NOISE = flags.DEFINE_float(
    "noise", 20.0, "fourier: grey levels of noise to be borne, e.g. --noise=0", lower_bound=0.0
)
SMOOTH = flags.DEFINE_float(
    "smooth", 1.0, "fourier: factor of total variation's weight, e.g. --smooth=2", lower_bound=0.0
)
FREQUENCY_DECAY = flags.DEFINE_float(
    "frequency_decay",
    1.0,
    "fourier: power of the frequency that coefficients fall with, e.g. --frequency_decay=1.2",
    lower_bound=0.0,
)
RIVALS = flags.DEFINE_float(
    "rivals",
    10.0,
    "fourier: weight of the cross-entropy, which holds other classes down, e.g. --rivals=0",
    lower_bound=0.0,
)
L2 = flags.DEFINE_float(
    "l2", 0.1, "simonyan: lambda, of the mean square in grey levels, e.g. --l2=0.01", lower_bound=0.0
)
RATE = flags.DEFINE_float("rate", 1.0, "simonyan: grey levels a step, e.g. --rate=2", lower_bound=0.0)
START_AT = flags.DEFINE_enum(
    "start_at",
    "mean_plus_rand",
    ["mean_plus_rand", "randu", "mean"],
    "yosinski: start at the net's zero with noise, at noise, or at the zero",
)
DECAY = flags.DEFINE_float(
    "decay",
    0.0001,
    "yosinski: each step x *= 1 - decay, e.g. --decay=0.3",
    lower_bound=0.0,
    upper_bound=1.0,
)
BLUR_RADIUS = flags.DEFINE_float(
    "blur_radius",
    1.0,
    "yosinski: deviation of the blur in pixels; 0 is none, e.g. --blur_radius=0.5",
    lower_bound=0.0,
)
BLUR_EVERY = flags.DEFINE_integer(
    "blur_every", 4, "yosinski: steps from blur to blur; 0 is none, e.g. --blur_every=8", lower_bound=0
)


def _percentile(name: str, what: str) -> flags.FlagHolder:
    text = f"yosinski: {what} than this percentile become zero, e.g. --{name}=50"
    return flags.DEFINE_float(name, 0.0, text, lower_bound=0.0, upper_bound=100.0)


SMALL_VAL = _percentile("small_val_percentile", "values of smaller size")
SMALL_NORM = _percentile("small_norm_percentile", "pixels of smaller norm")
PX_BENEFIT = _percentile("px_benefit_percentile", "pixels whose setting to zero helps less")
PX_ABS_BENEFIT = _percentile("px_abs_benefit_percentile", "pixels that matter less, either way,")
LR_POLICY = flags.DEFINE_enum(
    "lr_policy",
    "constant",
    ["constant", "progress"],
    "yosinski: a fixed rate, or the one that should raise the score by so much",
)
LR_PARAMS = flags.DEFINE_string(
    "lr_params",
    "{'lr': 30000}",
    "yosinski: the policy's numbers (his lr of 100 suits CaffeNet), "
    "e.g. --lr_params=\"{'max_lr': 1e6, 'desired_prog': 2}\"",
)

# The flags that belong to one method, by the keyword of its function in tfcnn.visualization.class_model.
OF_METHOD = {
    "fourier": {
        "statistics": STATISTICS,
        "noise": NOISE,
        "smooth": SMOOTH,
        "decay": FREQUENCY_DECAY,
    },
    "simonyan": {"l2": L2, "rate": RATE},
    "yosinski": {
        "start_at": START_AT,
        "decay": DECAY,
        "blur_radius": BLUR_RADIUS,
        "blur_every": BLUR_EVERY,
        "small_val_percentile": SMALL_VAL,
        "small_norm_percentile": SMALL_NORM,
        "px_benefit_percentile": PX_BENEFIT,
        "px_abs_benefit_percentile": PX_ABS_BENEFIT,
    },
}
# Flags of a method that are no keyword of its function: they make the objective, or two keywords together.
ELSEWHERE = {"fourier": [RIVALS], "yosinski": [LR_POLICY, LR_PARAMS, SPATIAL], "simonyan": [SPATIAL]}


def main(run: cli.Run) -> None:
    check_command()
    net = run.load_net("backbone" if LAYER.value and run.flags.model else "classifier")
    import tensorflow as tf

    layer = LAYER.value or "logits"
    spot = location(net, layer) if SPATIAL.value else None
    answers = answer_function(net.model, layer, spot)
    indices = channels(net, layer) if LAYER.value else run.classes(net) or shown(net)
    indices = list(dict.fromkeys(indices))
    wanted = tf.Variable(indices[:1], shape=[None], dtype=tf.int32)
    ascent = make_ascent(net, what_to_raise(layer, wanted, spot))

    sheet, rows = [], []
    with run.progress(len(indices) * ascent.steps, "class_model", "steps") as progress:
        for first in range(0, len(indices), run.flags.batch_size):
            batch = indices[first : first + run.flags.batch_size]
            wanted.assign(batch)

            def advance(moment: Moment) -> None:
                progress.advance(len(moment.value), value=float(moment.value.mean()))

            seeds = [run.flags.seed + index for index in batch]
            result = ascent.run(seeds, seed=run.flags.seed, callback=advance)
            for position, index in enumerate(batch):
                described = describe(net, index)
                with run.item(described["label"], stem_of(described)) as item:
                    item.save(result.image[position], main=True)
                    read = images.read(io.BytesIO(images.encode(result.image[position])))
                    score = float(answers(read)[index])
                    item.entry |= {
                        "class": described,
                        "method": METHOD.value,
                        "layer": LAYER.value,
                        "score": score,
                        "final": result.final_entry(position),
                        "history": result.history(position),
                    }
                    item.lines.append(f"{score:.4g} on the picture read back")
                    sheet.append((read, f"{described['label']} {score:.4g}"))
                    rows.append([described["label"], f"{score:.6g}", f"{item.entry['final']['value']:.4g}"])
    if sheet:
        pictures, captions = zip(*sheet, strict=True)
        run.sheet(draw.grid(list(pictures), captions=list(captions)), "sheet", f"by {METHOD.value}")
    run.table(["channel" if LAYER.value else "class", "score", "value"], rows)


def check_command() -> None:
    """Refuse flags that would do nothing: those of another method, or of another kind of target."""
    mine = [flag.name for flag in flags_of(METHOD.value)]
    for method in OF_METHOD:
        for flag in flags_of(method):
            if flag.present and flag.name not in mine:
                raise InputError(f"--{flag.name} belongs to --method={method}, not to {METHOD.value}")
    if bool(LAYER.value) != bool(CHANNEL.value):
        raise InputError("--layer and --channel belong together; --list_layers shows the layers")
    if CLASS.value and LAYER.value:
        raise InputError("--class and --layer ask for different things; give one of them")
    if DIRECTION.value == 0:
        raise InputError("--push_dir=0 leaves nothing to raise; 1 raises the score and -1 lowers it")
    if RIVALS.present and RIVALS.value and not against_rivals():
        raise InputError(
            "--rivals belongs to classes that are raised, not to --layer or a --push_dir below 0"
        )


def flags_of(method: str) -> list[flags.FlagHolder]:
    """The flags that do something under this method alone."""
    return [*OF_METHOD[method].values(), *ELSEWHERE[method]]


def against_rivals() -> bool:
    """Whether the other classes are held down."""
    return METHOD.value == "fourier" and not LAYER.value and DIRECTION.value > 0 and RIVALS.value > 0


def make_ascent(net: cli.Net, objective: Objective) -> Ascent:
    """The method's ascent on the net, as the flags say."""
    from tfcnn.backbones import zero_rgb
    from tfcnn.imageopt.objectives import feature_statistics
    from tfcnn.visualization import class_model

    options = {keyword: flag.value for keyword, flag in OF_METHOD[METHOD.value].items()}
    if STEPS.value:
        options["iterations"] = STEPS.value
    if METHOD.value == "fourier":
        if STATISTICS.present and STATISTICS.value and feature_statistics(net.model) is None:
            raise InputError(f"--statistics needs batch norm behind convolutions, which {net.name} has not")
        return class_model.fourier(net.model, objective, net.size, **options)
    if METHOD.value == "yosinski":
        if round(4 * BLUR_RADIUS.value) > net.size:
            raise InputError(
                f"--blur_radius={BLUR_RADIUS.value:g}: for pictures of {net.size} pixels at most {net.size // 4}"
            )
        return class_model.yosinski(
            net.model, objective, net.size, zero_rgb(net.model), **options, **learning_rate()
        )
    return class_model.simonyan(net.model, objective, net.size, zero_rgb(net.model), **options)


def learning_rate() -> dict[str, float]:
    """What --lr_policy and --lr_params say, as keywords of the step."""
    keywords = {"constant": {"lr": "rate"}, "progress": {"max_lr": "rate", "desired_prog": "progress"}}
    wanted = keywords[LR_POLICY.value]
    try:
        given = ast.literal_eval(LR_PARAMS.value)
        return {keyword: float(given[name]) for name, keyword in wanted.items()}
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        form = ", ".join(f"'{name}': NUMBER" for name in wanted)
        raise InputError(f"--lr_params of --lr_policy={LR_POLICY.value} has the form {{{form}}}") from error


def what_to_raise(layer: str, wanted: tf.Variable, spot: tuple[int, int] | None) -> Objective:
    """The objective: the class' score, the channel's mean, or the channel at one location."""
    from tfcnn.imageopt import objectives

    if spot:
        return DIRECTION.value * objectives.neuron(layer, wanted, spot)
    objective = DIRECTION.value * objectives.logit(wanted, layer)
    if against_rivals():
        objective = objective - RIVALS.value * objectives.cross_entropy(wanted)
    return objective


def location(net: cli.Net, layer: str) -> tuple[int, int]:
    """Row and column that --push_spatial names."""
    from tfcnn.backbones import tap

    shape = tap(net.model, [layer], LISTED)(np.zeros([1, net.size, net.size, 3], np.float32))[layer].shape
    try:
        row, column = (int(value) for value in SPATIAL.value)
    except ValueError as error:
        raise InputError("--push_spatial takes a row and a column, e.g. --push_spatial=7,7") from error
    if len(shape) != 4 or not (0 <= row < shape[1] and 0 <= column < shape[2]):
        raise InputError(
            f"--push_spatial={row},{column}: {layer} has {' x '.join(map(str, shape[1:-1])) or 'no'} locations"
        )
    return row, column


def answer_function(
    model: keras.Model, layer: str, spot: tuple[int, int] | None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a picture (uint8) to all probabilities, or to all channels: means, or values at a location."""
    from tfcnn.backbones import tap

    net = tap(model, ["scores" if layer == "logits" else layer], LISTED)

    def answer(picture):
        (values,) = net(picture[None].astype(np.float32), training=False).values()
        values = np.asarray(values)[0]
        return values[spot] if spot else values.reshape(-1, values.shape[-1]).mean(0)

    return answer


def channels(net: cli.Net, layer: str) -> list[int]:
    """The channels that --channel names."""
    from tfcnn.backbones import tap

    count = tap(net.model, [layer], LISTED).output[layer].shape[-1]
    for channel in CHANNEL.value:
        if not channel.isdigit() or int(channel) >= count:
            raise InputError(f"--channel={channel}: {layer} has channels 0 to {count - 1}")
    return [int(channel) for channel in CHANNEL.value]


def shown(net: cli.Net) -> list[int]:
    """Classes to show when none is given: six of ImageNet's, or the first six."""
    try:
        return cli.resolve_class(SHOWN, net.classes)
    except InputError:
        return list(range(min(6, len(net.classes))))


def describe(net: cli.Net, index: int) -> dict:
    """A class or a channel for results.json."""
    if LAYER.value:
        return {"index": index, "synset": "", "label": f"{LAYER.value} channel {index}"}
    synset, label = net.classes[index]
    return {"index": index, "synset": synset, "label": label}


def stem_of(described: dict) -> str:
    """A file name for a class."""
    letters = "".join(letter if letter.isalnum() else "_" for letter in described["label"])
    return f"{described['index']:03d}_{letters}" if not LAYER.value else letters


if __name__ == "__main__":
    cli.start(main, pictures=False, image_size=None)
