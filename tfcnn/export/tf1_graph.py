"""A model as a frozen graph that TensorFlow 1.15 loads: constants in place of variables, and nothing newer than 1.15.

The operations and attributes that 1.15 has are listed in tf1_ops.txt. Later versions write attributes that it does not
know; where they hold their default they are left out, else the model is refused.
"""

from __future__ import annotations

import functools
import os
import pathlib

import keras
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfcnn import files
from tfcnn.errors import InputError

VERSION = 134  # of graphs, in TensorFlow 1.15
INPUT = "image"
EMPTY = '""'  # how the list writes an empty string


def frozen(model: keras.Model) -> tuple[graph_pb2.GraphDef, dict[str, str]]:
    """Freezes a model.

    Args:
        model: one tensor of pictures [N, H, W, 3], of fixed or open size -> a tensor or a dict of tensors.

    Returns:
        (graph, {output of the model: its node}): the input is the placeholder "image"; a model with one output without
        a name has "output".

    Raises:
        InputError: it needs an operation, an attribute or a type that TensorFlow 1.15 lacks; all of them are named.
    """

    @tf.autograph.experimental.do_not_convert
    def program(image):
        outputs = model(image, training=False)
        outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
        return {name: tf.identity(outputs[name]) for name in sorted(outputs)}

    (tensor,) = model.inputs
    spec = tf.TensorSpec(tensor.shape, tensor.dtype, INPUT)
    traced = tf.function(program, input_signature=[spec]).get_concrete_function()
    function = convert_variables_to_constants_v2(traced)
    graph = function.graph.as_graph_def()
    taken, names = {node.name for node in graph.node}, {}
    for output, made in zip(sorted(traced.structured_outputs), function.outputs, strict=True):
        names[output] = f"{output}_output" if output in taken else output
        node = graph.node.add(name=names[output], op="Identity", input=[made.name])
        node.attr["T"].type = made.dtype.as_datatype_enum
    problems = _made_old(graph)
    if problems:
        raise InputError(f"TensorFlow 1.15 cannot run {model.name}, which needs {', '.join(problems[:10])}")
    graph.versions.producer = min(graph.versions.producer, VERSION)
    return graph, names


def write(model: keras.Model, path: str | os.PathLike) -> dict[str, str]:
    """Freezes a model and writes the graph; arguments and errors as of `frozen`.

    Args:
        model: as `frozen` takes it.
        path: of the .pb file.

    Returns:
        {output of the model: its node}.
    """
    graph, names = frozen(model)
    files.write_bytes(path, graph.SerializeToString(deterministic=True))
    return names


class Runner:
    """A frozen graph at work in this TensorFlow.

    Args:
        path: of the .pb file.
        names: {output: its node}.
    """

    def __init__(self, path: str | os.PathLike, names: dict[str, str]):
        graph = graph_pb2.GraphDef.FromString(pathlib.Path(path).read_bytes())

        def imported(image):
            return tf.graph_util.import_graph_def(
                graph, {INPUT: image}, [f"{node}:0" for node in names.values()], name=""
            )

        node = next(node for node in graph.node if node.name == INPUT)
        spec = tf.TensorSpec(tf.TensorShape(node.attr["shape"].shape), tf.DType(node.attr["dtype"].type))
        self._run = tf.compat.v1.wrap_function(imported, [spec])
        self._names = names

    def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives {output: tensor} of pictures [N, H, W, 3]."""
        return dict(zip(self._names, self._run(tf.convert_to_tensor(image)), strict=True))


@functools.cache
def known() -> dict[str, dict[str, frozenset[str]]]:
    """Lists the operations of TensorFlow 1.15: {operation: {attribute: the values it takes, empty for all}}."""
    text = pathlib.Path(__file__).with_name("tf1_ops.txt").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, *attributes = line.split()
        pairs = (attribute.partition("=") for attribute in attributes)
        found[name] = {
            key: frozenset(values.split(",")) if values else frozenset() for key, _, values in pairs
        }
    return found


def _made_old(graph: graph_pb2.GraphDef) -> list[str]:
    """Leaves out what says nothing, and lists what TensorFlow 1.15 lacks."""
    problems: dict[str, None] = {}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for node in nodes:
        if node.op not in known():
            problems[f"the operation {node.op}"] = None
            continue
        attributes = known()[node.op]
        now = op_def_registry.get(node.op)
        defaults = {each.name: each.default_value for each in now.attr if each.HasField("default_value")}
        for name in list(node.attr):
            if name.startswith("_"):
                del node.attr[name]  # hints to the runtime that wrote them
            elif name not in attributes:
                if defaults.get(name) != node.attr[name]:
                    problems[f"the attribute {name} of {node.op}"] = None
                del node.attr[name]
            elif attributes[name] and not _values(node.attr[name]) <= attributes[name]:
                problems[f"{node.op} of {', '.join(sorted(_values(node.attr[name])))}"] = None
    return list(problems)


def _values(attribute) -> set[str]:
    kind = attribute.WhichOneof("value")
    if kind == "type":
        return {types_pb2.DataType.Name(attribute.type)[3:].lower()}
    if kind == "s":
        return {attribute.s.decode()}
    if kind == "list":
        names = {types_pb2.DataType.Name(each)[3:].lower() for each in attribute.list.type}
        return names | {each.decode() for each in attribute.list.s}
    return set()
