"""What OpenCV's dnn module, an independent reader of Caffe's files, answers for a picture."""

import os
from collections.abc import Sequence

import cv2
import numpy as np

from tfcnn.errors import InputError


def answers(
    prototxt: str | os.PathLike, caffemodel: str | os.PathLike, pictures: np.ndarray, layers: Sequence[str]
) -> list[np.ndarray]:
    """Runs a net of Caffe in OpenCV.

    Args:
        prototxt, caffemodel: the files.
        pictures: float32 [N, H, W, C] as the net's first layer reads them.
        layers: names in the prototxt.

    Returns:
        The output of each layer, maps as [N, h, w, C], vectors as [N, K].

    Raises:
        InputError: OpenCV cannot read or run the net.
    """
    try:
        net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
        net.setInput(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        found = net.forward(list(layers))
    except cv2.error as error:
        reason = " ".join(str(error).split())
        raise InputError(f"OpenCV's dnn module cannot run {prototxt}: {reason}") from error
    return [each.transpose(0, 2, 3, 1) if each.ndim == 4 else each for each in found]
