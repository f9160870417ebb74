"""Deformable part models as a convolutional net, and that net at work as a detector.

The front end gives features at two resolutions (HOG with cells of 8 and of 4 pixels, or two maps of a classification
net). Root and part filters are convolutions. Each part's map goes through distance-transform pooling, which is max
pooling whose window has a price. An object geometry filter, a sparse convolution with stride 2, adds the pooled parts
at their anchors to the root, and a maxout unit takes the best component of each class. Nothing else is in a DPM.

Letters: N images, h w a map's sides, D features of a cell, P parts of all components, C components of a root's shape,
kh kw its sides in cells, K classes, R the radius.

Source: Girshick, Iandola, Darrell, Malik 2015, Deformable Part Models are Convolutional Neural Networks, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfcnn.detection import pyramid as levels_of
from tfcnn.detection.dpm import Component, placed
from tfcnn.detection.dpm_layers import DistanceTransformPooling, Maxout, ObjectGeometry, PartWindows
from tfcnn.detection.hog_svm import moved
from tfcnn.detection.options import PLAIN, DetectorOptions
from tfcnn.detection.pyramid import HogCells, Level
from tfcnn.detection.pyramid_detector import PyramidDetector

FIRST_MAP = (
    4  # outputs of the net before the maps of components: both features, the parts' maps, the classes' scores
)


def hog_front(cell: int = 8, pad: int = 3) -> keras.Model:
    """HOG at two resolutions: pictures [N, H, W, 3] to [features of cells, features of cells half as large].

    Args:
        cell: pixels of a cell of the coarse map, even.
        pad: cells of the coarse map put round the picture, so that objects may stick out of it.
    """
    image = keras.Input([None, None, 3], name="image")
    coarse = HogCells("felzenszwalb", cell, (pad, pad), name="hog_coarse")(image)
    fine = HogCells("felzenszwalb", cell // 2, (2 * pad, 2 * pad), name="hog_fine")(image)
    return keras.Model(image, [coarse, fine], name="front")


def dpm_net(
    components: Sequence[Component],
    classes: int,
    *,
    front: keras.Model | None = None,
    cell: int = 8,
    pad: int = 3,
    radius: int = 4,
    largest: float = 1.5,
    per_octave: int = 4,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.3,
    max_detections: int = 100,
) -> keras.Model:
    """The net of one pyramid level.

    Args:
        components: of all classes, with part filters of one size.
        classes: K.
        front: from image to [coarse [N, h, w, D], fine [N, 2 h, 2 w, D']]; None: `hog_front`.
        cell: pixels of a coarse cell.
        pad: cells of the coarse map that lie beside the picture, on each side; of the fine one twice as many.
        radius: R.
        largest, per_octave: of `Pyramid`.
        score_threshold: least score, 0..1: the logistic function of twice the model's.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        max_detections: of a picture.

    Returns:
        keras.Model from image [N, H, W, 3], float32, below 0 beside the picture, to a list: both features, the parts'
        responses [N, h', w', P], the scores of classes [N, h, w, K], and for each root's shape those of its components
        [N, h - kh + 1, w - kw + 1, C].
    """
    front = hog_front(cell, pad) if front is None else front
    coarse, fine = front.outputs
    shapes = list(dict.fromkeys(each.shape for each in components))
    components = [each for shape in shapes for each in components if each.shape == shape]
    of_shape = [[each for each in components if each.shape == shape] for shape in shapes]
    side, counts = components[0].parts.shape[1], [len(each.parts) for each in components]
    part_maps = keras.layers.Conv2D(sum(counts), side, use_bias=False, name="parts")(fine)
    pooled = DistanceTransformPooling(radius, name="distance_transform")(part_maps)
    maps, first = [], 0
    for shape, own in zip(shapes, of_shape, strict=True):
        name = "{}x{}".format(*shape)
        roots = keras.layers.Conv2D(len(own), shape, name=f"roots_{name}")(coarse)
        anchors = [each.anchors.tolist() for each in own]
        maps.append(ObjectGeometry(anchors, first, name=f"geometry_{name}")([roots, pooled]))
        first += sum(len(each) for each in anchors)
    labels = [[each.label for each in own] for own in of_shape]
    scores = Maxout(classes, labels, name="scores")(maps)
    windows = PartWindows(
        classes,
        [list(shape) for shape in shapes],
        labels,
        [[each.anchors.tolist() for each in own] for own in of_shape],
        side=side,
        radius=radius,
        cell=cell,
        pad=pad,
        largest=largest,
        per_octave=per_octave,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
        name="windows",
    )
    model = keras.Model(front.inputs[0], windows([coarse, fine, part_maps, scores, *maps]), name="dpm")
    set_components(model, components)
    return model


def set_components(model: keras.Model, components: Sequence[Component]) -> None:
    """Writes components, in the model's order, into the weights of a net of `dpm_net`."""
    parts = np.concatenate([each.parts for each in components])
    model.get_layer("parts").set_weights([parts.transpose(1, 2, 3, 0)])
    model.get_layer("distance_transform").set_weights(
        [np.concatenate([each.deformation for each in components])]
    )
    for shape in model.layers[-1].shapes:
        own = [each for each in components if each.shape == tuple(shape)]
        roots = np.stack([each.root for each in own], axis=-1)
        biases = np.float32([each.bias for each in own])
        model.get_layer("roots_{}x{}".format(*shape)).set_weights([roots, biases])


def components_of(model: keras.Model) -> list[Component]:
    """The components that a net of `dpm_net` holds, shape after shape."""
    output = model.layers[-1]
    parts = model.get_layer("parts").kernel.numpy().transpose(3, 0, 1, 2)
    deformation = model.get_layer("distance_transform").deformation.numpy()
    found, first = [], 0
    for shape, labels, anchors in zip(output.shapes, output.labels, output.anchors, strict=True):
        roots, biases = model.get_layer("roots_{}x{}".format(*shape)).get_weights()
        for column, (label, own) in enumerate(zip(labels, anchors, strict=True)):
            of_parts = slice(first, first + len(own))
            bias = float(biases[column])
            found.append(
                Component(
                    label, roots[..., column], parts[of_parts], np.array(own), deformation[of_parts], bias
                )
            )
            first += len(own)
    return found


def inputs_of_box(root: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """What predicts a box: the parts' middles seen from the root's, in its sides, and 1: float64 [2 P + 1].

    Args:
        root: [4], its box.
        parts: [P, 4], theirs.
    """
    middle, sides = (root[:2] + root[2:]) / 2, root[2:] - root[:2]
    apart = ((parts[:, :2] + parts[:, 2:]) / 2 - middle) / sides
    return np.append(apart.ravel(), 1.0)


class Dpm(PyramidDetector):
    """A model of `dpm_net` at work; arguments and attributes as of `PyramidDetector`."""

    layer = PartWindows
    what = "deformable part model"
    first_map = FIRST_MAP

    def __init__(self, models: Sequence[keras.Model], options: DetectorOptions = PLAIN):
        super().__init__(models, options)
        self.refresh()

    def refresh(self) -> None:
        """Reads the model's components anew, after its weights were changed."""
        self.components = components_of(self.model)
        counts = [len(own) for own in self.output.labels]
        self.first_component = np.cumsum([0, *counts])
        self.first_part = np.cumsum([0, *(len(each.parts) for each in self.components)])

    def find(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Boxes [n, 4], scores [n], labels [n] and filters' boxes [1 + P, 4], the root's first, of each object found.

        Args:
            picture: uint8 [h, w, 3].
        """
        levels, places, boxes, margins, labels = self.best(picture)
        filters = []
        weights = self.output.box_weights.numpy()
        for index, (root, place) in enumerate(zip(boxes.copy(), places, strict=True)):
            filters.append(np.concatenate([root[None], self.parts_at(levels, place)[0]]))
            inputs = inputs_of_box(root, filters[-1][1:])
            boxes[index] = moved(root, inputs @ weights[self.number(place)])
        return boxes, levels_of.score_of(margins), labels, filters

    def number(self, place: np.ndarray) -> int:
        """The component of a location, as its index in `components`."""
        return int(self.first_component[place[1]] + place[4])

    def parts_at(self, levels: Sequence[Level], place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The parts of an object at a location: boxes float64 [P, 4] in pixels of the picture, and moves int [P, 2]."""
        level, shape, row, column, own = place
        number = self.number(place)
        maps = levels[level].maps[2][..., self.first_part[number] : self.first_part[number + 1]]
        moves = placed(self.components[number], maps, row, column, self.output.radius)
        return self.output.part_windows(shape, own, row, column, moves, levels[level].scale), moves
