"""The nets that Keras has: VGG, ResNet (v1), Inception-v3, MobileNetV2, with Keras' own names of layers.

Source: Simonyan and Zisserman (1409.1556), He et al. (1512.03385), Szegedy et al. (1512.00567), Sandler
et al. (1801.04381); keras-team/keras keras/src/applications.
"""

import collections
import re

import keras

NUMBERED = re.compile(
    r"(conv2d|batch_normalization|activation|concatenate|(?:max|average|global_average)_pooling2d)(?:_(\d+))?"
)


def vgg16(
    x: keras.KerasTensor, classes: int | None = None
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Keras' VGG-16 on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return _build(keras.applications.VGG16, x, classes)


def vgg19(
    x: keras.KerasTensor, classes: int | None = None
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Keras' VGG-19 on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return _build(keras.applications.VGG19, x, classes)


def resnet50(
    x: keras.KerasTensor, classes: int | None = None
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Keras' ResNet-50 (v1) on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return _build(keras.applications.ResNet50, x, classes)


def resnet101(
    x: keras.KerasTensor, classes: int | None = None
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Keras' ResNet-101 (v1) on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return _build(keras.applications.ResNet101, x, classes)


def resnet152(
    x: keras.KerasTensor, classes: int | None = None
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Keras' ResNet-152 (v1) on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return _build(keras.applications.ResNet152, x, classes)


def inception_v3(
    x: keras.KerasTensor, classes: int | None = None
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Keras' Inception-v3 on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return _build(keras.applications.InceptionV3, x, classes)


def mobilenet_v2(
    x: keras.KerasTensor, classes: int | None = None
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Keras' MobileNetV2 on a preprocessed picture [N, H, W, 3]; without classes its last map."""
    return _build(keras.applications.MobileNetV2, x, classes)


def _build(application, x, classes):
    """Lets Keras put its layers on a preprocessed picture [N, H, W, 3], so that all lies flat."""
    options = {"classes": classes, "classifier_activation": None} if classes else {}
    model = application(weights=None, include_top=bool(classes), input_tensor=x, **options)
    _name_by_number(model.layers)
    if not classes:
        return model.output
    logits = model.output
    if logits.dtype != "float32":  # mixed precision ends in full numbers
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(logits)
    return {"logits": logits}


def _name_by_number(layers):
    """Counts layers that Keras named by their class (conv2d_7) anew: from this net's first on."""
    numbered = collections.defaultdict(list)
    for layer in layers:
        match = NUMBERED.fullmatch(layer.name)
        if match:
            numbered[match[1]].append((int(match[2] or 0), layer))
    for kind, found in numbered.items():
        for number, (_, layer) in enumerate(sorted(found, key=lambda pair: pair[0])):
            layer.name = f"{kind}_{number}" if number else kind
