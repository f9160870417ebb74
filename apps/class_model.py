"""Make, from nothing, a picture of what a class (or a channel) is to the net."""

from __future__ import annotations

import ast
import io

import numpy as np
from absl import flags

from tfcnn import draw, images
from tfcnn.errors import InputError

from . import common

GROUP, SUMMARY = "looking inside", "make a picture of what a class is to the net"
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
# Flags of one method each; the name in tfcnn where it is not the flag's.
_OF = {"fourier": {"statistics": None, "noise": None, "smooth": None, "frequency_decay": "decay"}}
_OF["simonyan"] = {"l2": None, "rate": None}
_OF["yosinski"] = {
    name: None
    for name in "start_at decay blur_radius blur_every small_val_percentile small_norm_percentile "
    "px_benefit_percentile px_abs_benefit_percentile lr_policy lr_params".split()
}
flags.DEFINE_float(
    "statistics", 60.0, "fourier: weight of layer statistics like photographs'", lower_bound=0.0
)
flags.DEFINE_float(
    "noise", 20.0, "fourier: grey levels of noise to be borne, e.g. --noise=0", lower_bound=0.0
)
flags.DEFINE_float(
    "smooth", 1.0, "fourier: factor of total variation's weight, e.g. --smooth=2", lower_bound=0.0
)
flags.DEFINE_float("frequency_decay", 1.0, "fourier: power of the frequency that coefficients fall with")
flags.DEFINE_float("l2", 0.1, "simonyan: lambda, of the mean square in grey levels", lower_bound=0.0)
flags.DEFINE_float("rate", 1.0, "simonyan: grey levels a step", lower_bound=0.0)
flags.DEFINE_enum(
    "start_at",
    "mean_plus_rand",
    ["mean_plus_rand", "randu", "mean"],
    "yosinski: start at the net's zero with noise, at noise, or at the zero",
)
flags.DEFINE_float("decay", 0.0001, "yosinski: each step x *= 1 - decay", lower_bound=0.0, upper_bound=1.0)
flags.DEFINE_float(
    "blur_radius", 1.0, "yosinski: deviation of the blur in pixels; 0 is none", lower_bound=0.0
)
flags.DEFINE_integer("blur_every", 4, "yosinski: steps from blur to blur; 0 is none", lower_bound=0)
for _name, _what in {
    "small_val_percentile": "values of smaller size",
    "small_norm_percentile": "pixels of smaller norm",
    "px_benefit_percentile": "pixels whose setting to zero helps less",
    "px_abs_benefit_percentile": "pixels that matter less, either way,",
}.items():
    flags.DEFINE_float(
        _name,
        0.0,
        f"yosinski: {_what} than this percentile become zero, e.g. 50",
        lower_bound=0.0,
        upper_bound=100.0,
    )
flags.DEFINE_enum(
    "lr_policy",
    "constant",
    ["constant", "progress"],
    "yosinski: a fixed rate, or the one that should raise the score by so much",
)
flags.DEFINE_string(
    "lr_params",
    "{'lr': 30000}",
    "yosinski: the policy's numbers (his lr of 100 suits CaffeNet), "
    "e.g. --lr_params=\"{'max_lr': 100, 'desired_prog': 2}\"",
)


def main(run: common.Run) -> None:
    options = method_options(run.flags)
    if (LAYER.value is None) != (not CHANNEL.value):
        raise InputError("--layer and --channel belong together; --list_layers shows the layers")
    if CLASS.value and LAYER.value:
        raise InputError("--class and --layer ask for different things; give one of them")
    net = run.load_net()
    import tensorflow as tf

    layer = LAYER.value or "logits"
    answers = answer_function(net.model, layer)
    indices = channels(net, layer) if LAYER.value else run.classes(net) or shown(net)
    wanted = tf.Variable(indices[:1], shape=[None], dtype=tf.int32)
    recipe = make_recipe(net, DIRECTION.value * what_to_raise(layer, wanted), options)

    sheet, rows = [], []
    with run.progress(len(indices) * recipe.steps, "class_model", "steps") as progress:
        for first in range(0, len(indices), run.flags.batch_size):
            batch = indices[first : first + run.flags.batch_size]
            wanted.assign(batch)

            def advance(moment):
                progress.advance(len(moment.value), value=float(moment.value.mean()))

            seeds = [run.flags.seed + index for index in batch]
            result = recipe.climb(seeds, seed=run.flags.seed, callback=advance)
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


