"""Caffe's nets, a deploy.prototxt and its .caffemodel, as flat Keras models; Caffe is not needed, and nothing is run.

The prototxt says what layers there are, and the .caffemodel is read for its weights alone. Every shape is checked
against the weights before a layer is built, so that no file takes more memory than its size.

Source: BVLC/caffe src/caffe/proto/caffe.proto.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Sequence

import keras
import numpy as np

from tfcnn.backbones.graph import zero_rgb
from tfcnn.backbones.importers import protobuf
from tfcnn.backbones.importers.caffe_layers import KINDS
from tfcnn.backbones.importers.caffe_message import Layer, Part, Shape, Surroundings
from tfcnn.backbones.importers.imported import Imported, first_layer
from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError, unknown

# Field numbers of caffe.proto.
NET_LAYERS, NET_OLD_LAYERS = 100, 2
LAYER_NAME, LAYER_BLOBS = 1, 7
OLD_LAYER_NAME, OLD_LAYER_BLOBS = 4, 6
BLOB_SHAPE, BLOB_DATA, BLOB_DOUBLES = 7, 5, 8
BLOB_OLD_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
MOST_LAYERS = 100_000

TRAINING_ONLY = {"Silence"}
SPATIAL = {"Convolution", "Pooling", "Eltwise", "Concat", "LRN", "Scale", "BatchNorm"}


def load(
    prototxt: str | os.PathLike,
    caffemodel: str | os.PathLike,
    *,
    preprocessing: Preprocessing | None = None,
    endpoints: Sequence[str] = (),
    allow_left_over: bool = False,
) -> Imported:
    """Reads a net of Caffe.

    Args:
        prototxt: the net's deploy.prototxt (or train_val.prototxt, whose layers of training are passed over).
        caffemodel: its weights.
        preprocessing: what to do first to RGB values of 0..255; None leaves the input as Caffe's, with channels last.
        endpoints: build the net up to these blobs only; by default all of it.
        allow_left_over: take the net although the file has weights of layers that the prototxt lacks.

    Returns:
        The model. Its outputs are the blobs that no layer reads: one tensor, or a dict {blob: tensor}. Its pictures
        are of the prototxt's size; `backbones.any_size` opens a net without dense layers.

    Raises:
        InputError: a file is damaged, the prototxt does not fit the weights (the first layer that differs is named),
            or it has layers that are not known (all are named).
    """
    picture, chain, outputs = _needed(*_described(prototxt), endpoints, prototxt)
    chain = _with_keras_names(chain)
    weights = _weights(caffemodel)
    try:
        parts = _planned(picture, chain)
    except InputError as error:
        raise InputError(f"{prototxt}: {error}") from error
    used = _checked(parts, weights, prototxt, caffemodel)
    left_over = [name for name, blobs in weights.items() if blobs and name not in used]
    if left_over and not allow_left_over and not endpoints:
        raise InputError(
            f"{caffemodel} has weights of layers that {prototxt} lacks: {_some_of(left_over)}; "
            "give the prototxt that belongs to it, or allow what is left over"
        )
    model = _built(picture, parts, outputs, weights, preprocessing, pathlib.Path(prototxt).stem)
    layers = [
        {"from": name, "to": part.kernel, "shape": list(weights[name][0][0])}
        for layer, _, part in parts
        if part.blobs
        for name in [layer.name, *([layer.scale.name] if layer.scale else [])]
    ]
    return Imported(model, layers, left_over, {blob: chain[i][0].name for blob, i in outputs.items()})


def depth(prototxt: str | os.PathLike) -> int:
    """Gives the channels of the picture that a net of Caffe reads, 0 where it reads none; raises as `load`."""
    inputs, _ = _described(prototxt)
    return next((shape[0] for shape in inputs.values() if len(shape) == 3), 0)


# ------------------------------------------------------------------------------------- the prototxt


def _described(path) -> tuple[dict[str, Shape], list[Layer]]:
    """The net's inputs {blob: shape of one picture} and its layers in the phase TEST."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        message = protobuf.parse_text(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: give the net's .prototxt") from error
    except protobuf.Malformed as error:
        raise InputError(f"{path} is no prototxt: {error}") from error
    listed = message.get("layer", []) + message.get("layers", [])
    if not listed or not all(isinstance(each, dict) for each in listed):
        raise InputError(f"{path} describes no layers: give the net's deploy.prototxt")
    inputs: dict[str, Shape] = {}
    names = [str(name) for name in message.get("input", [])]
    sizes = [each.get("dim", []) for each in message.get("input_shape", []) if isinstance(each, dict)]
    flat = message.get("input_dim", [])
    sizes = sizes or [flat[i : i + 4] for i in range(0, len(flat), 4)]
    for name, size in zip(names, sizes, strict=False):
        inputs[name] = _picture(size, name, path)
    layers = []
    for number, each in enumerate(listed):
        if not _is_for_test(each):
            continue
        bottoms, tops = (tuple(map(str, each.get(field, []))) for field in ("bottom", "top"))
        name, kind = str(each.get("name", [f"layer {number + 1}"])[-1]), _kind(each)
        if kind in ("Input", "DummyData"):
            sizes = [s for s in each.get("input_param", [{}])[-1].get("shape", []) if isinstance(s, dict)]
            for index, top in enumerate(tops):
                size = sizes[min(index, len(sizes) - 1)].get("dim", []) if sizes else []
                inputs[top] = _picture(size, top, path)
        elif kind not in TRAINING_ONLY:
            layers.append(Layer(name, kind, bottoms, tops, each))
    return inputs, layers


