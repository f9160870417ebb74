"""The box head: a classifier becomes a net that says what is in a picture and where.

N pictures of a batch, C classes, K objects of a picture, h w the size of the last map, D the features of a dense layer.

Source: the lecture's second and third step, "attach a new fully connected regression head to the network"; after the
last convolution as OverFeat (Sermanet et al. 2013, section 4) and VGG (Simonyan and Zisserman 2014, appendix A), or
after the last dense layer as DeepPose (Toshev and Szegedy 2014) and R-CNN (Girshick et al. 2014).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras

from tfcnn.backbones.graph import Call, calls, made_by, zero_rgb
from tfcnn.backbones.heads import with_logits
from tfcnn.errors import InputError, unknown
from tfcnn.localization.places import MeanOfPlaces

ATTACH = ("conv", "fc")
FC = "head_fc"  # the hidden layer that a net without one is given
OWN_LAYERS = "box_"  # how the names of the box head's layers begin
# The last layer of each form of the head, by which a saved model is known again.
FORMS = {"agnostic": "box_agnostic", "per_class": "box_per_class", "objects": "box_objects", "rpn": "box_rpn"}
NARROW = "box_narrow"  # the layer of a `finer` head that reads the second map
JOINED = 192  # channels of the two maps that `finer` joins
BETWEEN = (  # what stands between a dense layer and the next
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.ReLU,
)


@dataclasses.dataclass(frozen=True)
class Form:
    """What a localizer gives.

    Attributes:
        kind: "agnostic" (boxes [N, 4]), "per_class" ([N, C, 4]), "objects" ([N, K, 4]) or "rpn" ([N, C, 4], of
            `class_rpn`).
        classes: C.
        objects: K; 1 of the first two.
    """

    kind: str
    classes: int
    objects: int


def with_box_head(
    classifier: keras.Model,
    *,
    attach: str = "conv",
    per_class: bool = False,
    objects: int = 1,
    per_place: bool = False,
    finer: bool = False,
    convolutions: Sequence[int] = (),
    hidden: Sequence[int] = (128,),
    dropout: float = 0.0,
    fc_units: int = 512,
) -> keras.Model:
    """Attaches a new fully connected box head to a classifier.

    Args:
        classifier: of `tfcnn.backbones.classifier`, or any flat functional classifier of pictures of one size.
        attach: "conv": the head reads the last map before the classes, flattened; "fc": what the last hidden dense
            layer gives. A net that has none (its map is averaged and classified at once) is given one, `head_fc`,
            between average and classes; both it and the layer of the classes are then new and must be trained.
        per_class: a box for each class; False: one box.
        objects: K boxes of a picture; with K > 1 the head is class-agnostic.
        per_place: the dense layers read each location of the map by itself, and the box is the weighted mean of what
            the locations answer (`places.MeanOfPlaces`); False: they read the flattened map.
        finer: the head reads a map of twice the last one's side: the last map, enlarged, plus the last one of that
            side, each through a 1x1 convolution (Lin et al., "Feature Pyramid Networks", 2017, section 3).
        convolutions: channels of separable 3x3 convolutions, each with a ReLU, that the head begins with after the
            last map, as the networks on convolutional feature maps of Ren, He, Girshick, Zhang, Sun 2015 do.
        hidden: units of the head's hidden dense layers, each with a ReLU: (4096, 1024) are OverFeat's, () is one
            linear layer.
        dropout: share of the numbers dropped in training before each hidden dense layer.
        fc_units: D of `head_fc`.

    Returns:
        A flat model from pictures [N, H, W, 3] to {"logits": [N, C], "scores": [N, C], "boxes": [N, 4], [N, C, 4] or
        [N, K, 4]}; boxes are unit_boxes (x1, y1, x2, y2). The classifier's layers are shared, those of the head
        begin with "box_".

    Raises:
        InputError: an unknown `attach`, convolutions, `per_place` or `finer` where there is no map, no map of twice
            the side, several objects with a box for each class, or a net of no square size.
    """
    if attach not in ATTACH:
        raise unknown("attach", attach, ATTACH)
    of_map = {"convolutions": convolutions, "per_place": per_place, "finer": finer}
    if attach == "fc" and any(of_map.values()):
        what = " and ".join(name for name, value in of_map.items() if value)
        raise InputError(f"attach='fc' has no map, which is what {what} would read: take 'conv'")
    if objects < 1 or (per_class and objects > 1):
        raise InputError(f"objects={objects}: one from 1 up, and one box for each class has one object only")
    classifier = with_logits(classifier)
    height, width = classifier.input_shape[1:3]
    if not height or height != width:
        raise InputError(
            f"{classifier.name} takes pictures of {height} x {width}; a box head needs one square size"
        )
    outputs = {name: classifier.output[name] for name in ("logits", "scores")}
    count = outputs["logits"].shape[-1]
    below = class_layer(outputs["logits"]).inputs[0]
    if attach == "conv":
        features = last_map(below)
    else:
        features = _past_dropout(below)
        if not _is_hidden_dense(features):
            features, outputs = _with_hidden(below, count, fc_units)
    x = _joined(features, narrow_map(features)) if finer else features
    x = convolved(x, convolutions, f"{OWN_LAYERS}conv")
    if len(x.shape) > 2 and not per_place:
        x = keras.layers.Flatten(name=f"{OWN_LAYERS}flatten")(x)
    for number, units in enumerate(hidden, 1):
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"{OWN_LAYERS}dropout{number}")(x)
        x = keras.layers.Dense(units, activation="relu", name=f"{OWN_LAYERS}fc{number}")(x)
    kind = "per_class" if per_class else "objects" if objects > 1 else "agnostic"
    boxes = count if per_class else objects
    near_zero = keras.initializers.RandomNormal(
        stddev=0.01
    )  # VGG's: larger first errors would silence the ReLUs
    numbers = keras.layers.Dense(
        (5 if per_place else 4) * boxes,
        kernel_initializer=near_zero,
        name=f"{OWN_LAYERS}numbers",
        dtype="float32",
    )
    x = numbers(x)
    if per_place:
        x = MeanOfPlaces(x.shape[1:3], 2 if finer else 1, name=f"{OWN_LAYERS}mean", dtype="float32")(x)
    shape = (4,) if kind == "agnostic" else (boxes, 4)
    outputs["boxes"] = keras.layers.Reshape(shape, name=FORMS[kind], dtype="float32")(x)
    model = keras.Model(classifier.inputs[0], outputs, name="localizer")
    model.zero_rgb = zero_rgb(model)
    return model


def convolved(x: keras.KerasTensor, channels: Sequence[int], name: str) -> keras.KerasTensor:
    """Puts separable 3x3 convolutions on a map, each with a ReLU.

    Args:
        x: [N, h, w, C].
        channels: of each.
        name: how the layers' names begin; a number follows.
    """
    for number, count in enumerate(channels, 1):
        x = keras.layers.SeparableConv2D(
            count,
            3,
            padding="same",
            activation="relu",
            depthwise_initializer=keras.initializers.RandomNormal(stddev=9**-0.5),  # of 9 inputs, not 9 C
            pointwise_initializer="he_normal",
            name=f"{name}{number}",
        )(x)
    return x


def form(model: keras.Model) -> Form:
    """Gives the form of a localizer's boxes.

    Raises:
        InputError: the model is no localizer.
    """
    output = model.output if isinstance(model.output, dict) else {}
    kinds = {layer: kind for kind, layer in FORMS.items()}
    if (
        not {"logits", "scores", "boxes"} <= output.keys()
        or made_by(output["boxes"]).operation.name not in kinds
    ):
        raise InputError(f"{model.name} is no localizer: it has no box head beside its classes")
    kind = kinds[made_by(output["boxes"]).operation.name]
    objects = output["boxes"].shape[1] if kind == "objects" else 1
    return Form(kind, output["logits"].shape[-1], objects)


def box_layers(model: keras.Model) -> set[str]:
    """Names the layers of a localizer's box head that have weights."""
    return {layer.name for layer in model.layers if layer.name.startswith(OWN_LAYERS) and layer.weights}