def method_options(values):
    """The flags of the method chosen, as keywords; one of another method is an error."""
    for method, names in _OF.items():
        for name in names:
            if method != METHOD.value and not values[name].using_default_value:
                raise InputError(f"--{name} belongs to --method={method}, not to {METHOD.value}")
    options = {other or name: values[name].value for name, other in _OF[METHOD.value].items()}
    if METHOD.value == "yosinski":
        policy = options.pop("lr_policy")
        numbers = {"constant": ("lr",), "progress": ("max_lr", "desired_prog")}[policy]
        try:
            given = ast.literal_eval(options.pop("lr_params"))
            options |= dict(zip(("rate", "progress"), (float(given[name]) for name in numbers), strict=False))
        except (ValueError, SyntaxError, KeyError, TypeError) as error:
            form = ", ".join(f"'{name}': NUMBER" for name in numbers)
            raise InputError(f"--lr_params of --lr_policy={policy} has the form {{{form}}}") from error
    if STEPS.value:
        options["iterations"] = STEPS.value
    return options


def make_recipe(net, objective, options):
    """The method's recipe on the net."""
    from tfcnn.backbones import zero_rgb
    from tfcnn.visualization import class_model

    if METHOD.value == "fourier":
        return class_model.fourier(net.model, objective, net.size, **options)
    make = {"simonyan": class_model.simonyan, "yosinski": class_model.yosinski}[METHOD.value]
    return make(net.model, objective, net.size, zero_rgb(net.model), **options)


def what_to_raise(layer, wanted):
    """The objective: the class' score, the channel's mean, or the channel at --push_spatial."""
    from tfcnn.imageopt import objectives

    if not SPATIAL.value:
        return objectives.logit(wanted, layer)
    try:
        row, column = (int(value) for value in SPATIAL.value)
    except ValueError as error:
        raise InputError("--push_spatial takes a row and a column, e.g. --push_spatial=7,7") from error
    return objectives.neuron(layer, wanted, (row, column))


def answer_function(model, layer):
    """A function from a picture (uint8) to the classes' probabilities, or to each channel's mean."""
    from tfcnn.imageopt import tapped

    net = tapped(model, ["scores" if layer == "logits" else layer])

    def answer(picture):
        (values,) = net(picture[None].astype(np.float32), training=False).values()
        values = np.asarray(values)[0]
        return values.reshape(-1, values.shape[-1]).mean(0)

    return answer


def channels(net, layer):
    """The channels that --channel names."""
    from tfcnn.imageopt import tapped

    count = tapped(net.model, [layer]).output[layer].shape[-1]
    for channel in CHANNEL.value:
        if not channel.isdigit() or int(channel) >= count:
            raise InputError(f"--channel={channel}: {layer} has channels 0 to {count - 1}")
    return [int(channel) for channel in CHANNEL.value]


def shown(net):
    """Classes to show when none is given: six of ImageNet's, or the first six."""
    try:
        return common.resolve_class(SHOWN, net.classes)
    except InputError:
        return list(range(min(6, len(net.classes))))


def describe(net, index):
    """A class or a channel for results.json."""
    if LAYER.value:
        return {"index": index, "synset": "", "label": f"{LAYER.value} channel {index}"}
    synset, label = net.classes[index]
    return {"index": index, "synset": synset, "label": label}


def stem_of(described):
    """A file name for a class."""
    letters = "".join(letter if letter.isalnum() else "_" for letter in described["label"])
    return f"{described['index']:03d}_{letters}" if not LAYER.value else letters


if __name__ == "__main__":
    common.start(main, pictures=False, image_size=None)