def _picture(size, name, path):
    if len(size) < 2 or any(not isinstance(side, int) or side < 1 for side in size):
        raise InputError(f"{path} gives the input {name} no size of whole numbers: give a deploy.prototxt")
    return tuple(size[1:])


def _kind(message):
    """The layer's type; one of before 2014, such as INNER_PRODUCT, in today's spelling."""
    kind = str(message.get("type", ["nothing"])[-1])
    today = {known.upper(): known for known in KINDS} if kind.isupper() else {}
    return today.get(kind.replace("_", ""), kind)


def _is_for_test(message):
    rules = [rule for rule in message.get("include", []) if isinstance(rule, dict)]
    against = [rule for rule in message.get("exclude", []) if isinstance(rule, dict)]

    def meets(rule):
        return str(rule.get("phase", ["TEST"])[-1]) in ("TEST", "1")

    return (not rules or any(map(meets, rules))) and not any(map(meets, against))


def _needed(inputs, layers, endpoints, path) -> tuple[Shape, list[tuple[Layer, list[int]]], dict[str, int]]:
    """The shape of the one input, (layer, where its inputs come from) of each layer, and the outputs {blob: layer}.

    An index counts the layers that are needed; -1 is the input.
    """
    made: dict[str, int] = {name: -1 - number for number, name in enumerate(inputs)}
    names_of_inputs = list(inputs)
    sources, last = [], {}
    for index, layer in enumerate(layers):
        absent = [name for name in layer.bottoms if name not in made]
        if not layer.bottoms and layer.kind not in KINDS:  # data of training
            made |= {top: None for top in layer.tops}
            sources.append([])
            continue
        if absent:
            raise InputError(
                f"{path}: the layer {layer.name} reads {absent[0]}, which no layer before it makes"
            )
        sources.append([made[name] for name in layer.bottoms])
        made |= dict.fromkeys(layer.tops, index)
        last |= dict.fromkeys(layer.tops, index)
    read = {source for each in sources for source in each}
    for name in endpoints:
        if name not in last:
            raise unknown(f"blob of {path}", name, last)
    ends = {name: last[name] for name in endpoints or last if endpoints or last[name] not in read}
    wanted, stack = set(), list(ends.values())
    while stack:
        index = stack.pop()
        if index is not None and index not in wanted:
            wanted.add(index)
            stack += sources[index] if index >= 0 else []
    strange = [layers[i] for i in sorted(wanted) if i >= 0 and layers[i].kind not in KINDS]
    if strange:
        named = ", ".join(f"{layer.kind} ({layer.name})" for layer in strange)
        raise InputError(
            f"{path} has layers that are not known: {named}; endpoints below them leave them out"
        )
    roots = [names_of_inputs[-1 - index] for index in sorted(wanted) if index < 0]
    if len(roots) != 1 or len(inputs[roots[0]]) != 3:
        shown = ", ".join(f"{name} {inputs[name]}" for name in roots) or "none"
        raise InputError(f"{path}: the net must read one picture [N, C, H, W], and its inputs are {shown}")
    order = {old: new for new, old in enumerate(i for i in sorted(wanted) if i >= 0)}
    chain = [(layers[old], [order.get(source, -1) for source in sources[old]]) for old in order]
    return inputs[roots[0]], chain, {name: order[index] for name, index in ends.items()}


