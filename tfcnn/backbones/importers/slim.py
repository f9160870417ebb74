"""TF-Slim's checkpoints as Keras models: onto the factory's nets where they are the same, else onto `slim_nets`."""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones.factory import classifier
from tfcnn.backbones.graph import zero_rgb
from tfcnn.backbones.importers import slim_nets
from tfcnn.backbones.importers.imported import Imported, first_layer
from tfcnn.backbones.importers.slim_nets import NORM, Plan
from tfcnn.backbones.rows import TF, Preprocessing
from tfcnn.errors import InputError, unknown

VGG = Preprocessing("rgb", (123.68, 116.78, 103.94))  # slim's vgg_preprocessing, which ResNet has, too
# What a training leaves in a checkpoint beside the net: optimizers' slots, averages, Inception's second head.
OF_TRAINING = re.compile(
    r"(^|/)(global_step|AuxLogits/.*|(RMSProp|Momentum|Adam|Adagrad)(_\d)?|ExponentialMovingAverage|beta\d_power"
    r"|biased|local_step)$|(^|/)AuxLogits/"
)


@dataclasses.dataclass(frozen=True)
class Net:
    """A net of TF-Slim: its scope, where its classes are counted, how it is built, and what it does to pictures first.

    `build` takes (plan, tensor, classes) and `onto` is the net of the factory that is the same.
    """

    scope: str
    logits: str
    preprocessing: Preprocessing
    build: Callable | None = None
    onto: str = ""
    epsilon: float = 0.0
    cap: float | None = None
    size: int = 224


def _resnet(layers, *units):
    return Net(
        f"resnet_v1_{layers}",
        "logits",
        VGG,
        lambda plan, x, classes: slim_nets.resnet_v1(plan, x, classes, units),
        epsilon=1e-5,
    )


NETS: dict[str, Net] = {
    "alexnet_v2": Net("alexnet_v2", "fc8", VGG, slim_nets.alexnet_v2),
    "vgg_16": Net("vgg_16", "fc8", VGG, onto="vgg16"),
    "vgg_19": Net("vgg_19", "fc8", VGG, onto="vgg19"),
    "inception_v1": Net("InceptionV1", "Logits/Conv2d_0c_1x1", TF, slim_nets.inception_v1, epsilon=1e-3),
    "inception_v2": Net("InceptionV2", "Logits/Conv2d_1c_1x1", TF, slim_nets.inception_v2, epsilon=1e-3),
    "inception_v3": Net("InceptionV3", "Logits/Conv2d_1c_1x1", TF, onto="inception_v3", size=299),
    "resnet_v1_50": _resnet(50, 3, 4, 6, 3),
    "resnet_v1_101": _resnet(101, 3, 4, 23, 3),
    "resnet_v1_152": _resnet(152, 3, 8, 36, 3),
    "mobilenet_v1": Net(
        "MobilenetV1",
        "Logits/Conv2d_1c_1x1",
        TF,
        slim_nets.mobilenet_v1,
        epsilon=1e-3,
        cap=6.0,
    ),
}


def load(
    path: str | os.PathLike,
    net: str | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    allow_left_over: bool = False,
) -> Imported:
    """Reads a checkpoint of TF-Slim.

    Args:
        path: a file of TensorFlow's first format, or what the files of its second begin with.
        net: one of NETS; None takes the one whose scope the variables have.
        preprocessing: what to do first to RGB values of 0..255; None takes the one that TF-Slim trained the net with.
        allow_left_over: take the net although the checkpoint has variables that it lacks.

    Returns:
        A classifier {"logits", "scores"}. With 1001 classes the first is the background. What a training leaves in a
        checkpoint is passed over.

    Raises:
        InputError: it is no checkpoint, of another scope, or does not fit: variables are missing, of another shape, or
            left over.
    """
    try:
        reader = tf.train.load_checkpoint(str(path))
        shapes = reader.get_variable_to_shape_map()
    except Exception as error:  # of TensorFlow's own kinds, and ValueError
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is no checkpoint that TensorFlow reads: {reason}") from error
    _check_size(path, shapes)
    row = _row(path, net, shapes)
    classes = _classes(path, row, shapes)
    scaled = any(name.endswith("/BatchNorm/gamma") for name in shapes)
    plan = Plan(row.scope, row.epsilon, scaled, row.cap, shapes)
    turn = {}
    if row.onto:
        if preprocessing is not None:
            raise InputError(f"{row.onto} has its preprocessing inside: give none")
        model = classifier(row.onto, None, classes=classes)
        turn = _plan_vgg(plan, model) if row.onto.startswith("vgg") else _plan_inception_v3(plan, model)
    else:
        model = _built(row, plan, classes, preprocessing or row.preprocessing, shapes)
    _fill(path, reader, shapes, plan, turn)
    used = {name for _, names in plan.filled for name in names}
    left_over = sorted(name for name in shapes if name not in used)
    strange = [name for name in left_over if not OF_TRAINING.search(name)]
    if strange and not allow_left_over:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise InputError(
            f"{path} has variables that {row.scope} lacks: {', '.join(strange[:5])}{more}; "
            "allow what is left over to take it as it is"
        )
    layers = [
        {"from": name, "to": layer.name, "shape": list(shapes[name])}
        for layer, names in plan.filled
        for name in names
    ]
    return Imported(model, layers, left_over)


def _row(path, net, shapes) -> Net:
    if net is not None and net not in NETS:
        raise unknown("net of TF-Slim", net, NETS)
    scopes = {name.partition("/")[0] for name in shapes if "/" in name}
    found = [row for row in NETS.values() if row.scope in scopes]
    if net is None and len(found) == 1:
        return found[0]
    if net is None or NETS[net].scope not in scopes:
        wanted = NETS[net].scope if net else f"one of {', '.join(row.scope for row in NETS.values())}"
        raise InputError(
            f"the variables of {path} are of the scope {', '.join(sorted(scopes)[:5]) or 'none'}, and not of {wanted}"
        )
    return NETS[net]


