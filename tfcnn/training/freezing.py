"""What stays as it is in training. Freeze before the loop is called: it collects what is trainable once."""

import fnmatch

import keras

from tfcnn.errors import unknown


def freeze(model: keras.Model, names: list[str]) -> list[str]:
    """Freezes layers of a functional model by their names or by an endpoint.

    Args:
      model: a functional model; a backbone's outputs are its endpoints by name.
      names: each an endpoint (it and every layer that it is computed from), a layer, or a pattern of layers'
        names such as `block1_*`. Frozen batch norm uses, and keeps, its moving statistics.

    Returns:
      The names of the layers that were frozen and have weights.

    Raises:
      InputError: a name that is neither, with the three nearest.
    """
    endpoints = model.output if isinstance(model.output, dict) else {}
    frozen = []
    for name in names:
        if name in endpoints:
            layers = keras.Model(model.inputs, endpoints[name]).layers
        else:
            layers = [layer for layer in model.layers if fnmatch.fnmatchcase(layer.name, name)]
        if not layers:
            known = [*endpoints, *(layer.name for layer in model.layers)]
            raise unknown("layer or endpoint to freeze", name, known)
        for layer in layers:
            layer.trainable = False
            if layer.weights:
                frozen.append(layer.name)
    return list(dict.fromkeys(frozen))


def freeze_batch_norm(model: keras.Model) -> None:
    """Makes every batch norm layer of a model use, and keep, its moving statistics, scale and shift."""
    for layer in _batch_norms(model):
        layer.trainable = False


def synchronize_batch_norm(model: keras.Model) -> None:
    """Makes live batch norm take its statistics over the batches of all replicas.

    Without it each replica normalises by its own part of the batch, and the first replica's moving statistics
    are what validation and checkpoints' networks see.
    """
    for layer in _batch_norms(model):
        layer.synchronized = True


def _batch_norms(model):
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
