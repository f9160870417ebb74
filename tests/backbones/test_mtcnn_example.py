"""The example of docs/mtcnn.py: the imported cascade finds the astronaut's face, and no other."""

import ast
import importlib.util
import io
import pathlib
import re
import tokenize

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


def test_the_example_has_as_many_lines_as_the_docs_say(example):
    source = (DOCS / "mtcnn.py").read_text()
    layout = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    tree = ast.parse(source)
    for node in (tree, *tree.body):
        if isinstance(node, ast.Module | ast.FunctionDef):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))  # its docstring
    said = re.search(
        r"MTCNN's cascade .* is (\d+) lines of Python", (DOCS / "models_and_cluster.md").read_text()
    )
    assert len(lines) == int(said[1]) <= 60
