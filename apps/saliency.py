"""Show which pixels a class' score depends on: the largest gradient over the three channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.errors import InputError

GROUP, SUMMARY = "looking inside", "show which pixels a class depends on"

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
VIEWS = flags.DEFINE_enum(
    "views",
    "1",
    ["1", "10"],
    "One view as classify sees the picture; or, as the paper, the mean over the four corners, the middle and "
    "their mirror images, which shows all of it",
)
CHANNEL = flags.DEFINE_integer(
    "channel", None, "Which channel of --layer; none takes the most active, e.g. --channel=7", lower_bound=0
)

LONGEST = 16_000  # pixels that a picture may be stretched to for its ten views


def main(run: cli.Run) -> None:
    if CHANNEL.value is not None and LAYER.value is None:
        raise InputError("--channel needs --layer, the layer it belongs to")
    if CLASS.value and LAYER.value:
        raise InputError("--class and --layer ask for different things; give one of them")
    net = run.load_net()
    from tfcnn.backbones import tap
    from tfcnn.visualization import gradients, saliency

    indices = run.classes(net) or [gradients.BEST]
    if LAYER.value is None:
        maps = saliency.saliency_maps(gradients.class_gradients(net.model))
    else:
        channels = tap(net.model, [LAYER.value], "--list_layers shows all").output[LAYER.value].shape[-1]
        maps = saliency.saliency_maps(gradients.channel_gradients(net.model, LAYER.value))
        if CHANNEL.value is not None and CHANNEL.value >= channels:
            raise InputError(f"--channel={CHANNEL.value}: {LAYER.value} has channels 0 to {channels - 1}")
        indices = [gradients.BEST if CHANNEL.value is None else CHANNEL.value]

    rows = []
    for picture in run.pictures():
        with picture:
            seen = seen_by(net.size, picture.image, run.flags.resize)
            shown = []
            picture.show(seen, "what the net sees")
            for index in indices:
                values, *answers = ask(maps, seen, net.size, index)
                found = answers[0]
                shown.append(describe(net, *answers))
                kind = f"_{found}" if len(indices) > 1 else ""
                grey = saliency.picture(values)
                picture.save(grey, f"saliency{kind}", shown[-1]["label"], main=len(shown) == 1)
                coarse, _ = images.resize(grey[..., None], [max(1, side // 4) for side in grey.shape])
                picture.save(
                    draw.heat_map(coarse[..., 0], seen), f"overlay{kind}", "its mean over 4 x 4 pixels"
                )
            picture.entry |= {
                "class": shown[0],
                "method": METHOD.value,
                "layer": LAYER.value,
                "views": int(VIEWS.value),
            }
            if len(shown) > 1:
                picture.entry["classes"] = shown
            rows += [[picture.name, each["label"], f"{each['score']:.4g}"] for each in shown]
    run.table(["file", "channel" if LAYER.value else "class", "score"], rows)


def seen_by(size: int, image: np.ndarray, resize: str) -> np.ndarray:
    """What the net sees of a picture, or with --views=10 what its views are cut from: the same scale, all of it."""
    if VIEWS.value == "1":
        return images.resize(image, size, resize)[0]
    side = round(size / 0.875)
    if resize != "crop":
        return images.resize(image, side, resize)[0]
    shorter, longer = sorted(image.shape[:2])
    if longer * side / shorter > LONGEST:
        least = -(-longer * side // LONGEST)
        raise InputError(f"too long for ten views: at this length its shorter side needs {least} pixels")
    return images.resize(image, [round(length * side / shorter) for length in image.shape[:2]])[0]


def ask(
    maps: Callable, seen: np.ndarray, size: int, index: int
) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    """(map [H, W], class or channel, logits [K], scores [K]) of one picture."""
    from tfcnn.visualization import saliency

    if VIEWS.value == "10":
        return saliency.mean_of_views(maps, seen, size, index)
    values = [each[0].numpy() for each in maps(seen[None].astype(np.float32), np.array([index], np.int32))]
    return values[0], int(values[1]), *values[2:]


def describe(net: cli.Net, index: int, logits: np.ndarray, scores: np.ndarray) -> dict:
    """The class (or channel) asked, and its answer on the picture: a class' probability, a channel's mean."""
    if LAYER.value:
        return {"index": index, "label": f"{LAYER.value}, channel {index}", "score": float(scores[index])}
    synset, label = net.classes[index]
    return {
        "index": index,
        "synset": synset,
        "label": label,
        "score": float(scores[index]),
        "logit": float(logits[index]),
    }


if __name__ == "__main__":
    cli.start(main, resize="crop")
