"""Rebuilds a model layer by layer: without models inside, with its dense layers as convolutions, or without batch norm.

N pictures, H W pixels, C channels, h w places of a map, K classes.
"""

from collections.abc import Callable

import keras
import numpy as np

from tfcnn.backbones.factory import zero_rgb
from tfcnn.backbones.layers import preprocess
from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError

ELEMENTWISE = (
    keras.layers.Dropout,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.Identity,
)


def flat(model: keras.Model, preprocessing: Preprocessing | None = None) -> keras.Model:
    """Rebuilds a model without models inside, so that every layer can be reached from the picture.

    Args:
        model: functional or sequential, as are the models inside it.
        preprocessing: is put before its first layer, where given.

    Returns:
        A functional model with the same layers and weights. A layer whose name stands in several of the
        models is called after its model, too: "base_conv1".

    Raises:
        InputError: a model inside is of a class of its own, whose layers cannot be seen; its name is said.
    """
    inputs = _inputs_like(model)
    x = inputs
    if preprocessing:
        x = preprocess(preprocessing)(keras.tree.flatten(inputs)[0])
    return _rebuilt(model, inputs, x, _copy)


def folded(model: keras.Model) -> keras.Model:
    """Works each batch norm that follows a convolution into that convolution's weights: the same answers, sooner.

    Args:
        model: functional. A batch norm whose convolution is used elsewhere, too, or has an activation, stays.

    Returns:
        A model for inference alone: its batch norm would no longer learn.
    """
    norms = _norm_of_each(model)
    gone = {id(norm) for norm in norms.values()}

    def new_layer(layer, name):
        if id(layer) in gone:
            return keras.layers.Identity(name=name, dtype=layer.dtype_policy)
        if id(layer) in norms:
            return type(layer).from_config({**layer.get_config(), "name": name, "use_bias": True})
        return _copy(layer, name)

    def values_of(layer):
        if id(layer) in gone:
            return []
        if id(layer) in norms:
            return list(map(np.array, _with_norm(layer, norms[id(layer)])))
        return layer.get_weights()

    inputs = _inputs_like(model)
    return _rebuilt(model, inputs, inputs, new_layer, values_of)


def folded_in_training(model: keras.Model) -> keras.Model:
    """Works frozen batch norm into the convolutions at every call: the same answers and gradients, sooner.

    Args:
        model: functional. Batch norm that is live, or that `folded` would leave, stays.

    Returns:
        A model that shares every layer and weight with the first; whoever trains one trains both. A batch norm
        that is frozen now must stay so.
    """
    norms = {key: norm for key, norm in _norm_of_each(model).items() if not norm.trainable}
    gone = {id(norm) for norm in norms.values()}

    def of(layer):
        if id(layer) in gone:
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        return _FoldedConvolution(layer, norms[id(layer)]) if id(layer) in norms else layer

    def call(layer, *arguments, **options):
        return (
            layer(arguments[0]) if isinstance(layer, keras.layers.Identity) else layer(*arguments, **options)
        )

    inputs = _inputs_like(model)
    return keras.Model(inputs, model._run_through_graph(inputs, of, call), name=model.name)


class _FoldedConvolution(keras.layers.Layer):
    """A convolution and its frozen batch norm as one, with the weights of both."""

    def __init__(self, convolution, norm):
        super().__init__(name=convolution.name, dtype=convolution.dtype_policy)
        self.convolution, self.norm = convolution, norm

    def call(self, x):
        layer = self.convolution
        kernel, bias = (keras.ops.cast(value, x.dtype) for value in _with_norm(layer, self.norm))
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            x = keras.ops.depthwise_conv(
                x, kernel, layer.strides, layer.padding, dilation_rate=layer.dilation_rate
            )
        else:
            x = layer.convolution_op(x, kernel)
        return x + bias

    def compute_output_shape(self, input_shape):
        return self.convolution.compute_output_shape(input_shape)


def fully_convolutional(classifier: keras.Model) -> keras.Model:
    """Turns a classifier's dense layers into convolutions with exactly its weights.

    The dense layers become windows that slide over the last map, and averages over the picture become
    averages over windows of the size of the classifier's own map. Each place of the outputs is what the
    classifier says of one window of the map; on a net without padding, also of one crop of the picture.

    Args:
        classifier: pictures [N, size, size, 3] -> logits and scores [N, K], built at a size of its own.

    Returns:
        A model from pictures [N, H, W, 3], of the classifier's size or larger, to the same outputs as maps
        [N, h, w, K]; 1 x 1 at the classifier's own size.

    Raises:
        InputError: the classifier has no size of its own, or a layer that has no convolutional form.

    Source: Sermanet et al. (1312.6229) section 3.5; Simonyan and Zisserman (1409.1556) section 3.2.
    """
    image = keras.Input((None, None, classifier.input_shape[-1]), name="image")
    return _rebuilt(classifier, image, image, _as_convolution)


