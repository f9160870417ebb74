"""Any Keras classifier as one with both its scores and what they were before softmax or sigmoid.

N pictures, K classes.
"""

import keras
import numpy as np

from tfcnn.backbones.graph import made_by
from tfcnn.errors import InputError

SQUASHING = ("softmax", "sigmoid")
PASSING = (keras.layers.Dropout, keras.layers.Identity, keras.layers.Flatten, keras.layers.Reshape)


def with_logits(model: keras.Model, may_hide: bool = False) -> keras.Model:
    """Gives a classifier both outputs: `scores`, and the `logits` before its softmax or sigmoid.

    The scores are the head's own: softmax over classes that exclude each other, sigmoid where each class has one for
    itself. A head of one unit answers yes or no, so that it has two classes, with the logits -z and z and the scores
    1 - p and p. The layers are those of the given model, but for the last: a softmax or sigmoid of its name gives the
    scores, and a copy with "_logits" after the name what comes before.

    Args:
        model: pictures [N, H, W, 3] -> [N, K], or a dict with `logits` and `scores` already. Its last layer is a
            softmax or a sigmoid, or has one as its activation, or gives logits (whose scores are the softmax, or of
            one unit the sigmoid).
        may_hide: give only the scores where the logits cannot be reached (a SavedModel with softmax inside).

    Returns:
        A model from the same pictures to {"logits": [N, K], "scores": [N, K]}, K at least 2.

    Raises:
        InputError: it has several outputs or another shape, or its probabilities cannot be taken apart.
    """
    if isinstance(model, keras.Sequential):
        picture, outputs = model.inputs[0], model.outputs
    else:
        picture, output = getattr(model, "input", None), getattr(model, "output", None)
        if isinstance(output, dict) and {"logits", "scores"} <= output.keys():
            return model
        outputs = keras.tree.flatten(output)
    if len(outputs) != 1 or not keras.backend.is_keras_tensor(outputs[0]) or len(outputs[0].shape) != 2:
        gives = (
            f"{len(outputs)} outputs"
            if len(outputs) > 1
            else getattr(outputs[0], "shape", "what is not known")
        )
        raise InputError(f"{model.name} is no classifier: it gives {gives}, not one vector a picture")
    single = outputs[0].shape[-1] == 1
    logits, squashing = _before_squashing(outputs[0])
    if squashing is None and _hides_squashing(model, outputs[0]):
        if may_hide:
            scores = keras.ops.concatenate([1.0 - logits, logits], axis=-1) if single else logits
            return keras.Model(picture, {"scores": scores}, name=model.name)
        raise InputError(
            f"{model.name} gives probabilities, and its last layer {model.layers[-1].name} hides what they "
            "were before softmax or sigmoid: end the model in a Dense or Activation layer"
        )
    if single:
        logits, squashing = keras.ops.concatenate([-logits, logits], axis=-1), "sigmoid"
    name = "scores" if all(layer.name != "scores" for layer in model.layers) else None
    last = made_by(outputs[0]).operation
    if squashing and not single and isinstance(last, keras.Layer) and not isinstance(last, keras.Model):
        name = last.name  # whoever asks for the layer by its name gets what it gave
    squash = keras.layers.Activation(squashing or "softmax", name=name, dtype="float32")
    return keras.Model(picture, {"logits": logits, "scores": squash(logits)}, name=model.name)


def _before_squashing(output: keras.KerasTensor) -> tuple[keras.KerasTensor, str | None]:
    """The tensor before the last softmax or sigmoid, and which of the two it was, else None."""
    call = made_by(output)
    layer, before = call.operation, call.inputs
    if isinstance(layer, keras.Model):  # a model as the last layer: the same with its own end
        logits, kind = _before_squashing(layer.outputs[0])
        return (output, None) if kind is None else (keras.Model(layer.inputs[0], logits)(before[0]), kind)
    if type(layer).__name__.lower() in SQUASHING:  # the layer Softmax, keras.ops.softmax, keras.ops.sigmoid
        return before[0], type(layer).__name__.lower()
    kind = getattr(getattr(layer, "activation", None), "__name__", None)
    if kind not in SQUASHING:
        return output, None
    if isinstance(layer, keras.layers.Activation):
        return before[0], kind
    linear = type(layer).from_config(
        layer.get_config() | {"activation": "linear", "name": f"{layer.name}_logits"}
    )
    logits = linear(before[0])
    linear.set_weights(layer.get_weights())
    return logits, kind


def _hides_squashing(model: keras.Model, output: keras.KerasTensor) -> bool:
    """Whether a model's answers are probabilities, squashed before layers that let them pass, or inside a layer.

    Where the layer does not say (a SavedModel), its answers to several pictures do: all of them lie in 0..1.
    """
    call = made_by(output)
    while isinstance(call.operation, PASSING) or _is_linear(call.operation, keras.layers.Activation):
        call = made_by(call.inputs[0])
    if _before_squashing(call.outputs[0])[1]:
        return True
    if _is_linear(call.operation, (keras.layers.Dense, keras.layers.Conv2D)):
        return False
    shape = [1, *(side or 64 for side in model.input_shape[1:])]
    random = np.random.default_rng(0)
    for picture in (np.zeros(shape), np.full(shape, 255.0), *random.uniform(0, 255, [6, *shape])):
        (answer,) = keras.tree.flatten(model(picture.astype(np.float32), training=False))
        answer = keras.ops.convert_to_numpy(answer)
        if not ((answer >= 0) & (answer <= 1)).all():
            return False
    return True


def _is_linear(operation: keras.Operation, kinds) -> bool:
    return isinstance(operation, kinds) and operation.activation is keras.activations.linear
