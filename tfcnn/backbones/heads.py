"""Any Keras classifier as one with both its scores and what they were before softmax.

N pictures, K classes.
"""

import keras
import numpy as np

from tfcnn.errors import InputError


def with_logits(model: keras.Model, may_hide: bool = False) -> keras.Model:
    """Gives a classifier both outputs: `scores`, and the `logits` before its softmax or sigmoid.

    The layers are those of the model that is given, but for the last, whose weights are copied.

    Args:
        model: pictures [N, H, W, 3] -> [N, K], or a dict with `logits` and `scores` already. Its last layer
            is a softmax or a sigmoid, or has one as its activation, or gives logits (softmax: the scores).
        may_hide: give only the scores where the logits cannot be reached (a SavedModel with softmax inside).

    Returns:
        A model from the same pictures to {"logits": [N, K], "scores": [N, K]}.

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
    logits, squashing = _before_squashing(outputs[0])
    if squashing is None and _gives_probabilities(model):
        if may_hide:
            return keras.Model(picture, {"scores": outputs[0]}, name=model.name)
        raise InputError(
            f"{model.name} gives probabilities, and its last layer {model.layers[-1].name} hides what they "
            "were before softmax: end the model in a Dense or Activation layer"
        )
    name = "scores" if all(layer.name != "scores" for layer in model.layers) else None
    squash = keras.layers.Activation(squashing or "softmax", name=name, dtype="float32")
    return keras.Model(picture, {"logits": logits, "scores": squash(logits)}, name=model.name)


def _before_squashing(output):
    """The tensor before the last softmax or sigmoid, and which of the two it was, else None."""
    layer, node = output._keras_history.operation, output._keras_history.node_index
    before = layer._inbound_nodes[node].input_tensors
    if isinstance(layer, keras.Model):  # a model as the last layer: the same with its own end
        logits, kind = _before_squashing(layer.outputs[0])
        return (output, None) if kind is None else (keras.Model(layer.inputs[0], logits)(before[0]), kind)
    if isinstance(layer, keras.layers.Softmax):
        return before[0], "softmax"
    kind = getattr(getattr(layer, "activation", None), "__name__", None)
    if kind not in ("softmax", "sigmoid"):
        return output, None
    if isinstance(layer, keras.layers.Activation):
        return before[0], kind
    bare = type(layer).from_config(
        layer.get_config() | {"activation": "linear", "name": f"{layer.name}_logits"}
    )
    logits = bare(before[0])
    bare.set_weights(layer.get_weights())
    return logits, kind


def _gives_probabilities(model):
    shape = [1, *(side or 64 for side in model.input_shape[1:])]
    values = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    (output,) = keras.tree.flatten(model(values, training=False))
    output = keras.ops.convert_to_numpy(output)
    return bool((output >= 0).all() and abs(output.sum() - 1) < 1e-4)
