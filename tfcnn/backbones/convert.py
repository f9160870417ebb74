"""A net rebuilt with other layers: flat, any size, dense to convolution, activations apart, average pooling.

All are `rebuilt`, with other layers to put in; batch norm in `folding` is, too.

N pictures, H W pixels, C channels, h w the size of a map, K classes.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from tfcnn.backbones.graph import calls, zero_rgb
from tfcnn.backbones.layers import preprocessed
from tfcnn.backbones.rows import Preprocessing
from tfcnn.errors import InputError

# Layers whose `activation` comes last. (That of a recurrent layer, for one, lies inside.)
ACTIVATED = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Dense,
    keras.layers.EinsumDense,
)
ELEMENTWISE = (
    keras.layers.Dropout,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.Identity,
)


def rebuilt(
    model: keras.Model,
    replace: Callable[[keras.Operation], keras.Operation],
    *,
    call: Callable | None = None,
    inputs: keras.KerasTensor | None = None,
    values: Callable[[keras.layers.Layer], Iterable[np.ndarray]] | None = keras.layers.Layer.get_weights,
) -> keras.Model:
    """Rebuilds a model with other layers.

    Args:
        model: functional or sequential.
        replace: takes each layer (or operation of keras.ops) once and gives the one in its place: itself, which both
            models then share, `copied(layer)`, or another. `keras.layers.Identity` leaves a layer out.
        call: calls a new layer, `call(layer, *arguments, **options)`; by default as the old one was called.
        inputs: what the new model starts from; by default inputs like the old ones.
        values: gives the weights of a new layer from the old one, by default the old weights; None where the new
            layers bring theirs.

    Returns:
        A functional model of the same name; its `zero_rgb` is that of its first layers.
    """
    pairs: list[tuple[keras.Operation, keras.Operation]] = []

    def clone(layer):
        new = replace(layer)
        pairs.append((layer, new))
        return new

    def plain_call(layer, *arguments, **options):
        if isinstance(layer, keras.layers.Identity):  # stands for layers that take a mask, or training
            return layer(arguments[0])
        return layer(*arguments, **options)

    new_model = keras.models.clone_model(
        _functional(model), input_tensors=inputs, clone_function=clone, call_function=call or plain_call
    )
    for old, new in pairs if values else ():
        if new is not old and getattr(new, "weights", None):
            held = zip(values(old), new.weights, strict=True)
            new.set_weights([np.reshape(value, variable.shape) for value, variable in held])
    new_model.zero_rgb = zero_rgb(new_model)
    return new_model


def copied(layer: keras.Operation, **changes: object) -> keras.Operation:
    """Gives a layer of the same kind, with weights of its own; `changes` are of its config, such as `name`."""
    if isinstance(layer, keras.layers.Layer):
        return type(layer).from_config({**layer.get_config(), **changes})
    operation = type(layer).from_config(layer.get_config())  # of keras.ops; knows no names in Keras 3.9
    operation.name = changes.get("name", layer.name)
    return operation


def flat(model: keras.Model, preprocessing: Preprocessing | None = None) -> keras.Model:
    """Rebuilds a model without models inside, so that every layer can be reached from the picture.

    Args:
        model: functional or sequential, as are the models inside it.
        preprocessing: is put before its first layer, where given; the model then takes pictures of three channels.

    Returns:
        A functional model with copies of the layers. A layer whose name occurs in several of the models is called
        after its model, too: "base_conv1".

    Raises:
        InputError: a model inside is of a class of its own, whose layers cannot be seen; its name is said. Or
            preprocessing gives another number of channels than the model reads, or that reads no single picture.
    """
    copies: dict[int, keras.Operation] = {}
    names: set[str] = set()

    def without_models(inner):
        def replace(layer):
            if id(layer) not in copies:
                copies[id(layer)] = copy(layer)
            return copies[id(layer)]

        def copy(layer):
            if isinstance(layer, keras.Model):
                if is_transparent(layer):
                    return without_models(layer)
                raise InputError(
                    f"The model {layer.name} inside {model.name} is of the class {type(layer).__name__}, "
                    "whose layers cannot be reached: rebuild it as a functional model"
                )
            name = layer.name
            while name in names:
                name = f"{inner.name}_{name}"
            names.add(name)
            return copied(layer, name=name)

        return rebuilt(inner, replace, call=inlined)

    def inlined(layer, *arguments, **options):
        if isinstance(layer, keras.Model):
            return layer.call(
                arguments[0]
            )  # its layers on these tensors, where layer(...) would be one layer
        return layer(*arguments, **options)

    if preprocessing:
        own = _functional(model).input
        if len(inputs := keras.tree.flatten(own)) != 1:
            raise InputError(f"the net reads {len(inputs)} inputs, and preprocessing is of one picture")
        picture, first = preprocessed(preprocessing, inputs[0])
        picture = keras.tree.pack_sequence_as(own, [picture])
        return without_models(keras.Model(picture, _functional(model).call(first), name=model.name))
    return without_models(model)


def is_transparent(model: keras.Model) -> bool:
    """Whether a model's layers can be reached: it is functional, or sequential and built."""
    return hasattr(model, "operations") or (isinstance(model, keras.Sequential) and model.built)