def split(model: keras.Model, untrained: set[str] = frozenset()) -> tuple[keras.Model, keras.Model]:
    """Cuts a localizer in two: what stays as it is, and what is trained.

    Args:
        model: of `with_box_head`.
        untrained: names of layers beside the box head that must lie above the cut.

    Returns:
        (body, head): pictures [N, H, W, 3] -> {"features": [N, ...]}, and from these the outputs of the model.
    """
    by_name = {call.operation.name: call for call in calls(model)}
    own = [call for name, call in by_name.items() if name.startswith(OWN_LAYERS)]
    below = {id(x): made_by(x).operation.name for call in own for x in call.inputs}
    lowest = next(name for name in by_name if name in below.values() and not name.startswith(OWN_LAYERS))
    features = by_name[lowest].outputs[0]  # of `finer` the narrow map, from which the last one is made
    if made_by(features).operation.name == FC and FC in untrained:
        features = by_name[FC].inputs[0]
    body = keras.Model(model.inputs[0], {"features": features}, name="features")
    return body, keras.Model(features, model.output, name="head")


def class_layer(tensor: keras.KerasTensor) -> Call:
    """Gives the call of the layer that holds the weights of the classes.

    Args:
        tensor: the classes' logits.
    """
    call = made_by(tensor)
    while not getattr(call.operation, "weights", None):
        call = made_by(call.inputs[0])
    return call