def _with_keras_names(chain: list[tuple[Layer, list[int]]]) -> list[tuple[Layer, list[int]]]:
    """The layers with names as Keras takes them: without slashes, and each once."""
    taken: set[str] = set()
    named = []
    for layer, sources in chain:
        plain = layer.name.replace("/", "_")
        forms = itertools.chain([plain], (f"{plain}_{number}" for number in itertools.count(2)))
        name = next(form for form in forms if form not in taken)
        taken.add(name)
        named.append((dataclasses.replace(layer, keras_name=name), sources))
    return named


def _planned(picture, chain) -> list[tuple[Layer, list[int], Part]]:
    """Each layer with its inputs and what it is, a BatchNorm joined with its Scale; nothing is built yet."""
    readers = collections.Counter(source for _, sources in chain for source in sources)
    joined = {
        sources[0]: index
        for index, (layer, sources) in enumerate(chain)
        if layer.kind == "Scale"
        and len(sources) == 1
        and sources[0] >= 0
        and chain[sources[0]][0].kind == "BatchNorm"
        and readers[sources[0]] == 1
    }
    maps_after = _maps_after(chain)
    one_size = any(layer.kind == "InnerProduct" for layer, _ in chain)
    parts: list[tuple[Layer, list[int], Part]] = []
    for index, (layer, sources) in enumerate(chain):
        shapes = [parts[source][2].shape if source >= 0 else picture for source in sources]
        if index in joined.values():
            part = Part(shapes[0], (), lambda tensors, _: tensors[0])
        else:
            if index in joined:
                layer = dataclasses.replace(layer, scale=chain[joined[index]][0])
            part = KINDS[layer.kind](layer, shapes, Surroundings(one_size, index in maps_after))
        parts.append((layer, sources, part))
    return parts


def _maps_after(chain):
    """The layers whose output a layer of maps reads, directly or through others."""
    found: set[int] = set()
    for index in range(len(chain) - 1, -1, -1):
        layer, sources = chain[index]
        if layer.kind in SPATIAL or index in found and layer.kind != "InnerProduct":
            found.update(sources)
    return found


# ------------------------------------------------------------------------------------- the weights


def _weights(path) -> dict[str, list[tuple[Shape, np.ndarray]]]:
    """{layer: [(shape, numbers)]} of a .caffemodel; the numbers are views of the file."""
    found: dict[str, list[tuple[Shape, np.ndarray]]] = {}
    try:
        for field, value in protobuf.fields(protobuf.mapped(path)):
            if field not in (NET_LAYERS, NET_OLD_LAYERS) or isinstance(value, int):
                continue
            names = (LAYER_NAME, LAYER_BLOBS) if field == NET_LAYERS else (OLD_LAYER_NAME, OLD_LAYER_BLOBS)
            name, blobs = "", []
            for inner, content in protobuf.fields(value):
                if inner == names[0] and not isinstance(content, int):
                    name = bytes(content).decode("utf-8", "replace")
                elif inner == names[1] and not isinstance(content, int):
                    blobs.append(_blob(content))
            if blobs:
                found[name] = blobs
            if len(found) > MOST_LAYERS:
                raise protobuf.Malformed(f"it has more than {MOST_LAYERS:,} layers")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except protobuf.Malformed as error:
        raise InputError(f"{path} is no .caffemodel: {error}") from error
    if not found:
        raise InputError(f"{path} is no .caffemodel: it holds no layers with weights")
    return found