def any_size(model: keras.Model) -> keras.Model | None:
    """Opens a net to pictures of any height and width; what it gives is as of `of_size`."""
    return of_size(model, None, None)


def of_size(model: keras.Model, height: int | None, width: int | None) -> keras.Model | None:
    """Puts a net on pictures of another size.

    Args:
        model: a model of one picture [N, H, W, C]; one of this size is given back itself.
        height, width: pixels; None: any.

    Returns:
        A model that shares all layers, or None where a layer reads one size only.
    """
    if model.input_shape[1:3] == (height, width):
        return model
    picture = keras.Input((height, width, model.input_shape[-1]), name="image")
    try:
        opened = rebuilt(model, lambda layer: layer, inputs=picture)
    except ValueError:
        return None
    for call in calls(opened):  # a dense layer on a flattened map wants one length
        axes = getattr(getattr(call.operation, "input_spec", None), "axes", None) or {}
        if any(call.inputs[0].shape[axis] is None for axis in axes):
            return None
    return opened


def float_input(model: keras.Model) -> keras.Model:
    """Gives a net whose picture is float32, so that a gradient reaches it; one that is so already is given back itself.

    Args:
        model: functional, of pictures of any dtype; its layers are shared.
    """
    if all(tensor.dtype.startswith(("float", "bfloat")) for tensor in model.inputs):
        return model
    inputs = keras.tree.map_structure(lambda tensor: _input_like(tensor, "float32"), model.input)
    return rebuilt(model, lambda layer: layer, inputs=inputs)


def separate_activations(model: keras.Model) -> keras.Model:
    """Makes every activation a layer of its own, so that rules for ReLU can replace it, and its input can be tapped.

    Conv2D(activation="relu") becomes a convolution NAME_linear and a ReLU layer NAME; Activation("relu") and
    keras.ops.relu become ReLU layers, too. What a name stood for, it stands for still.

    Args:
        model: functional. A net that is so already is given back itself.

    Returns:
        A model with the same answers; layers that had an activation are copies, the others are shared.
    """
    relus = {"relu": None, "relu6": 6.0}  # largest value

    def own(operation):
        if not isinstance(operation, keras.layers.Layer):
            kind, dtype = (
                type(operation).__name__.lower(),
                None,
            )  # keras.ops.relu is Relu, keras.activations.relu ReLU
        elif isinstance(operation, (*ACTIVATED, keras.layers.Activation)):
            kind, dtype = getattr(operation.activation, "__name__", ""), operation.dtype_policy
            if isinstance(operation.activation, keras.layers.ReLU):  # a layer as the activation of a layer
                return copied(operation.activation, name=operation.name, dtype=dtype)
        else:
            return None
        if kind in relus:
            known = {"max_value": relus[kind], **operation.get_config()}
            limits = {key: known[key] for key in ("max_value", "negative_slope", "threshold") if key in known}
            return keras.layers.ReLU(**limits, name=operation.name, dtype=dtype)
        if isinstance(operation, ACTIVATED) and operation.activation is not keras.activations.linear:
            return keras.layers.Activation(operation.activation, name=operation.name, dtype=dtype)
        return None

    model = _functional(model)
    activations = {id(operation): own(operation) for operation in model.operations}
    if not any(activations.values()):
        return model
    after: dict[int, keras.layers.Layer] = {}

    def replace(operation):
        activation = activations[id(operation)]
        if activation is None or not isinstance(operation, ACTIVATED):
            return activation or operation
        linear = copied(operation, name=f"{operation.name}_linear", activation="linear")
        after[id(linear)] = activation
        return linear

    def call(layer, *arguments, **options):
        x = layer(*arguments, **options)
        return after[id(layer)](x) if id(layer) in after else x

    return rebuilt(model, replace, call=call)


