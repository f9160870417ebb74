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
    files = [pathlib.Path(folder) / f"mtcnn_det{number}" for number in (1, 2, 3)]
    nets = [
        import_model(f"{file}.caffemodel", prototxt=f"{file}.prototxt", preprocessing=INPUT).model
        for file in files
    ]
    return [any_size(nets[0]), *nets[1:]]


def suppress(boxes, scores, overlap):
    """Indices of the boxes (x1, y1, x2, y2) that stay."""
    return tf.image.non_max_suppression(boxes, scores, len(scores), overlap).numpy()


def regress(boxes, offsets):
    """Moves each side of a box by a share of its own width or height."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.concatenate([sizes, sizes], axis=1)


def square(boxes):
    """Squares around the same middles, as large as the longer side."""
    middle, half = (
        (boxes[:, :2] + boxes[:, 2:]) / 2,
        (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2,
    )
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
        kept = suppress(boxes, scores[rows, columns], 0.5) if len(boxes) else []
        found.append(np.concatenate([boxes, scores[rows, columns, None]], axis=1)[kept])
        scale *= STEP
    found = np.concatenate(found)
    return square(found[suppress(found[:, :4], found[:, 4], 0.7), :4]) if len(found) else found[:, :4]


def refine(net, picture, boxes, least, overlap):
    """Boxes and scores of the squares that a net of the cascade still takes for faces."""
    size, shape = net.input_shape[1], np.array(picture.shape[:2] * 2)
    unit = boxes[:, [1, 0, 3, 2]] / (shape - 1)  # (y, x) order, as crop_and_resize reads it
    crops = tf.image.crop_and_resize(
        picture[None].astype(np.float32), unit, np.zeros(len(boxes), int), [size, size]
    )
    answer = net(crops)
    scores = answer["prob"][:, 1].numpy()
    kept = np.flatnonzero(scores >= least)
    boxes, scores = regress(boxes[kept], answer["bbox_pred"].numpy()[kept]), scores[kept]
    kept = suppress(boxes, scores, overlap) if len(boxes) else []
    return boxes[kept], scores[kept]


def faces(nets, picture):
    """The faces in a picture uint8 [H, W, 3], as Detections."""
    boxes = propose(nets[0], picture)
    if len(boxes):
        boxes = square(refine(nets[1], picture, boxes, LEAST[1], 0.7)[0])
    if not len(boxes):
        return Detections.empty()
    boxes, scores = refine(nets[2], picture, boxes, LEAST[2], 0.5)
    return Detections(boxes, scores, np.zeros(len(scores), np.int32), ["face"])


if __name__ == "__main__":
    photograph = skimage.data.astronaut()
    found = faces(load(sys.argv[1]), photograph)
    print(found.boxes.round(1).tolist(), found.scores.round(4).tolist())
    images.write(pathlib.Path(__file__).with_name("mtcnn.jpg"), found.draw(photograph))
