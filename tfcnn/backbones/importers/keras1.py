"""Nets of Keras 1, and of Keras 2 on Theano, as flat nets of Keras 3; nothing that the file brings along is run.

Keras 3 opens neither: it does not know Keras 1's layers, and takes Theano's kernels, which are turned by 180 degrees,
for TensorFlow's. Here the layers of a literal table are built from the description, and no others, each after its
shape was compared with the weights, so that no file takes more memory than its size. A net whose maps have their
channels first becomes one with channels last, with the same numbers: pictures are [N, H, W, C].

Source: Keras 1.2.2, keras/engine/topology.py and keras/models.py.
"""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import h5py
import keras
import numpy as np

from tfcnn.backbones import weights
from tfcnn.backbones.importers.keras1_chains import places, with_inputs
from tfcnn.backbones.importers.keras1_layers import (
    ELEMENTWISE,
    IN_FILE_ORDER,
    JOINS,
    KINDS,
    joined,
    unread,
)
from tfcnn.backbones.importers.keras1_names import ORDERS, Made, Old, class_of, renamed, slots
from tfcnn.errors import InputError

MODELS = ("Model", "Sequential", "Functional")
SIGNS = {
    "nb_filter",
    "border_mode",
    "dim_ordering",
    "subsample",
    "W_regularizer",
    "input_dtype",
    "concat_axis",
}
Arrays = list[h5py.Dataset]


@dataclasses.dataclass
class Call:
    """A layer or model of a description: its class, its arguments, and what each of its calls reads."""

    kind: str
    name: str
    config: dict
    reads: list[list[tuple[str, int, int]]]  # (layer, call, output) of each input of each call


@dataclasses.dataclass
class Flow:
    """A tensor of the model.

    Attributes:
        tensor: with channels last.
        map: (h, w, C) where it is a map that was flattened, and the file's order is (C, h, w).
    """

    tensor: keras.KerasTensor
    map: tuple[int, ...] | None = None


def version_of(path: pathlib.Path) -> str:
    """The version of Keras that wrote an .h5 file; "" where it does not say."""
    with h5py.File(path) as file:
        return _attribute(file, "keras_version")


def is_readable(path: pathlib.Path, config: dict) -> bool:
    """Whether a file is one of Keras 1, or of Keras 2 on Theano, by what it says of itself.

    Args:
        path: an .h5 file that holds a model.
        config: its `model_config`.
    """
    version = version_of(path)
    with h5py.File(path) as file:
        backend = _attribute(file, "backend")
    if version.startswith("2."):
        return backend == "theano"
    signs = not version and any(SIGNS & set(each) for each in _dictionaries(config))
    return signs or version.startswith("1.")


def load(path: pathlib.Path, config: dict) -> keras.Model:
    """Builds the net of a file that `is_readable`.

    Args:
        path: the .h5 file.
        config: its `model_config`.

    Returns:
        A functional model without models inside; maps, the picture's too, have their channels last.

    Raises:
        InputError: layers that are not read (all are named), weights that do not fit, or an order of channels or
            backend that the file does not tell.
    """
    try:
        with h5py.File(path) as file:
            return _Reader(file, config).model()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a description can be wrong in every way
        reason = " ".join(str(error).split()).rsplit("Exception encountered: ", 1)[-1]
        raise InputError(f"{path} cannot be read as a net of Keras 1: {reason}") from error