def average_pooling(net: keras.Model) -> keras.Model:
    """Puts the mean of each window in place of its maximum: Gatys' smoother choice.

    Args:
        net: functional; its other layers are shared.

    Raises:
        InputError: it has no max pooling.
    """
    if not any(isinstance(layer, keras.layers.MaxPooling2D) for layer in net.layers):
        raise InputError(f"{net.name} has no max pooling that average pooling could replace")

    def replace(layer):
        if not isinstance(layer, keras.layers.MaxPooling2D):
            return layer
        config = {
            key: layer.get_config()[key] for key in ("name", "pool_size", "strides", "padding", "dtype")
        }
        return keras.layers.AveragePooling2D.from_config(config)

    return rebuilt(net, replace)


def fully_convolutional(classifier: keras.Model) -> keras.Model:
    """Turns a classifier's dense layers into convolutions with exactly its weights.

    The dense layers become windows that slide over the last map, and averages over the picture become
    averages over windows of the size of the classifier's own map. Each location of the outputs is what the
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
    before = {id(call.operation): call for call in calls(classifier)}
    made = {id(call.outputs[0]): call for call in before.values()}

    def map_size(layer):
        height, width = before[id(layer)].inputs[0].shape[1:3]
        if height is None or width is None:
            raise InputError(
                f"The layer {layer.name} sees a map of no fixed size: build the classifier at a size of its own"
            )
        return height, width

    def window(dense):
        """The part of a map that a dense layer sees: that of a Flatten below it, else one location."""
        call = made[id(before[id(dense)].inputs[0])]
        while isinstance(call.operation, ELEMENTWISE):
            call = made[id(call.inputs[0])]
        return map_size(call.operation) if isinstance(call.operation, keras.layers.Flatten) else (1, 1)

    def replace(layer):
        same = {"name": layer.name, "dtype": getattr(layer, "dtype_policy", None)}
        if isinstance(layer, keras.layers.Flatten):
            map_size(layer)
            return keras.layers.Identity(name=layer.name)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            return keras.layers.AveragePooling2D(map_size(layer), 1, **same)
        if isinstance(layer, keras.layers.GlobalMaxPooling2D):
            return keras.layers.MaxPooling2D(map_size(layer), 1, **same)
        if isinstance(layer, keras.layers.Dense):
            options = {
                "activation": layer.activation,
                "use_bias": layer.use_bias,
                "kernel_initializer": "zeros",
            }
            return keras.layers.Conv2D(layer.units, window(layer), **options, **same)
        if isinstance(layer, keras.layers.Reshape):
            raise InputError(f"The layer {layer.name} reshapes, and has no convolutional form")
        return copied(layer)

    image = keras.Input((None, None, classifier.input_shape[-1]), name="image")
    inputs = keras.tree.map_structure(lambda tensor: image, _functional(classifier).input)
    return rebuilt(classifier, replace, inputs=inputs)


def _functional(model: keras.Model) -> keras.Model:
    """A sequential model as a functional one."""
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _input_like(tensor: keras.KerasTensor, dtype: str | None = None) -> keras.KerasTensor:
    return keras.Input(batch_shape=tensor.shape, dtype=dtype or tensor.dtype, name=tensor.name)
