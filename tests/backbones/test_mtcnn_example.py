"""The example of docs/mtcnn.py: the imported cascade finds the astronaut's face, and no other."""

import importlib.util
import pathlib

import numpy as np
import pytest
import skimage.data

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("mtcnn_example", DOCS / "mtcnn.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_astronauts_face_is_found(data, example):
    nets = example.load(data("caffe/mtcnn_det1.caffemodel").parent)
    picture = skimage.data.astronaut()
    found = example.faces(nets, picture)
    assert len(found) == 1 and found.scores[0] > 0.95
    x1, y1, x2, y2 = found.boxes[0]
    assert 150 < x1 < 200 < 250 < x2 < 300 and 40 < y1 < 100 < 150 < y2 < 210  # forehead to chin
    assert len(example.faces(nets, np.full_like(picture, 127))) == 0


def test_squares_and_offsets_by_hand(example):
    boxes = np.array([[0.0, 0, 10, 20]])
    np.testing.assert_array_equal(example.square(boxes), [[-5, 0, 15, 20]])
    np.testing.assert_array_equal(example.regress(boxes, np.array([[0.1, 0, -0.1, 0.5]])), [[1, 0, 9, 30]])