def _blob(data) -> tuple[Shape, np.ndarray]:
    shape, old, numbers, doubles = [], dict.fromkeys(BLOB_OLD_SHAPE, 1), [], []
    for field, value in protobuf.fields(data):
        if field == BLOB_SHAPE and not isinstance(value, int):
            shape = protobuf.varints([content for inner, content in protobuf.fields(value) if inner == 1])
        elif field in old and isinstance(value, int):
            old[field], shape = value, None
        elif field == BLOB_DATA:
            numbers.append(value)
        elif field == BLOB_DOUBLES:
            doubles.append(value)
    values = (
        protobuf.floats(doubles, "<f8") if doubles else protobuf.floats(numbers) if numbers else np.zeros(0)
    )
    sizes = tuple(old.values()) if shape is None else tuple(shape)
    count = 1
    for size in sizes:
        count *= size
    if count != len(values):
        raise protobuf.Malformed(f"a blob of {'x'.join(map(str, sizes))} holds {len(values):,} numbers")
    return sizes, values


def mean_of(path: str | os.PathLike) -> tuple[float, ...]:
    """Reads the mean of each channel from a .binaryproto, a mean picture.

    Raises:
        InputError: it is none.
    """
    try:
        shape, values = _blob(protobuf.mapped(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except protobuf.Malformed as error:
        raise InputError(f"{path} is no mean picture (.binaryproto): {error}") from error
    shape = shape[-3:]
    return tuple(float(each) for each in values.reshape(shape[0], -1).mean(axis=1, dtype=np.float64))


def _checked(parts, weights, prototxt, caffemodel) -> set[str]:
    """Compares the shape of each layer's weights; gives the layers of the file that are used."""
    used = set()
    for layer, _, part in parts:
        if not part.blobs:
            continue
        names = [layer.name, *([layer.scale.name] if layer.scale else [])]
        if not used.isdisjoint(names):
            raise InputError(f"{prototxt} has two layers with weights that are named {layer.name}")
        held = [blob for name in names for blob in weights.get(name, [])]
        if not held:
            raise InputError(f"{caffemodel} has no weights for the layer {layer.name} of {prototxt}")
        shapes = [shape for shape, _ in held]
        if list(map(_squeezed, shapes)) != list(map(_squeezed, part.blobs)):
            raise InputError(
                f"{prototxt} does not fit {caffemodel}: the first layer that differs is {layer.name}, "
                f"{_shown(part.blobs)} in the prototxt and {_shown(shapes)} in the weights"
            )
        for _, values in held:
            if not np.isfinite(values).all():
                raise InputError(f"{caffemodel} holds weights that are not finite in {layer.name}")
        used.update(names)
    return used


def _squeezed(shape):
    return tuple(size for size in shape if size != 1)


def _shown(shapes):
    return " + ".join("x".join(map(str, _squeezed(shape) or (1,))) for shape in shapes)


def _some_of(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


# ------------------------------------------------------------------------------------- the model


def _built(picture, parts, outputs, weights, preprocessing, name) -> keras.Model:
    depth, height, width = picture
    image, x = first_layer(preprocessing, height, width, depth)
    tensors: list[keras.KerasTensor] = []
    for layer, sources, part in parts:
        names = [layer.name, *([layer.scale.name] if layer.scale else [])]
        blobs = (
            [np.asarray(v, np.float32) for n in names for _, v in weights.get(n, [])] if part.blobs else []
        )
        try:
            tensors.append(part.build([tensors[s] if s >= 0 else x for s in sources], blobs))
        except ValueError as error:
            raise layer.wrong(f"Keras cannot build it: {str(error).splitlines()[0]}") from error
    made = {blob: tensors[index] for blob, index in outputs.items()}
    output = made if len(made) > 1 else next(iter(made.values()))
    try:
        model = keras.Model(image, output, name=re.sub(r"[^\w-]", "_", name))
    except ValueError as error:
        raise InputError(f"{name}: Keras cannot build the net: {str(error).splitlines()[0]}") from error
    model.zero_rgb = zero_rgb(model)
    return model
