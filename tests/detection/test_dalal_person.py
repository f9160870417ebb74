"""Dalal and Triggs' person: a window of 64 x 128 pixels, 3780 numbers, held against OpenCV's HOGDescriptor.

OpenCV differs by convention: a block's histograms have the votes of its own pixels alone, weighed by a Gaussian, the
picture's root is taken first, its L2 norm has 3.6 added and its angles are right to 0.3 degrees. Blocks and their cells
are in columns.
"""

import cv2
import numpy as np
import pytest

from tfcnn import images
from tfcnn.detection.hog_svm import HogSvm, hog_svm
from tfcnn.ops import hog

if not hasattr(cv2, "HOGDescriptor"):
    pytest.skip("this OpenCV has no HOGDescriptor", allow_module_level=True)

FLAT = 1e6  # sigma of a Gaussian that weighs all pixels alike


@pytest.fixture(scope="module")
def photograph():
    """The motorcycle, longer side 320 pixels, its sides in whole cells."""
    picture = images.resize(images.read(images.packaged()[3]), 320, "fit", longest=320)[0]
    return picture[: picture.shape[0] // 8 * 8]


def in_rows(numbers, rows=15, columns=7):
    """OpenCV's numbers of a window [3780] as [15, 7, 36]: blocks row by row, of each its cells row by row."""
    blocks = np.reshape(numbers, [columns, rows, 2, 2, 9])
    return blocks.transpose(1, 0, 3, 2, 4).reshape(rows, columns, 36)


def opencv(picture, width=64, height=128, sigma=-1.0, root=True):
    """OpenCV's descriptor of a window as large as the picture."""
    descriptor = cv2.HOGDescriptor(
        (width, height), (16, 16), (8, 8), (8, 8), 9, 1, sigma, 0, 0.2, root, 64, False
    )
    numbers = descriptor.compute(np.ascontiguousarray(picture[..., ::-1]))
    return in_rows(numbers, height // 8 - 1, width // 8 - 1)


def cosine(one, two):
    return (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two)


@pytest.mark.parametrize("corner", [(40, 100), (96, 64), (150, 200), (20, 260)])
def test_a_block_equals_opencvs_without_its_gaussian_and_root(photograph, corner):
    y, x = corner
    part = photograph[y : y + 16, x : x + 16]
    ours = hog.dalal_triggs(part[None].astype(np.float32)).numpy()[0]
    np.testing.assert_allclose(ours, opencv(part, 16, 16, FLAT, False), atol=0.01)


@pytest.mark.parametrize("corner", [(0, 0), (40, 100), (60, 200)])
def test_the_window_has_3780_numbers_near_to_opencvs(photograph, corner):
    y, x = corner
    window = photograph[y : y + 128, x : x + 64]
    ours = hog.dalal_triggs(window[None].astype(np.float32)).numpy()[0]
    assert ours.size == 3780 == cv2.HOGDescriptor().getDescriptorSize()
    assert cosine(ours, opencv(window, sigma=FLAT, root=False)) > 0.94
    assert cosine(ours, opencv(window)) > 0.9
    assert cosine(ours, hog.mirrored(opencv(window))) < 0.85  # another order of cells or bins is no match


def test_opencvs_people_detector_is_a_template_of_ours(photograph):
    """Its margins at all windows of a photograph, by our net and by OpenCV."""
    weights = cv2.HOGDescriptor_getDefaultPeopleDetector().ravel()
    model = hog_svm(1, {(16, 8): [0]}, features="dalal_triggs", margin=2, pad=0, largest=1.0, per_octave=1)
    layer = model.get_layer("templates_16x8")
    layer.set_weights([in_rows(weights[:-1])[..., None], weights[-1:]])
    ours = model(photograph[None].astype(np.float32))[1].numpy()[0, ..., 0]
    numbers = cv2.HOGDescriptor().compute(np.ascontiguousarray(photograph[..., ::-1]), winStride=(8, 8))
    theirs = (numbers.reshape(-1, 3780) @ weights[:-1] + weights[-1]).reshape(ours.shape)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.85
    assert np.abs(ours - theirs).mean() < 0.6 * theirs.std()
    # a person fills 32 x 96 pixels of the window: 16 pixels of what surrounds it are seen, too
    boxes = HogSvm([model]).output.windows(0, np.array([0, 1]), np.array([0, 2]), 1.0)
    np.testing.assert_allclose(boxes, [[16, 16, 48, 112], [32, 24, 64, 120]])
