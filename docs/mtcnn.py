"""Finds faces by MTCNN's cascade of three small nets, imported from Caffe's files; draws docs/mtcnn.jpg.

    python docs/mtcnn.py FOLDER

FOLDER holds mtcnn_det1.prototxt, mtcnn_det1.caffemodel and so on to 3. The photograph is the astronaut Eileen Collins
(NASA, public domain), from scikit-image.

Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", 2016.
"""

import pathlib
import sys

import numpy as np
import skimage.data
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tfcnn import images  # noqa: E402
from tfcnn.backbones import any_size  # noqa: E402
from tfcnn.backbones.rows import Preprocessing  # noqa: E402
from tfcnn.detections import Detections  # noqa: E402
from tfcnn.importing import import_model  # noqa: E402

INPUT = Preprocessing("bgr", (127.5,) * 3, (128.0,) * 3)
SMALLEST, STEP = 40, 0.709  # a face in pixels; between two sizes of the picture
LEAST = (0.6, 0.7, 0.7)  # score after each net


def load(folder):
    """The three nets; the first reads pictures of any size."""
    files = [f"{folder}/mtcnn_det{number}." for number in (1, 2, 3)]
    nets = [import_model(f + "caffemodel", prototxt=f + "prototxt", preprocessing=INPUT).model for f in files]
    return [any_size(nets[0]), *nets[1:]]


def suppress(found, overlap):
    """The rows (x1, y1, x2, y2, score) that stay, best first."""
    return found[tf.image.non_max_suppression(found[:, :4], found[:, 4], len(found), overlap).numpy()]


def regress(boxes, offsets):
    """Moves each side of a box by a share of its own width or height."""
    return boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def square(boxes):
    """Squares around the same middles, as large as the longer side."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def propose(net, picture):
    """Squares that the first net, slid over the picture at many sizes, takes for faces."""
    found, scale = [np.zeros((0, 5))], 12 / SMALLEST
    while min(picture.shape[:2]) * scale >= 12:
        small, _ = images.resize(picture, [round(side * scale) for side in picture.shape[:2]])
        answer = net(small[None].astype(np.float32))
        scores, offsets = answer["prob"][0, ..., 1].numpy(), answer["bbox_pred"][0].numpy()
        rows, columns = np.nonzero(scores >= LEAST[0])
        corner = 2 * np.stack([columns, rows], axis=1)
        boxes = regress(np.concatenate([corner, corner + 12], axis=1) / scale, offsets[rows, columns])
        found.append(suppress(np.column_stack([boxes, scores[rows, columns]]), 0.5))
        scale *= STEP
    return square(suppress(np.concatenate(found), 0.7)[:, :4])


def refine(net, picture, boxes, least, overlap):
    """Boxes and scores, a row each, of the squares that a net of the cascade still takes for faces."""
    if not len(boxes):
        return np.zeros((0, 5))
    size, shape = net.input_shape[1], np.array(picture.shape[:2] * 2)
    unit = boxes[:, [1, 0, 3, 2]] / (shape - 1)  # (y, x) order, as crop_and_resize reads it
    pixels = picture[None].astype(np.float32)
    crops = tf.image.crop_and_resize(pixels, unit, np.zeros(len(boxes), int), [size, size])
    answer = net(crops)
    scores = answer["prob"][:, 1].numpy()
    kept = np.flatnonzero(scores >= least)
    boxes = regress(boxes[kept], answer["bbox_pred"].numpy()[kept])
    return suppress(np.column_stack([boxes, scores[kept]]), overlap)


def faces(nets, picture):
    """The faces in a picture uint8 [H, W, 3], as Detections."""
    boxes = propose(nets[0], picture)
    boxes = square(refine(nets[1], picture, boxes, LEAST[1], 0.7)[:, :4])
    found = refine(nets[2], picture, boxes, LEAST[2], 0.5)
    return Detections(found[:, :4], found[:, 4], np.zeros(len(found), np.int32), ["face"])


if __name__ == "__main__":
    photograph = skimage.data.astronaut()
    found = faces(load(sys.argv[1]), photograph)
    print(found.boxes.round(1).tolist(), found.scores.round(4).tolist())
    images.write(pathlib.Path(__file__).with_name("mtcnn.jpg"), found.draw(photograph))
