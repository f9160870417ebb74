"""Three rules for a signal that goes back through a ReLU: the gradient's, the deconvnet's, guided backpropagation's.

With f what the ReLU gave on the way up and R the signal that comes down:
gradient R [f > 0], deconvnet R [R > 0], guided R [f > 0] [R > 0].

N pictures of H x W, C channels, h w the size of a map. A ReLU6 lets pass what lies between 0 and 6: that takes the
place of f > 0.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import flat, rebuilt, separate_activations
from tfcnn.backbones.graph import Call, calls
from tfcnn.backbones.layers import Preprocess
from tfcnn.errors import InputError
from tfcnn.visualization import RULES

# Rectifiers of another form, for which neither paper has a rule. Gates (sigmoid, softmax) and tanh keep their gradient.
UNLIKE_RELU = (
    "celu crelu elu exponential gelu hard_shrink hard_silu hard_swish hard_tanh leaky_relu leakyrelu mish prelu selu "
    "silu soft_shrink softplus sparse_plus squareplus swish glu"
).split()


def with_rule(net: keras.Model, rule: str) -> keras.Model:
    """Gives a net whose every ReLU sends signals back by a rule; it answers as before.

    Args:
        net: a functional model; cut it at what is asked (`tap`), so that layers behind that have no say. A ReLU may
            be a layer, an activation, an argument of a convolution or dense layer, or an operation; with a ceiling
            (ReLU6) or without.
        rule: one of RULES.

    Returns:
        The net itself for "gradient"; else a clone that shares the layers without a ReLU, and their weights.

    Raises:
        InputError: an unknown rule; the net has no ReLU, or rectifiers of another form (they are named), or a model
            inside whose layers cannot be reached.

    Source: Simonyan et al. 2013, section 4; Zeiler and Fergus 2014, section 2.1; Springenberg et al. 2015, section 3.4
    and figure 1.
    """
    if rule not in RULES:
        raise InputError(f"The rule {rule!r} is none of {', '.join(RULES)}")
    if rule == "gradient":
        return net
    if any(isinstance(layer, keras.Model) for layer in net.layers):
        net = flat(net)
    net = separate_activations(net)
    unlike = {f"{kind} in {name}" for name, kind in _other_rectifiers(net)}
    if unlike:
        shown = ", ".join(sorted(unlike)[:3]) + (f" and {len(unlike) - 3} more" if len(unlike) > 3 else "")
        raise InputError(
            f"{net.name} has {shown}: {rule} is defined for ReLU alone; take the rule gradient for this net"
        )
    if not has_relu(net):
        raise InputError(f"{net.name} has no ReLU up to here, and without one the rule {rule} means nothing")

    def replace(layer):
        return RuledReLU.of(layer, rule) if _is_relu(layer) else layer

    return rebuilt(net, replace)


def has_relu(net: keras.Model) -> bool:
    """Whether a net has a ReLU, in whatever form."""
    return any(_is_relu(layer) for layer in separate_activations(net).layers)


def replaced(net: keras.Model) -> list[str]:
    """Lists the ReLUs that follow a rule, by name, each as often as it is called."""
    return [call.operation.name for call in calls(net) if isinstance(call.operation, RuledReLU)]


class RuledReLU(keras.layers.ReLU):
    """A ReLU whose signal back follows a rule; made by `with_rule`, and never saved."""

    rule = "guided"

    @classmethod
    def of(cls, layer: keras.layers.ReLU, rule: str) -> "RuledReLU":
        """Gives the layer that takes the place of a ReLU."""
        new = cls.from_config(layer.get_config())
        new.rule = rule
        return new

    def call(self, x: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def rectified(x):
            def back(signal):  # R
                signal = tf.nn.relu(signal)  # [R > 0]
                if self.rule == "deconvnet":
                    return signal
                passes = x > self.threshold  # [f > 0]
                if self.max_value is not None:
                    passes &= x < self.max_value
                return tf.where(passes, signal, tf.zeros_like(signal))

            return super(RuledReLU, self).call(x), back

        return rectified(x)


def _is_relu(layer) -> bool:
    return isinstance(layer, keras.layers.ReLU) and not layer.negative_slope


def _other_rectifiers(net: keras.Model) -> list[tuple[str, str]]:
    """(name of the layer or operation, its rectifier) of those for which there is no rule."""
    found = []
    for call in calls(net):
        operation = call.operation
        kinds = [type(operation).__name__.lower()]
        activation = getattr(operation, "activation", None)
        kinds.append(getattr(activation, "__name__", type(activation).__name__).lower())
        if isinstance(operation, keras.layers.ReLU) and operation.negative_slope:
            kinds.append("leaky_relu")
        other = next((kind for kind in kinds if kind.replace("_", "") in _UNLIKE), None)
        if other:
            found.append((operation.name, other))
    return found


_UNLIKE = {kind.replace("_", "") for kind in UNLIKE_RELU}


def deconvnet(
    net: keras.Model, images: np.ndarray, channels: Sequence[int], places: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Projects one activation of the last layer back to the pictures, step by step as the deconvnet does.

    The other activations of the layer are set to zero; then layer by layer downwards: unpool with the switches of
    that very picture, rectify, filter with the transposed kernels. The rule "deconvnet" of `with_rule` does the same
    by the chain rule: there the switches are the gradient of max pooling.

    Args:
        net: a chain of Conv2D, ReLU (also as activations), MaxPooling2D and Preprocess layers, cut at the layer that
            is asked: [N, H, W, 3] -> [N, h, w, C].
        images: float32 [N, H, W, 3], 0..255.
        channels: N channels of the last layer.
        places: int [N, 2], (row, column) in its map.

    Returns:
        The projections of activations set to 1, float32 [N, H, W, 3], and the switches of each pooling layer in order:
        int64 [N, h, w, C], the flat index of each maximum in its picture's map.

    Raises:
        InputError: the net is no such chain.

    Source: Zeiler and Fergus 2014, section 2.1.
    """
    chain = _chain(net)
    signal_in, switches = [], {}
    x = tf.convert_to_tensor(images, tf.float32)
    for layer in chain:  # the convnet, upwards
        signal_in.append(tf.shape(x))
        if isinstance(layer, keras.layers.MaxPooling2D):
            size, strides, padding = layer.pool_size, layer.strides, layer.padding.upper()
            _, switches[layer] = tf.nn.max_pool_with_argmax(x, size, strides, padding)
        x = layer(x)
    rows, columns = np.asarray(places, np.int64).reshape(-1, 2).T
    where = np.stack([np.arange(len(channels)), rows, columns, np.asarray(channels, np.int64)], axis=1)
    signal = tf.scatter_nd(where, tf.ones(len(where)), tf.shape(x, tf.int64))
    for layer, shape in zip(reversed(chain), reversed(signal_in), strict=True):  # the deconvnet, downwards
        if isinstance(layer, keras.layers.MaxPooling2D):
            signal = unpool(signal, switches[layer], shape)
        elif isinstance(layer, keras.layers.ReLU):
            signal = tf.nn.relu(signal)
        elif isinstance(layer, keras.layers.Conv2D):
            signal = tf.nn.conv2d_transpose(
                signal,
                layer.kernel,
                shape,
                layer.strides,
                layer.padding.upper(),
                dilations=layer.dilation_rate,
            )
        else:
            signal = signal[..., ::-1] if layer.order == "bgr" else signal
            signal = signal / np.asarray(layer.scale, np.float32)
    return signal.numpy(), [switches[layer].numpy() for layer in chain if layer in switches]