def _inputs_like(model):
    return keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )


def _norm_of_each(model) -> dict:
    """The batch norm that alone takes a convolution's answer: {id of the convolution: batch norm}."""
    operations = {id(operation) for operation in model.operations}
    outputs = {id(tensor._keras_history.operation) for tensor in model.outputs}
    norms = {}
    for layer in model.layers:
        if not isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)) or id(layer) in outputs:
            continue
        takers = [node.operation for node in layer._outbound_nodes if id(node.operation) in operations]
        if (
            len(takers) == 1
            and isinstance(takers[0], keras.layers.BatchNormalization)
            and len(takers[0]._inbound_nodes) == 1
            and layer.activation is keras.activations.linear
        ):
            norms[id(layer)] = takers[0]
    return norms


def _with_norm(convolution, norm) -> list:
    """Kernel and bias of a convolution followed by its batch norm at inference."""
    scale = keras.ops.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.scale:
        scale *= norm.gamma
    bias = (convolution.bias if convolution.use_bias else 0.0) - norm.moving_mean
    bias *= scale
    if norm.center:
        bias += norm.beta
    kernel = convolution.kernel
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        return [kernel * keras.ops.reshape(scale, kernel.shape[2:]), bias]
    return [kernel * scale, bias]


def _rebuilt(
    model, inputs, x, new_layer: Callable, values_of: Callable = keras.layers.Layer.get_weights
) -> keras.Model:
    """Calls `new_layer` for every layer of the model, the new ones as the old were called, and sets their weights."""
    copies: dict[int, tuple] = {}  # id of an old layer -> old, new, so that a layer used twice stays one
    names: set[str] = set()

    def of(layer, prefix):
        if isinstance(layer, keras.Model):
            return layer
        if id(layer) not in copies:
            name = layer.name
            while name in names:
                name = f"{prefix}_{name}"
            names.add(name)
            copies[id(layer)] = layer, new_layer(layer, name)
        return copies[id(layer)][1]

    def through(inner, tensors):
        if isinstance(inner, keras.Sequential):
            for layer in inner.layers:
                tensors = call(of(layer, inner.name), tensors)
            return tensors
        if not hasattr(inner, "_run_through_graph"):
            raise InputError(
                f"The model {inner.name} inside {model.name} is of the class {type(inner).__name__}, "
                "whose layers cannot be reached: rebuild it as a functional model"
            )
        return inner._run_through_graph(tensors, lambda layer: of(layer, inner.name), call)

    def call(layer, *arguments, **options):
        if isinstance(layer, keras.Model):
            return through(layer, arguments[0])
        if isinstance(layer, keras.layers.Identity):  # stands for layers that know masks and training
            return layer(arguments[0])
        return layer(*arguments, **options)

    rebuilt = keras.Model(inputs, through(model, x), name=model.name)
    for old, new in copies.values():
        if getattr(old, "weights", None):
            pairs = zip(values_of(old), new.weights, strict=True)
            new.set_weights([value.reshape(variable.shape) for value, variable in pairs])
    rebuilt.zero_rgb = zero_rgb(rebuilt)
    return rebuilt


def _copy(layer, name):
    if isinstance(layer, keras.layers.Layer):
        return type(layer).from_config({**layer.get_config(), "name": name})
    operation = type(layer).from_config(layer.get_config())  # of keras.ops; knows no names in Keras 3.9
    operation.name = name
    return operation


def _as_convolution(layer, name):
    if isinstance(layer, keras.layers.Flatten):
        _map_size(layer)
        return keras.layers.Identity(name=name)
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return keras.layers.AveragePooling2D(_map_size(layer), 1, name=name, dtype=layer.dtype_policy)
    if isinstance(layer, keras.layers.GlobalMaxPooling2D):
        return keras.layers.MaxPooling2D(_map_size(layer), 1, name=name, dtype=layer.dtype_policy)
    if isinstance(layer, keras.layers.Dense):
        return keras.layers.Conv2D(
            layer.units,
            _window(layer),
            activation=layer.activation,
            use_bias=layer.use_bias,
            kernel_initializer="zeros",
            name=name,
            dtype=layer.dtype_policy,
        )
    if isinstance(layer, keras.layers.Reshape):
        raise InputError(f"The layer {name} reshapes, and has no convolutional form")
    return _copy(layer, name)


def _window(dense) -> tuple[int, int]:
    """Finds how many places of a map a dense layer sees: those of a Flatten below it, else one."""
    layer = dense.input._keras_history.operation
    while isinstance(layer, ELEMENTWISE):
        layer = layer.input._keras_history.operation
    return _map_size(layer) if isinstance(layer, keras.layers.Flatten) else (1, 1)


def _map_size(layer) -> tuple[int, int]:
    height, width = layer.input.shape[1:3]
    if height is None or width is None:
        raise InputError(
            f"The layer {layer.name} sees a map of no fixed size: build the classifier at a size of its own"
        )
    return height, width
