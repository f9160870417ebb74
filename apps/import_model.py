"""Import a model of Keras, TensorFlow, TF-Slim, Caffe or darknet, and save it as a release."""

from __future__ import annotations

import pathlib
import shlex
import shutil
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, images
from tfcnn.cli import usage
from tfcnn.cli.models import class_pairs
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.backbones.importers.imported import Imported
    from tfcnn.backbones.rows import Preprocessing

GROUP, SUMMARY = "models", "read a model of Keras, TF-Slim, Caffe or darknet, and save it as a release"

PROTOTXT = flags.DEFINE_string(
    "prototxt", None, "Description of a .caffemodel's net, e.g. --prototxt=deploy.prototxt"
)
ENDPOINTS = flags.DEFINE_list(
    "endpoints", [], "Of Caffe: build the net up to these blobs only, e.g. --endpoints=conv5_3"
)
MEAN = flags.DEFINE_list(
    "mean",
    [],
    "What is subtracted from values of 0..255: one number, one a channel in the order of --channels, or a mean "
    "picture (.binaryproto), e.g. --mean=104,117,123",
)
SCALE = flags.DEFINE_float(
    "scale", None, "What the difference is multiplied by, as in Caffe, e.g. --scale=0.0078125", lower_bound=0
)
CHANNELS = flags.DEFINE_enum(
    "channels",
    None,
    ["rgb", "bgr", "grey", "none"],
    "What the first layer reads: red, green, blue, or the reverse, or grey; none leaves the input as the file has it; "
    "without the flag a Caffe net gets bgr, or grey for one channel, and with --mean or --scale every other rgb, e.g. "
    "--channels=rgb",
)
LEFT_OVER = flags.DEFINE_enum(
    "left_over", "refuse", ["refuse", "allow"], "What to do where the file has weights that no layer takes"
)
REFERENCE = flags.DEFINE_string(
    "reference", None, "Compare the outputs for this picture with a reference, e.g. --reference=cat.jpg"
)
SCORES = flags.DEFINE_string(
    "scores",
    None,
    "What the original program answers for --reference: numbers in a text or .npy file; without it a Caffe net is "
    "compared with OpenCV's dnn module, e.g. --scores=scores.txt",
)
TOLERANCE = flags.DEFINE_float(
    "tolerance", 1e-4, "Largest difference from the reference that is accepted, absolute", lower_bound=0
)
FLOAT16 = flags.DEFINE_bool(
    "float16", False, "Store kernels as float16: half the size, slightly other outputs"
)
LICENCE = flags.DEFINE_string("licence", "as the imported file's", "Terms of the weights, for the card")


def main(run: cli.Run) -> None:
    if not run.flags.model:
        raise InputError("--model names the file to import")
    if not run.flags["weights"].using_default_value:
        raise InputError("--weights is of a net of the factory: the file of --model holds the weights")
    if run.flags.preprocessing and (MEAN.value or SCALE.value is not None or CHANNELS.value):
        raise InputError("--preprocessing says all that --mean, --scale and --channels say: drop them")
    if SCORES.value and not REFERENCE.value:
        raise InputError("--scores needs --reference, the picture that they are of")
    if CHANNELS.value == "none" and (MEAN.value or SCALE.value is not None):
        raise InputError("--channels=none leaves the input as it is: drop --mean and --scale")
    reference = images.read(REFERENCE.value) if REFERENCE.value else None
    scores = read_scores(SCORES.value) if SCORES.value else None
    run.runtime  # noqa: B018  (starts TensorFlow in silence)
    from tfcnn import importing
    from tfcnn.backbones import table

    kind = importing.kind_of(run.flags.model)
    if reference is not None and scores is None and kind != "caffemodel":
        raise InputError("--reference needs --scores, what the original program answers for the picture")
    how = table.preprocessing(run.flags.preprocessing) if run.flags.preprocessing else preprocessing(kind)
    net = None if run.flags["net"].using_default_value else run.flags.net
    imported = importing.import_model(
        run.flags.model,
        prototxt=PROTOTXT.value,
        net=net,
        preprocessing=how,
        endpoints=ENDPOINTS.value,
        allow_left_over=LEFT_OVER.value == "allow",
        allow_custom_objects=run.flags.allow_custom_objects,
    )
    run.net, classes = imported.model.name, class_names(run, imported.model)
    run.begin()
    if how:
        run.say(
            f"inside the net: (picture - {how.mean}) / {how.scale} in the order red, green, blue, then {how.order}"
        )
    if imported.left_over:
        run.say(f"left over: {', '.join(imported.left_over[:10])}")
    run.results |= {
        "format": kind,
        "layers": imported.layers,
        "left_over": imported.left_over,
        "parameters": int(sum(np.prod(weight.shape) for weight in imported.model.weights)),
        "difference": None,
        "release": None,
    }
    if reference is not None:
        run.results["difference"] = difference = compare(run, imported, reference, scores)
        run.say(f"{REFERENCE.value}: the largest difference from the reference is {difference:.2g}")
        if not difference <= TOLERANCE.value:
            raise InputError(
                f"the outputs differ from the reference by {difference:.3g}, more than --tolerance="
                f"{TOLERANCE.value:g}: see to --mean, --scale and --channels"
            )
    run.results["release"] = save(run, imported.model, kind, classes)
    rows = [[each["from"], each["to"], "x".join(map(str, each["shape"]))] for each in imported.layers]
    run.table(["in the file", "in the model", "weights"], rows)