def _attribute(file: h5py.File, name: str) -> str:
    """What a file says of itself, Keras 2 at two places; "" where it says nothing."""
    value = file.attrs.get(name, file["model_weights"].attrs.get(name, "") if "model_weights" in file else "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_inside(array: h5py.Dataset, file: h5py.File) -> bool:
    """Whether an array's numbers are in the file itself, not in another one that it names."""
    outside = not isinstance(array, h5py.Dataset) or array.external or array.is_virtual
    return not outside and array.file.filename == file.filename


def _dictionaries(config) -> Iterator[dict]:
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _dictionaries(each)


def _described(kind: str, config: dict) -> tuple[list[Call], list, list]:
    """The layers of a model, its inputs and its outputs, a chain of layers written as any other net."""
    if kind == "Sequential":
        listed = config["layers"]
        if listed[0]["class_name"] != "InputLayer":  # a model round the chain says what it reads
            listed = [{"class_name": "InputLayer", "config": {}}, *listed]
        names = [layer["config"].get("name") or f"layer_{i}" for i, layer in enumerate(listed)]
        layers = [
            Call(class_of(layer["class_name"]), name, layer["config"], [[(before, 0, 0)]] if before else [])
            for layer, name, before in zip(listed, names, [None, *names], strict=False)
        ]
        last = layers[-1]
        return layers, [(names[0], 0, 0)], [(last.name, int(last.kind in MODELS), 0)]
    layers = [
        Call(
            class_of(layer["class_name"]),
            layer["name"],
            layer["config"],
            [[tuple(read[:3]) for read in call] for call in layer["inbound_nodes"]],
        )
        for layer in config["layers"]
    ]
    return layers, places(config["input_layers"]), places(config["output_layers"])


class _Reader:
    """One file; `arrays` are those that a layer has, by the names of the models round it and its own."""

    def __init__(self, file: h5py.File, config: dict) -> None:
        config = with_inputs(config)
        self.kind, self.config = config["class_name"], config["config"]
        if self.kind not in MODELS:
            raise InputError(f"it is of the class {self.kind}, whose layers cannot be reached")
        strange = list(dict.fromkeys(self._strange(self.kind, self.config)))
        if strange:
            raise InputError(f"it has layers of an old Keras that are not read: {', '.join(strange)}")
        self.keras_1 = not _attribute(file, "keras_version").startswith("2.")
        self.first = self._channels_first()
        self.theano = self._on_theano(_attribute(file, "backend"))
        self.arrays = self._arrays(file)
        self.taken: set[str] = set()
        self.made: dict[tuple, Made] = {}

    # -------------------------------------------------------------------------- what the file says

    def _strange(self, kind: str, config) -> Iterator[str]:
        for call in _described(kind, config)[0]:
            if call.kind in MODELS:
                yield from self._strange(call.kind, call.config)
            elif what := unread(call.kind, renamed(call.config)):
                yield f"{what} ({call.name})"

    def _channels_first(self) -> bool:
        fields = [
            each.get(name) for each in _dictionaries(self.config) for name in ("dim_ordering", "data_format")
        ]
        orders = {ORDERS[order] for order in fields if isinstance(order, str) and order in ORDERS}
        if len(orders) > 1:
            raise InputError("some of its layers have the channels first, and some last, which is not read")
        return True in orders

    def _on_theano(self, backend: str) -> bool:
        kernels = [
            renamed(each)["kernel_size"]
            for each in _dictionaries(self.config)
            if "kernel_size" in renamed(each) and ("filters" in each or "nb_filter" in each)
        ]
        turned = any(size not in (1, [1], [1, 1], [1, 1, 1]) for size in kernels)
        if not backend and self.first and turned:
            raise InputError(
                "its channels are first, and it does not say whether Theano or TensorFlow computed it, whose kernels "
                'differ: write "theano" or "tensorflow" into its attribute backend, as '
                'h5py.File(FILE, "r+").attrs["backend"] = "theano" does'
            )
        return backend == "theano"

    def _arrays(self, file: h5py.File) -> dict[tuple, Arrays]:
        """The arrays of each layer; those of a model inside are in one list, what is trained first."""
        held = {
            name: list(each)
            for name, each in weights.legacy_arrays(file["model_weights"]).items()
            if len(each)
        }
        needed = [
            (call.name, order)
            for call in _described(self.kind, self.config)[0]
            if (order := list(itertools.chain(*self._slots(call, ()))))
        ]
        if len(held) != len(needed):
            raise InputError(
                f"it has weights of {len(held)} layers, and its net has {len(needed)} with weights"
            )
        names = [name for name, _ in needed]
        if set(held) != set(names):  # chains inside chains have no names; the order is the same
            held = dict(zip(names, held.values(), strict=True))
        found: dict[tuple, dict[int, h5py.Dataset]] = collections.defaultdict(dict)
        for name, order in needed:
            if len(held[name]) != len(order):
                raise InputError(f"{name} has {len(held[name])} arrays of weights, and needs {len(order)}")
            for (layer, number), array in zip(order, held[name], strict=True):
                if not _is_inside(array, file):
                    raise InputError(f"the weights of {name} are not in the file itself")
                found[layer][number] = array
        return {layer: [each[number] for number in sorted(each)] for layer, each in found.items()}

    def _slots(self, call: Call, inside: tuple) -> tuple[list, list]:
        """(layer, number) of each array of a layer or model that is trained, and that is not, in a file's order."""
        here = (*inside, call.name)
        if call.kind in MODELS:
            parts = [self._slots(each, here) for each in _described(call.kind, call.config)[0]]
            return [slot for part in parts for slot in part[0]], [slot for part in parts for slot in part[1]]
        trained, fixed = slots(call.kind, renamed(call.config))
        order = [(here, number) for number in range(trained + fixed)]
        return ([], order) if call.config.get("trainable") is False else (order[:trained], order[trained:])

    # --------------------------------------------------------------------------------- the new net

    def model(self) -> keras.Model:
        inputs: list[keras.KerasTensor] = []
        outputs = [self._in_file_order(flow) for flow in self._run(self.kind, self.config, (), None, inputs)]
        single = outputs[0] if len(outputs) == 1 else outputs
        return keras.Model(
            inputs[0] if len(inputs) == 1 else inputs, single, name=self.config["name"] or "sequential"
        )

    def _run(self, kind, config, inside: tuple, given: Sequence[Flow] | None, inputs: list) -> list[Flow]:
        """Calls a model's layers, on `given` flows or on new inputs, which are added to `inputs`."""
        calls, starts, ends = _described(kind, config)
        flows: dict[tuple[str, int], list[Flow]] = {}
        for number, (name, *_) in enumerate(starts):
            if given is None:
                (call,) = [call for call in calls if call.name == name]
                if not call.config.get("batch_input_shape"):
                    raise InputError("it does not say what size of picture it reads")
                shape = list(call.config["batch_input_shape"])[1:]
                shape = [*shape[1:], shape[0]] if self.first and len(shape) > 2 else shape
                inputs.append(keras.Input(shape, name=self._name((*inside, name))))
                flows[name, 0] = [Flow(inputs[-1])]
            else:
                flows[name, 0] = [given[number]]
        waiting = [(call, number) for call in calls for number in range(len(call.reads))]
        while waiting:
            left = []
            for call, number in waiting:
                if not all((name, index) in flows for name, index, _ in call.reads[number]):
                    left.append((call, number))
                    continue
                read = [flows[name, index][output] for name, index, output in call.reads[number]]
                if call.kind in MODELS:  # it has a call of its own before all others
                    read = [Flow(self._in_file_order(flow)) for flow in read]
                    made = self._run(call.kind, call.config, (*inside, call.name), read, inputs)
                    flows[call.name, number + 1] = made
                    flows.setdefault((call.name, 0), made)
                else:
                    flows[call.name, number] = [self._called(call, inside, read)]
            if len(left) == len(waiting):
                raise InputError(f"the layer {left[0][0].name} reads what no layer makes")
            waiting = left
        return [flows[name, index][output] for name, index, output in ends]

    def _called(self, call: Call, inside: tuple, flows: list[Flow]) -> Flow:
        here = (*inside, call.name)
        if call.kind == "Merge" or call.kind in JOINS:
            return self._joined(call, here, flows)
        (flow,) = flows
        if len(call.reads) > 1:
            flow = Flow(self._in_file_order(flow))
        if call.kind == "Flatten":
            return self._flattened(call, here, flow)
        as_filed = call.kind in IN_FILE_ORDER
        tensor = self._in_file_order(flow, maps=True) if as_filed else flow.tensor
        ordered = call.kind in ELEMENTWISE or call.kind in ("Dense", "BatchNormalization", "PReLU")
        if flow.map and not ordered:
            tensor = self._in_file_order(flow, maps=as_filed)
        if here not in self.made:
            old = self._old(call, here)
            self.made[here] = KINDS[call.kind](old, tuple(tensor.shape))
            order = flow.map if ordered else None
            self._fill(old, self.made[here], self.arrays.get(here, []), tensor.shape, order)
        for step in self.made[here].steps:
            tensor = step(tensor)
        if as_filed and self.first and len(tensor.shape) > 3:
            axes = range(2, len(tensor.shape))
            tensor = keras.layers.Permute((*axes, 1), name=self._name((*here, "order")))(tensor)
        return Flow(tensor, flow.map if ordered and call.kind != "Dense" else None)

    def _old(self, call: Call, here: tuple) -> Old:
        config = renamed(call.config)
        return Old(call.kind, call.name, self._name(here), config, self.keras_1, self.first, self.theano)

    def _fill(self, old: Old, made: Made, arrays: Arrays, shape: tuple, before: tuple | None) -> None:
        """Builds a layer whose shapes agree with the file's, and gives it the weights."""
        for array, shapes in zip(arrays, made.shapes, strict=True):
            if array.shape not in shapes:
                raise old.refused(f"has weights of the shape {array.shape}, and needs {shapes[0]}")
        if made.holder is None:
            return
        for step in made.steps[: made.steps.index(made.holder)]:
            shape = step.compute_output_shape(shape)
        values = made.convert([np.asarray(array) for array in arrays])
        made.holder.build(shape)
        made.holder.set_weights(_in_order_of_maps(old, values, before) if before else values)

    def _joined(self, call: Call, here: tuple, flows: list[Flow]) -> Flow:
        old = self._old(call, here)
        same = {flow.map for flow in flows}
        alike = len(same) == 1 and (old.kind != "Concatenate") and old.config.get("mode") != "concat"
        tensors = [flow.tensor if alike else self._in_file_order(flow) for flow in flows]
        made = joined(old, len(tensors[0].shape))(tensors)
        return Flow(made, same.pop() if alike else None)

    def _flattened(self, call: Call, here: tuple, flow: Flow) -> Flow:
        shape = tuple(flow.tensor.shape[1:])
        if self.first and len(shape) > 2 and call.config.get("data_format") != "channels_first":
            if None in shape:
                flow = Flow(self._in_file_order(flow, maps=True))
            elif any(side > 1 for side in shape[:-1]):
                return Flow(keras.layers.Flatten(name=self._name(here))(flow.tensor), shape)
        return Flow(keras.layers.Flatten(name=self._name(here))(flow.tensor))

    def _in_file_order(self, flow: Flow, maps: bool = False) -> keras.KerasTensor:
        """A flattened map, and with `maps` a map, too, in the order of the file."""
        tensor = flow.tensor
        if flow.map:
            tensor = keras.layers.Reshape(flow.map, name=self._name(("order", "map")))(tensor)
        elif not (maps and self.first and len(tensor.shape) > 3):
            return tensor
        last = len(tensor.shape) - 1
        tensor = keras.layers.Permute((last, *range(1, last)), name=self._name(("order", "filed")))(tensor)
        return keras.layers.Flatten(name=self._name(("order", "flat")))(tensor) if flow.map else tensor

    def _name(self, place: tuple) -> str:
        """A name as Keras 3 takes it, each once: its own, or with those of the models round it."""
        forms = ["_".join(place[start:]).replace("/", "_") for start in range(len(place) - 1, -1, -1)]
        numbered = (f"{forms[-1]}_{number}" for number in itertools.count(2))
        name = next(form for form in itertools.chain(forms, numbered) if form not in self.taken)
        self.taken.add(name)
        return name


def _in_order_of_maps(old: Old, values: list[np.ndarray], shape: tuple[int, ...]) -> list[np.ndarray]:
    """Weights for a flattened map (h, w, C) from those for (C, h, w): a matrix's rows, or vectors."""

    def moved(array):
        parts = np.reshape(array, (shape[-1], *shape[:-1], *array.shape[1:]))
        return np.moveaxis(parts, 0, len(shape) - 1).reshape(array.shape)

    return [moved(values[0]), *values[1:]] if old.kind == "Dense" else [moved(each) for each in values]
