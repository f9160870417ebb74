"""Show which pixels a class' score depends on: the largest gradient over the three channels."""

from __future__ import annotations

import numpy as np
from absl import flags

from tfcnn import draw, images
from tfcnn.errors import InputError

from . import common

GROUP, SUMMARY = "looking inside", "which pixels of a picture a class depends on"

METHOD = flags.DEFINE_enum(
    "method", "gradient", ["gradient"], "gradient: max over channels of |dS/dI|, S before softmax"
)
CLASS = flags.DEFINE_string(
    "class",
    None,
    "Classes by index, synset or name; none takes each picture's best, e.g. --class=tabby,n02123159",
)
LAYER = flags.DEFINE_string(
    "layer", None, "Ask a channel of this layer instead of a class, e.g. --layer=stage5"
)
CHANNEL = flags.DEFINE_integer(
    "channel", None, "Which channel of --layer; none takes the most active, e.g. --channel=7", lower_bound=0
)


def main(run: common.Run) -> None:
    if CHANNEL.value is not None and LAYER.value is None:
        raise InputError("--channel needs --layer, the layer it belongs to")
    if CLASS.value and LAYER.value:
        raise InputError("--class and --layer ask for different things; give one of them")
    net = run.load_net()
    from tfcnn.visualization import gradients, saliency

    indices = run.classes(net) or [gradients.BEST]
    if LAYER.value is None:
        maps = saliency.saliency_maps(gradients.class_gradients(net.model))
    else:
        maps = saliency.saliency_maps(gradients.channel_gradients(net.model, LAYER.value))
        channels = net.model.get_layer(LAYER.value).output.shape[-1]
        if CHANNEL.value is not None and CHANNEL.value >= channels:
            raise InputError(f"--channel={CHANNEL.value}: {LAYER.value} has channels 0 to {channels - 1}")
        indices = [gradients.BEST if CHANNEL.value is None else CHANNEL.value]

    rows = []
    for picture in run.pictures():
        with picture:
            seen, _ = images.resize(picture.image, net.size, run.flags.resize)
            shown = []
            picture.show(seen, "what the net sees")
            for index in indices:
                values, (found,), (answers,) = maps(
                    seen[None].astype(np.float32), np.array([index], np.int32)
                )
                shown.append(describe(net, int(found), answers.numpy()))
                kind = f"_{found}" if len(indices) > 1 else ""
                grey = saliency.picture(values[0].numpy())
                picture.save(grey, f"saliency{kind}", shown[-1]["label"], main=len(shown) == 1)
                picture.save(draw.heat_map(grey, seen), f"overlay{kind}", "the same over the picture")
            picture.entry |= {"class": shown[0], "method": METHOD.value, "layer": LAYER.value}
            if len(shown) > 1:
                picture.entry["classes"] = shown
            rows += [[picture.name, each["label"], f"{each['score']:.4g}"] for each in shown]
    run.table(["file", "channel" if LAYER.value else "class", "score"], rows)


def describe(net, index, answers):
    """The class (or channel) asked, and its answer on the picture: a class' probability, a channel's mean."""
    if LAYER.value:
        return {"index": index, "label": f"{LAYER.value}, channel {index}", "score": float(answers[index])}
    synset, label = net.classes[index]
    exponents = np.exp(answers.astype(np.float64) - answers.max())
    return {
        "index": index,
        "synset": synset,
        "label": label,
        "score": float(exponents[index] / exponents.sum()),
        "logit": float(answers[index]),
    }


if __name__ == "__main__":
    common.start(main, resize="crop")