def _classes(path, row, shapes) -> int:
    name = f"{row.scope}/{row.logits}/weights"
    if name not in shapes:
        raise InputError(f"{path} lacks {name}: it is no whole classifier of {row.scope}")
    return int(shapes[name][-1])


def _built(row, plan, classes, preprocessing, shapes) -> keras.Model:
    image, x = first_layer(preprocessing, row.size, row.size, 3)
    if row.build is slim_nets.mobilenet_v1:
        first = shapes.get(f"{row.scope}/Conv2d_0/weights", [32])
        logits = row.build(plan, x, classes, first[-1] / 32)
    else:
        logits = row.build(plan, x, classes)
    scores = keras.layers.Activation("softmax", dtype="float32", name="scores")(logits)
    model = keras.Model(image, {"logits": logits, "scores": scores}, name=row.scope)
    model.zero_rgb = zero_rgb(model)
    return model


def _check_size(path, shapes) -> None:
    """Sees that the variables have no more numbers than the files have bytes."""
    path = pathlib.Path(path)
    folder, begin = path.parent, f"{path.name}.data-"
    files = [path] if path.is_file() else [each for each in folder.iterdir() if each.name.startswith(begin)]
    held = sum(each.stat().st_size for each in files)
    claimed = sum(math.prod(shape) for shape in shapes.values())
    if claimed > held:
        raise InputError(f"{path} claims {claimed:,} numbers, and its files have {held:,} bytes: cut short")


def _value(path, reader, name) -> np.ndarray:
    try:
        return reader.get_tensor(name)
    except Exception as error:  # of TensorFlow's own kinds
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged or cut short at {name}: {reason}") from error


def _fill(path, reader, shapes, plan, turn) -> None:
    """Copies the variables into the layers, after all shapes were compared."""
    for layer, names in plan.filled:
        for name, weight in zip(names, layer.weights, strict=True):
            if name not in shapes:
                raise InputError(f"{path} lacks the variable {name}: it is no checkpoint of {plan.scope}")
            wanted = tuple(weight.shape)
            held = shapes[name] if len(wanted) != 2 else (int(np.prod(shapes[name][:-1])), *shapes[name][-1:])
            if tuple(held) != wanted:
                raise InputError(
                    f"{path} does not fit: {name} is {_times(shapes[name])}, and the net's {layer.name} has "
                    f"{_times(wanted)}"
                )
    for layer, names in plan.filled:
        values = []
        for name, weight in zip(names, layer.weights, strict=True):
            value = _value(path, reader, name)
            if not np.isfinite(value).all():
                raise InputError(f"{path} holds numbers that are not finite in {name}")
            values.append(turn.get(name, np.asarray)(value).reshape(weight.shape))
        layer.set_weights(values)


def _plan_vgg(plan: Plan, model: keras.Model) -> dict[str, Callable]:
    """The factory's VGG reads blue first, TF-Slim's red; its dense layers are convolutions of the same order."""
    for layer in model.layers:
        if match := re.fullmatch(r"block(\d)_conv(\d)", layer.name):
            name = f"conv{match[1]}/conv{match[1]}_{match[2]}"
        elif layer.name in ("fc1", "fc2", "predictions"):
            name = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}[layer.name]
        else:
            continue
        plan.add(layer, f"{name}/weights", f"{name}/biases")
    return {f"{plan.scope}/conv1/conv1_1/weights": lambda kernel: kernel[:, :, ::-1]}


def inception_v3_scopes() -> list[str]:
    """The scopes of TF-Slim's Inception-v3 in the order of Keras' convolutions."""
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    five = ["0a_1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"]
    seven = ["0a_1x1", "0a_1x1 0b_1x7 0c_7x1", "0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7", "0b_1x1"]
    end = ["0a_1x1", "0a_1x1 0b_1x3 0b_3x1", "0a_1x1 0b_3x3 0c_1x3 0d_3x1", "0b_1x1"]
    blocks = {
        "5b": five,
        "5c": [five[0], "0b_1x1 Conv_1_0c_5x5", *five[2:]],
        "5d": five,
        "6a": ["1a_1x1", "0a_1x1 0b_3x3 1a_1x1"],
        **dict.fromkeys(("6b", "6c", "6d", "6e"), seven),
        "7a": ["0a_1x1 1a_3x3", "0a_1x1 0b_1x7 0c_7x1 1a_3x3"],
        "7b": end,
        "7c": [end[0], "0a_1x1 0b_1x3 0c_3x1", *end[2:]],
    }
    return stem + [
        f"Mixed_{block}/Branch_{number}/{each if each.startswith('Conv') else f'Conv2d_{each}'}"
        for block, branches in blocks.items()
        for number, branch in enumerate(branches)
        for each in branch.split()
    ]


def _plan_inception_v3(plan: Plan, model: keras.Model) -> dict[str, Callable]:
    by_name = {layer.name: layer for layer in model.layers}
    for number, scope in enumerate(inception_v3_scopes()):
        suffix = f"_{number}" if number else ""
        plan.add(by_name[f"conv2d{suffix}"], f"{scope}/weights")
        norm = by_name[f"batch_normalization{suffix}"]
        plan.add(norm, *(f"{scope}/BatchNorm/{each}" for each in NORM))
    plan.add(by_name["predictions"], "Logits/Conv2d_1c_1x1/weights", "Logits/Conv2d_1c_1x1/biases")
    return {}


def _times(shape):
    return "x".join(map(str, shape))