def last_map(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Gives the last map [N, h, w, C] on the way to what the layer of the classes reads.

    Args:
        tensor: what it reads.
    """
    while len(tensor.shape) != 4:
        tensor = made_by(tensor).inputs[0]
    return _past_dropout(tensor)


def narrow_map(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Gives the last map of twice a map's side from which alone that map is made.

    Args:
        tensor: the map [N, h, w, C].

    Raises:
        InputError: there is none.
    """
    order = calls(keras.Model(_pictures(tensor), tensor))
    made = {id(out): number for number, call in enumerate(order) for out in call.outputs}
    last_read = dict.fromkeys(range(len(order)), 0)
    for number, call in enumerate(order):
        for each in call.inputs:
            last_read[made[id(each)]] = number
    side, found = 2 * tensor.shape[1], None
    open_until = 0  # where the last call stands that reads anything made before
    for number, call in enumerate(order):
        out = call.outputs[0]
        if call.inputs and open_until <= number and len(out.shape) == 4 and out.shape[1:3] == (side, side):
            found = out
        open_until = max(open_until, last_read[number])
    if found is None:
        raise InputError(
            f"finer: the net has no map of {side} x {side}, from which alone its last one is made"
        )
    return found


def _pictures(tensor):
    """The input that a tensor comes from."""
    while made_by(tensor).inputs:
        tensor = made_by(tensor).inputs[0]
    return tensor


def _joined(last, narrow):
    def projected(x, name):
        return keras.layers.Conv2D(JOINED, 1, kernel_initializer="he_normal", name=name)(x)

    last = keras.layers.UpSampling2D(2, name=f"{OWN_LAYERS}enlarged")(projected(last, f"{OWN_LAYERS}last"))
    both = keras.layers.Add(name=f"{OWN_LAYERS}sum")([last, projected(narrow, NARROW)])
    return keras.layers.ReLU(name=f"{OWN_LAYERS}joined")(both)


def _past_dropout(tensor: keras.KerasTensor) -> keras.KerasTensor:
    while isinstance(made_by(tensor).operation, keras.layers.Dropout | keras.layers.Identity):
        tensor = made_by(tensor).inputs[0]
    return tensor


def _is_hidden_dense(tensor: keras.KerasTensor) -> bool:
    call = made_by(tensor)
    while isinstance(call.operation, BETWEEN):
        call = made_by(call.inputs[0])
    return isinstance(call.operation, keras.layers.Dense)


def _with_hidden(below: keras.KerasTensor, classes: int, units: int) -> tuple[keras.KerasTensor, dict]:
    """A new hidden dense layer and a new layer of the classes on what the old one read."""
    x = below if len(below.shape) == 2 else keras.layers.GlobalAveragePooling2D(name="head_average")(below)
    features = keras.layers.Dense(units, activation="relu", name=FC)(x)
    logits = keras.layers.Dense(classes, name="head_classes", dtype="float32")(features)
    scores = keras.layers.Activation("softmax", name="head_scores", dtype="float32")(logits)
    return features, {"logits": logits, "scores": scores}