def unpool(signal: tf.Tensor, switches: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Puts each value back where the maximum came from, and zeros elsewhere.

    Args:
        signal: [N, h, w, C].
        switches: int64 [N, h, w, C], flat index of each maximum in its picture's [H, W, C].
        shape: [4], of the map that was pooled: N, H, W, C.

    Returns:
        [N, H, W, C]; where windows overlap, values that have the same switch are added.
    """
    count = tf.cast(tf.shape(signal)[0], tf.int64)
    length = tf.cast(tf.reduce_prod(shape[1:]), tf.int64)
    flat_places = switches + tf.reshape(tf.range(count), [-1, 1, 1, 1]) * length
    flat_map = tf.scatter_nd(
        tf.reshape(flat_places, [-1, 1]), tf.reshape(signal, [-1]), tf.reshape(count * length, [1])
    )
    return tf.reshape(flat_map, shape)


def _chain(net: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a net in which each takes what the one before gave."""
    net = separate_activations(net)
    known = (keras.layers.Conv2D, keras.layers.MaxPooling2D, Preprocess)
    made: list[Call] = [call for call in calls(net) if call.inputs]
    before = net.inputs[0]
    for call in made:
        layer = call.operation
        fits = _is_relu(layer) or (type(layer) in known and getattr(layer, "groups", 1) == 1)
        if not fits or len(call.inputs) != 1 or call.inputs[0] is not before:
            raise InputError(
                f"The layer {layer.name} of {net.name} has no place in a chain of convolutions, ReLU and max pooling: "
                "take the rule deconvnet, which goes by the chain rule"
            )
        before = call.outputs[0]
    return [call.operation for call in made]


def picture(signal: np.ndarray, percentile: float = 99.5) -> np.ndarray:
    """Gives a signal at the picture as a picture: grey is nothing, and colours say which way a pixel counts.

    Args:
        signal: [H, W, 3], of any sign.
        percentile: of the absolute values: it and all beyond are full colours.

    Returns:
        float32 [H, W, 3], 0..255; values that are not finite stay so.
    """
    most = np.percentile(np.abs(signal), percentile) or np.abs(signal).max() or 1.0
    return (127.5 + 127.5 * np.clip(np.asarray(signal, np.float32) / most, -1, 1)).astype(np.float32)


def field(signals: Sequence[np.ndarray], smallest: int = 16) -> tuple[int, int, int, int]:
    """Gives the part of a picture outside of which nothing comes back: what a neuron can depend on.

    Args:
        signals: [H, W, 3] each, of one neuron by several rules.
        smallest: pixels that a side has at least, where the picture has so many.

    Returns:
        (x1, y1, x2, y2); the whole picture where nothing comes back at all.
    """
    there = np.any([signal.any(axis=-1) for signal in signals], axis=0)
    if not there.any():
        return 0, 0, there.shape[1], there.shape[0]
    top, bottom = _stretch(there.any(axis=1), smallest)
    left, right = _stretch(there.any(axis=0), smallest)
    return left, top, right, bottom


def _stretch(there: np.ndarray, smallest: int) -> tuple[int, int]:
    """First and last + 1 of what is true along an axis, widened to `smallest` round its middle."""
    places = np.flatnonzero(there)
    first, last = int(places[0]), int(places[-1]) + 1
    length = min(max(last - first, smallest), len(there))
    first = min(max(0, first - (length - (last - first)) // 2), len(there) - length)
    return first, first + length