def preprocessing(kind: str) -> Preprocessing | None:
    """What --mean, --scale and --channels ask for; None where they leave the model as it is."""
    from tfcnn.backbones.importers import caffe
    from tfcnn.backbones.rows import Preprocessing

    asked = MEAN.value or SCALE.value is not None or CHANNELS.value
    if CHANNELS.value == "none" or not asked and kind != "caffemodel":
        return None
    order = CHANNELS.value
    if order is None:
        order = "rgb"
        if kind == "caffemodel" and PROTOTXT.value:
            order = {1: "grey", 3: "bgr"}.get(caffe.depth(PROTOTXT.value))
            if order is None and not asked:
                return None
            order = order or "bgr"
    mean = list(MEAN.value) or [0.0]
    if MEAN.value and MEAN.value[0].endswith(".binaryproto"):
        mean = list(caffe.mean_of(mean[0]))
    try:
        mean = [float(each) for each in mean]
    except ValueError as error:
        raise InputError(f"--mean={','.join(MEAN.value)} holds what is no number") from error
    if not np.isfinite([*mean, SCALE.value or 0]).all():
        raise InputError("--mean and --scale must be finite numbers")
    if len(mean) not in (1, 3):
        raise InputError(f"--mean={','.join(MEAN.value)}: give one number or three")
    mean = mean * 3 if len(mean) == 1 else mean
    if SCALE.value == 0:
        raise InputError("--scale=0 leaves nothing of the picture")
    divisor = 1 / SCALE.value if SCALE.value else 1.0
    return Preprocessing(order, tuple(mean[::-1] if order == "bgr" else mean), (divisor,) * 3)


def read_scores(path: str) -> np.ndarray:
    """The numbers of a text or .npy file, in one row."""
    try:
        if path.endswith(".npy"):
            return np.load(path, allow_pickle=False).astype(np.float64).reshape(-1)
        text = pathlib.Path(path).read_text(encoding="utf-8")
        return np.array([float(word) for word in text.replace(",", " ").split()])
    except OSError as error:
        raise InputError(f"--scores={path} cannot be read: {error.strerror}") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"--scores={path} holds what is no number") from error


def compare(run: cli.Run, imported: Imported, picture: np.ndarray, scores: np.ndarray | None) -> float:
    """The largest difference of the model's outputs for a picture from the reference's."""
    import tensorflow as tf

    from tfcnn.backbones import tap
    from tfcnn.backbones.importers import caffe_reference

    model = imported.model
    if not isinstance(model.input_shape, tuple) or len(model.input_shape) != 4:
        raise InputError(f"{run.flags.model} takes {model.input_shape}, and no picture: drop --reference")
    _, height, width, depth = model.input_shape
    size = [height or run.flags.image_size or 224, width or run.flags.image_size or 224]
    seen, _ = images.resize(picture, size)
    batch = seen[None].astype(np.float32)
    batch = batch if depth == 3 else batch.mean(axis=-1, keepdims=True).repeat(depth, axis=-1)
    outputs = model(batch, training=False)
    named = outputs if isinstance(outputs, dict) else {"output": outputs}
    found = [np.asarray(values, np.float64) for values in named.values()]
    if scores is not None:
        kinds = [named["scores"], named["logits"]] if {"scores", "logits"} <= set(named) else found
        fits = [np.asarray(each, np.float64).reshape(-1) for each in kinds if np.size(each) == scores.size]
        if not fits:
            sizes = ", ".join(str(each.size) for each in found)
            raise InputError(f"--scores={SCORES.value} holds {scores.size} numbers, and the outputs {sizes}")
        return min(float(np.abs(each - scores).max()) for each in fits)
    first = model.get_layer("preprocess") if any(each.name == "preprocess" for each in model.layers) else None
    pixels = np.asarray(tap(model, ["preprocess"])(tf.constant(batch))["preprocess"]) if first else batch
    wanted = caffe_reference.answers(PROTOTXT.value, run.flags.model, pixels, list(imported.outputs.values()))
    return max(
        float(np.abs(own - other.reshape(own.shape)).max()) for own, other in zip(found, wanted, strict=True)
    )


def class_names(run: cli.Run, model: keras.Model) -> list[str]:
    """The names of a classifier's classes; [] of what is none."""
    scores = model.output.get("scores") if isinstance(model.output, dict) else model.output
    shape = getattr(scores, "shape", ())
    return [label for _, label in class_pairs(run.flags, shape[-1])] if len(shape) == 2 else []


def save(run: cli.Run, model: keras.Model, kind: str, classes: list[str]) -> str:
    """Write the release; its folder relative to output_dir."""
    from tfcnn.training import releases

    lines = usage.as_lines(run.flags, [name for name in run.flag_names if name not in usage.OF_THE_MACHINE])
    card = {
        "data": f"imported from {pathlib.Path(run.flags.model).name}",
        "classes": classes,
        "command": shlex.join(["python", "-m", f"apps.{run.app}", *lines]),
        "seed": run.flags.seed,
        "metrics": {},
        "licence": LICENCE.value,
    }
    folder = run.place("release")
    if kind == "saved_model":
        shutil.rmtree(folder, ignore_errors=True)
        model.export(folder, verbose=False)
        run.save_json(card, "release/card.json")
    else:
        releases.save(model, folder, card, float16=FLOAT16.value)
    return "release"


if __name__ == "__main__":
    cli.start(main, pictures=False, image_size=None)
