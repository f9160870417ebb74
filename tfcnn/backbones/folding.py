"""Batch norm worked into the convolutions before it: once, for inference, or at every call, for training."""

import collections

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones.convert import copied, rebuilt
from tfcnn.backbones.graph import calls


def folded(model: keras.Model) -> keras.Model:
    """Works each batch norm that follows a convolution into that convolution's weights: the same answers, sooner.

    Args:
        model: functional. A batch norm whose convolution is used elsewhere, too, or has an activation, stays.

    Returns:
        A model for inference alone: its batch norm would no longer learn.
    """
    norms = _norm_of_each(model)
    gone = {id(norm) for norm in norms.values()}

    def replace(layer):
        if id(layer) in gone:
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        return copied(layer, use_bias=True) if id(layer) in norms else copied(layer)

    def values(layer):
        return (
            map(np.array, _with_norm(layer, norms[id(layer)])) if id(layer) in norms else layer.get_weights()
        )

    return rebuilt(model, replace, values=values)


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

    def replace(layer):
        if id(layer) in gone:
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        return _FoldedConvolution(layer, norms[id(layer)]) if id(layer) in norms else layer

    return rebuilt(model, replace, values=None)


class _FoldedConvolution(keras.layers.Layer):
    """A convolution and its frozen batch norm as one, with the weights of both."""

    def __init__(self, convolution, norm):
        super().__init__(name=convolution.name, dtype=convolution.dtype_policy)
        self.convolution, self.norm = convolution, norm

    def call(self, x: tf.Tensor) -> tf.Tensor:
        layer = self.convolution
        kernel, bias = (keras.ops.cast(value, x.dtype) for value in _with_norm(layer, self.norm))
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            x = keras.ops.depthwise_conv(
                x, kernel, layer.strides, layer.padding, dilation_rate=layer.dilation_rate
            )
        else:
            x = layer.convolution_op(x, kernel)
        return x + bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return self.convolution.compute_output_shape(input_shape)


def _norm_of_each(model) -> dict[int, keras.layers.BatchNormalization]:
    """The batch norm that alone takes a convolution's answer: {id of the convolution: batch norm}."""
    made = calls(model)
    times = collections.Counter(id(call.operation) for call in made)
    takers = collections.defaultdict(list)
    for call in made:
        for tensor in call.inputs:
            takers[id(tensor)].append(call.operation)
    for tensor in model.outputs:
        takers[id(tensor)].append(None)
    norms = {}
    for call in made:
        layer, after = call.operation, takers[id(call.outputs[0])]
        if (
            isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
            and layer.activation is keras.activations.linear
            and len(after) == 1
            and isinstance(after[0], keras.layers.BatchNormalization)
            and times[id(layer)] == times[id(after[0])] == 1
        ):
            norms[id(layer)] = after[0]
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
