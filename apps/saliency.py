"""Show which pixels a class' score depends on, by seven methods."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import asked, layers
from tfcnn.errors import InputError
from tfcnn.visualization import SALIENCY_METHODS

GROUP, SUMMARY = "looking inside", "show which pixels a class depends on"

METHOD = flags.DEFINE_enum(
    "method",
    None,
    list(SALIENCY_METHODS),
    "gradient: max over channels of |dS/dI|, S before softmax; smoothgrad: its mean over noisy copies; guided: by "
    "guided backpropagation; grad_cam: places of a map; guided_grad_cam: both; none takes guided_grad_cam, or "
    "smoothgrad where a net's rectifiers are no ReLU, e.g. --method=gradient",
)
VIEWS = flags.DEFINE_enum(
    "views",
    "1",
    ["1", "10"],
    "One view as classify sees the picture; or, as the paper, the mean over the four corners, the middle and "
    "their mirror images, which shows all of it",
)
CAM_LAYER = flags.DEFINE_string(
    "cam_layer", None, "Grad-CAM's layer; none takes the last with a map, e.g. --cam_layer=stage6"
)
SAMPLES = flags.DEFINE_integer(
    "samples",
    None,
    "Noisy copies of smoothgrad, none takes 16; steps of integrated_gradients, none takes 32, e.g. --samples=50",
    lower_bound=1,
)
NOISE = flags.DEFINE_float(
    "noise",
    0.15,
    "smoothgrad: deviation as a share of the picture's range, e.g. --noise=0.1",
    lower_bound=0.0,
)

LONGEST = 16_000  # pixels that a picture may be stretched to for its ten views
# Flags that only some methods use.
OF_METHODS = {
    "cam_layer": (CAM_LAYER, ("grad_cam", "guided_grad_cam")),
    "samples": (SAMPLES, ("smoothgrad", "integrated_gradients")),
    "noise": (NOISE, ("smoothgrad",)),
}


def main(run: cli.Run) -> None:
    asked.check_flags()
    for name, (flag, methods) in OF_METHODS.items():
        if flag.present and METHOD.value not in methods:
            raise InputError(f"--{name} belongs to --method={' and '.join(methods)}; name the method")
    question = asked.load(run)
    from tfcnn.visualization import saliency

    net, size = question.net, question.net.size
    if CAM_LAYER.value:
        layers.count(net.model, CAM_LAYER.value, (4,), "cam_layer")
    method = METHOD.value or saliency.usual_method(net.model, question.layer)
    maps = saliency.explained(
        net.model,
        method,
        channel_of=question.layer,
        layer=CAM_LAYER.value,
        samples=SAMPLES.value,
        noise=NOISE.value,
        seed=run.flags.seed,
    )
    rows = []
    for batch in run.batches(run.flags.batch_size, lambda image: seen_by(size, image, run.flags.resize)):
        answers = [ask(maps, [picture.prepared for picture in batch], size, i) for i in question.indices]
        for picture, *found in zip(batch, *answers, strict=True):
            with picture:
                picture.show(picture.prepared, "what the net sees")
                shown = []
                for values, index, logits, scores in found:
                    shown.append(question.describe(index, scores, None if question.layer else logits))
                    kind = f"_{index}" if len(found) > 1 else ""
                    save(picture, method, values, kind, shown[-1]["label"])
                picture.entry |= {
                    "class": shown[0],
                    "method": method,
                    "layer": question.layer,
                    "views": int(VIEWS.value),
                }
                if len(shown) > 1:
                    picture.entry["classes"] = shown
                rows += [[picture.name, each["label"], f"{each['score']:.4g}"] for each in shown]
    run.table(["file", "channel" if question.layer else "class", "score"], rows)


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
    maps: Callable, seen: list[np.ndarray], size: int, index: int
) -> list[tuple[np.ndarray, int, np.ndarray, np.ndarray]]:
    """(map [H, W], class or channel, logits [K], scores [K]) of each picture."""
    from tfcnn.visualization import saliency

    if VIEWS.value == "10":
        return [saliency.mean_of_views(maps, each, size, index) for each in seen]
    together = maps(np.stack(seen).astype(np.float32), np.full(len(seen), index, np.int32))
    values, found, logits, scores = (each.numpy() for each in together)
    return list(zip(values, map(int, found), logits, scores, strict=True))


def save(picture: cli.Picture, method: str, values: np.ndarray, kind: str, label: str) -> None:
    """Write a map in grey, and in colours over the picture; fine maps as their mean over 4 x 4 pixels."""
    from tfcnn.visualization import saliency

    first = "picture" not in picture.entry
    picture.save(saliency.picture(values), f"saliency{kind}", label, main=first)
    if method == "grad_cam":
        picture.save(draw.heat_map(values, picture.prepared), f"overlay{kind}", "over the picture")
        return
    coarse, _ = images.resize(values[..., None], [max(1, side // 4) for side in values.shape])
    overlay = draw.heat_map(coarse[..., 0], picture.prepared)
    picture.save(overlay, f"overlay{kind}", "its mean over 4 x 4 pixels")


if __name__ == "__main__":
    cli.start(main, batch_size=8, resize="crop")
