"""Where the annotation's pixels lie in the picture: pictures of another size, and pictures that EXIF turns."""

import io

import dataset_layouts as layouts
import numpy as np
import pytest
from PIL import Image

from tfcnn import datasets
from tfcnn.datasets import pipeline, statistics
from tfcnn.datasets.example import Record
from tfcnn.images import Placement

STORED = (40, 30)  # width and height of the stored pixels
BOX = [8, 4, 20, 10]  # of a white block in them


def turned(orientation, size=STORED):
    """A JPEG whose stored pixels have a white block at BOX, with an EXIF orientation."""
    pixels = np.zeros((STORED[1], STORED[0], 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    tags = Image.Exif()
    tags[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG", quality=95, exif=tags)
    return buffer.getvalue()


def record(data, width, height, **fields):
    return Record("a", "a.jpg", width, height, lambda: data, np.float32([BOX]), **fields)


def shown_block(image):
    rows, columns = np.nonzero(image[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_stored_pixels_turn_with_the_picture(orientation):
    example = record(turned(orientation), *STORED)
    image = example.image()
    assert image.shape == (40, 30, 3)
    at = example.placement(image.shape)
    np.testing.assert_allclose(at.from_file(example.boxes)[0], shown_block(image))
    np.testing.assert_allclose(at.to_file(at.from_file(example.boxes)), example.boxes)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_everything_turns_alike(orientation):
    mask = np.zeros((1, 30, 40), bool)
    mask[0, BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    joints = np.float32([[[10, 5, 1], [19, 9, 1]]])
    example = record(turned(orientation), *STORED, joints=joints, masks=lambda: mask, void=lambda: mask[0])
    sample = pipeline.whole_sample(example, masks=True)
    x1, y1, x2, y2 = shown_block(sample.image)
    expected = np.zeros((40, 30), bool)
    expected[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(sample.masks[0], expected)
    np.testing.assert_array_equal(sample.void, expected)
    np.testing.assert_allclose(sample.boxes[0], [x1, y1, x2, y2])
    inside = (sample.joints[0, :, :2] > [x1, y1]) & (sample.joints[0, :, :2] < [x2, y2])
    assert inside.all() and sample.columns["area"].tolist() == [72]


def test_masks_of_the_picture_that_was_made_smaller_stay():
    """Boxes are the annotation's, SegmentationObject was reduced with the picture."""
    mask = np.zeros((1, 15, 20), bool)
    mask[0, 2:5, 4:10] = True
    sample = pipeline.whole_sample(record(turned(1, (20, 15)), *STORED, masks=lambda: mask), masks=True)
    np.testing.assert_array_equal(sample.masks, mask)
    np.testing.assert_allclose(sample.boxes, [[4, 2, 10, 5]])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_annotations_of_the_picture_as_seen_stay(orientation):
    seen = STORED if orientation < 5 else STORED[::-1]
    example = record(turned(orientation), *seen)
    assert example.placement(example.image().shape) == Placement(1, 1)


def test_a_picture_made_smaller_after_it_was_annotated():
    example = record(turned(1, (20, 15)), *STORED)
    image = example.image()
    at = example.placement(image.shape)
    np.testing.assert_allclose(at.from_file(example.boxes)[0], shown_block(image))
    np.testing.assert_allclose(at.to_file([[4, 2, 10, 5]]), [BOX])


def test_made_smaller_and_turned():
    example = record(turned(6, (20, 15)), *STORED)
    image = example.image()
    assert image.shape == (20, 15, 3)
    np.testing.assert_allclose(example.placement(image.shape).from_file(example.boxes)[0], shown_block(image))


def test_sizes_swapped_without_exif_are_a_resize():
    example = record(turned(1), *STORED[::-1])
    assert example.placement(example.image().shape) == Placement(40 / 30, 30 / 40)


def test_no_size_is_the_pictures():
    assert record(b"", 0, 0).placement((5, 7, 3)) == Placement(1, 1)


def voc(folder, data, count=2):
    """Pictures of one dog, annotated on the stored pixels."""
    names = [f"p{k}" for k in range(count)]
    xml = layouts.voc_xml([("dog", BOX[0] + 1, BOX[1] + 1, BOX[2], BOX[3], 0)], STORED)
    files = {f"Annotations/{name}.xml": xml for name in names}
    files |= {f"JPEGImages/{name}.jpg": data for name in names}
    return layouts.write(folder, files | {"ImageSets/Main/train.txt": "\n".join(names)})


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (turned(6), "boxes turned with the picture, as EXIF says"),
        (turned(1, (20, 15)), "boxes scaled with the picture"),
    ],
)
def test_it_is_said(tmp_path, data, rule):
    dataset = datasets.open("voc", voc(tmp_path / "set", data), "train")
    (note,) = dataset.notes()
    assert note.startswith("2 of 2 pictures looked at") and note.endswith(rule)
    statistics.check_pictures(dataset)
    assert [finding["rule"] for finding in dataset.broken] == [rule] * 2


def test_pictures_of_the_annotated_size_need_no_note(tmp_path):
    assert datasets.open("voc", voc(tmp_path / "set", turned(1)), "train").notes() == []
    assert datasets.open("digits").notes() == []
