"""What stays as it is in training. Freeze before the loop is called: it collects what is trainable once."""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence

import keras
import numpy as np

from tfcnn.backbones import all_layers
from tfcnn.errors import unknown


def freeze(model: keras.Model, names: Iterable[str], endpoints: Mapping[str, str] | None = None) -> list[str]:
    """Freezes layers of a functional model by their names or by an endpoint.

    Args:
        model: a functional model; a backbone's outputs are its endpoints by name.
        names: each an endpoint (it and every layer that it is computed from), a layer, or a pattern of layers'
            names such as `block1_*`. Frozen batch norm uses, and keeps, its moving statistics.
        endpoints: {endpoint: name of its last layer} of a model whose outputs are no endpoints.

    Returns:
        The names of the layers that were frozen and have weights.

    Raises:
        InputError: a name that is neither, with the nearest.
    """
    outputs = dict(model.output) if isinstance(model.output, dict) else {}
    outputs = {**outputs, **{name: model.get_layer(last).output for name, last in (endpoints or {}).items()}}
    frozen = []
    for name in names:
        if name in outputs:
            layers = keras.Model(model.inputs, outputs[name]).layers
        else:
            layers = [layer for layer in model.layers if fnmatch.fnmatchcase(layer.name, name)]
        if not layers:
            known = [*outputs, *(layer.name for layer in model.layers)]
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


def freeze_trained(
    model: keras.Model,
    names: Sequence[str] = (),
    *,
    batch_norm: bool = True,
    endpoints: Mapping[str, str] | None = None,
    trained: Collection[str] | None = None,
) -> list[str]:
    """Freezes what a net brings from an earlier training, and nothing that is still random.

    Args:
        model: a functional model with its first weights in it.
        names: of layers to freeze, as in `freeze`; those that are not trained yet stay trainable.
        batch_norm: freeze every batch norm layer that has been trained, too.
        endpoints: as in `freeze`.
        trained: names of the layers that have been trained; None: `trained_layers`.

    Returns:
        The names of the layers that were frozen and have weights.
    """
    trained = trained_layers(model) if trained is None else trained
    before = {layer.name for layer in model.layers if layer.trainable}
    frozen = []
    for name in freeze(model, names, endpoints):
        if name in trained:
            frozen.append(name)
        elif name in before:
            model.get_layer(name).trainable = True
    for layer in _batch_norms(model) if batch_norm else []:
        if layer.name in trained:
            layer.trainable = False
            frozen.append(layer.name)
    return list(dict.fromkeys(frozen))


def trained_layers(model: keras.Model) -> set[str]:
    """Names the layers with weights that do not come fresh from their initializers.

    Initializers leave the numbers of a vector (bias; scale, shift and statistics of batch norm) all equal, and
    training does not. A layer that has kernels only is what the next layer with vectors is, in most nets its
    batch norm.
    """
    found, trained = set(), False
    for layer in reversed(all_layers(model)):
        if isinstance(layer, keras.layers.Normalization) or not layer.weights:
            continue
        vectors = [w for w in layer.weights if len(w.shape) == 1 and w.dtype.startswith(("float", "bfloat"))]
        if vectors:
            trained = any(np.ptp(keras.ops.convert_to_numpy(w)) > 0 for w in vectors)
        if trained:
            found.add(layer.name)
    return found


def described(networks: Mapping[str, keras.Model] | keras.Model) -> str:
    """Says in one line what of a net is frozen."""
    models = list(networks.values()) if isinstance(networks, Mapping) else [networks]
    layers = {id(layer): layer for model in models for layer in all_layers(model) if layer.weights}.values()
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    others = [layer for layer in layers if layer not in norms]
    still = [layer.name for layer in others if not layer.trainable]
    parts = []
    if still:
        ends = still[0] if len(still) == 1 else f"{still[0]} to {still[-1]}"
        parts.append(f"{len(still)} of {len(others)} layers with kernels are frozen ({ends})")
    if norms:
        kept = sum(not layer.trainable for layer in norms)
        state = "frozen" if kept == len(norms) else "live" if not kept else f"frozen in {kept} layers"
        parts.append(f"batch norm is {state}" + (f" of {len(norms)}" if 0 < kept < len(norms) else ""))
    return "; ".join(parts if still else ["no layer with kernels is frozen", *parts])


def synchronize_batch_norm(model: keras.Model) -> None:
    """Makes live batch norm take its statistics over the batches of all replicas.

    Without it each replica normalises by its own part of the batch, and the first replica's moving statistics
    are what validation and checkpoints' networks see.
    """
    for layer in _batch_norms(model):
        layer.synchronized = True


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
