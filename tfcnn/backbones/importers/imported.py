"""What a reader of foreign models gives."""

import dataclasses

import keras

from tfcnn.backbones.layers import preprocessed
from tfcnn.backbones.rows import Preprocessing


@dataclasses.dataclass
class Imported:
    """A model that was read from another program's files.

    Attributes:
        model: functional and flat.
        layers: {"from": name in the file, "to": layer of the model, "shape": of the weights in the file} of each layer.
        left_over: names of weights in the file that the model has no place for.
        outputs: of Caffe, {output of the model: layer of the prototxt}.
    """

    model: keras.Model
    layers: list[dict]
    left_over: list[str] = dataclasses.field(default_factory=list)
    outputs: dict[str, str] = dataclasses.field(default_factory=dict)


def first_layer(
    preprocessing: Preprocessing | None, height: int | None, width: int | None, depth: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Makes a model's input, and what its first layer reads.

    Args:
        preprocessing: of RGB pictures; None gives the first layer the input itself.
        height, width: pixels, or None.
        depth: channels that the first layer reads.

    Returns:
        (input [N, height, width, 3, or depth without preprocessing], tensor [N, height, width, depth]).

    Raises:
        InputError: preprocessing that gives another number of channels.
    """
    image = keras.Input((height, width, depth), name="image")
    return preprocessed(preprocessing, image) if preprocessing else (image, image)
