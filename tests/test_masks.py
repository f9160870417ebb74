"""Masks by hand: pasting against a loop over pixels, the way back to the file, run lengths of a results list."""

import numpy as np
import pytest

from tfcnn import masks
from tfcnn.errors import InputError
from tfcnn.images import Placement


def looped(small, box, height, width):
    """Every pixel by itself, in float64."""
    x1, y1, x2, y2 = box
    side = len(small)
    found = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            if not (x1 <= x < x2 and y1 <= y < y2):
                continue
            u = min(max((x - x1) / (x2 - x1) * side - 0.5, 0), side - 1)
            v = min(max((y - y1) / (y2 - y1) * side - 0.5, 0), side - 1)
            j, i = int(u), int(v)
            k, m = min(j + 1, side - 1), min(i + 1, side - 1)
            low = small[i, j] * (1 - u + j) + small[i, k] * (u - j)
            high = small[m, j] * (1 - u + j) + small[m, k] * (u - j)
            found[row, column] = low * (1 - v + i) + high * (v - i) >= 0.5
    return found


def test_a_mask_of_two_cells_is_cut_in_the_middle_of_its_box():
    # Cells' middles lie at x = 2 and x = 4; between them the probability climbs from 0 to 1, and is 0.5 at x = 3.
    found = masks.paste(np.float32([[0, 1], [0, 1]]), [1, 0, 5, 2], 4, 6)
    expected = np.zeros((4, 6), bool)
    expected[:2, 3:5] = True  # the centres at 3.5 and 4.5
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "box", [[1.3, 2.2, 17.9, 11.1], [-6.5, -3.2, 9.4, 30], [3, 3, 4.2, 4.6], [5, 5, 5.3, 9]]
)
def test_pasting_equals_a_loop_over_pixels(box):
    small = np.random.default_rng(3).random((7, 7)).astype(np.float32)
    np.testing.assert_array_equal(masks.paste(small, box, 14, 20), looped(small, box, 14, 20))


@pytest.mark.parametrize(
    "box", [[4.6, 1, 5.4, 3], [30, 1, 40, 3], [5, 5, 5, 9], [9, 1, 3, 4], [np.nan, 1, 5, 3]]
)
def test_a_box_without_a_pixels_centre_has_an_empty_mask(box):
    assert not masks.paste(np.ones((28, 28), np.float32), box, 10, 20).any()


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1)])
def test_a_mask_goes_to_the_file_as_its_box_does(swapped, signs):
    """A picture of 20 x 12 made smaller by 2, turned or mirrored."""
    wide, high = (6, 10) if swapped else (10, 6)
    at = Placement(
        0.5 * signs[0], 0.5 * signs[1], wide if signs[0] < 0 else 0.0, high if signs[1] < 0 else 0.0, swapped
    )
    box = np.array([4, 2, 12, 8])
    x1, y1, x2, y2 = at.from_file(box).astype(int)
    mask = np.zeros((high, wide), bool)
    mask[y1:y2, x1:x2] = True
    expected = np.zeros((12, 20), bool)
    expected[box[1] : box[3], box[0] : box[2]] = True
    np.testing.assert_array_equal(masks.to_file(mask, at), expected)


def test_outside_the_picture_nothing_comes_home():
    at = Placement(1.0, 1.0, -3.0, 2.0)  # three columns were cut off, two rows of a bar were added
    found = masks.to_file(np.ones((5, 6), bool), at)
    assert not found[:, :3].any() and found[:3, 3:].all() and not found[3:].any()


def test_run_lengths_there_and_back_and_what_they_share():
    a, b = np.random.default_rng(0).random((2, 9, 13)) < 0.5
    np.testing.assert_array_equal(masks.decode(masks.encode(a)), a)
    np.testing.assert_array_equal(masks.decode(masks.common(masks.encode(a), masks.encode(b))), a & b)
    assert masks.areas([masks.encode(a), masks.encode(b)]).tolist() == [a.sum(), b.sum()]
    square = np.zeros((9, 13), bool)
    square[2:5, 3:10] = True
    assert masks.box(masks.encode(square)) == [3, 2, 7, 3]
    assert masks.areas([]).shape == (0,)


def test_another_size_by_the_nearest_pixels():
    small = np.array([[1, 2], [3, 4]], np.uint8)
    assert masks.resized(small, 4, 4).tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2
    assert masks.resized(masks.resized(small, 4, 6), 2, 2).tolist() == small.tolist()
    assert masks.resized(small, 2, 2) is small


def test_a_polygon_across_the_border_is_cut_off():
    shape = masks.compact([[-4, 1, 3, 1, 3, 3, -4, 3]], 4, 6)
    assert masks.sticks_out(shape, 4, 6)
    expected = np.zeros((4, 6), bool)
    expected[1:3, :3] = True
    np.testing.assert_array_equal(masks.draw(shape, 4, 6), expected)
    for inside in ([[-0.4, 0, 6.4, 0, 6, 4.5]], {"counts": [0, 24]}):
        assert not masks.sticks_out(masks.compact(inside, 4, 6), 4, 6)


def test_an_entry_of_a_results_list():
    mask = np.eye(3, 5, dtype=bool)
    text = {"size": [3, 5], "counts": masks.encode(mask)["counts"].decode()}
    np.testing.assert_array_equal(masks.decode(masks.of_entry(text)), mask)
    plain = {"size": [3, 5], "counts": [0, 1, 3, 1, 3, 1, 6]}
    np.testing.assert_array_equal(masks.decode(masks.of_entry(plain)), mask)


@pytest.mark.parametrize(
    "entry",
    [
        [[0, 0, 4, 0, 4, 4]],
        {"counts": [0, 15]},
        {"size": [3, 5], "counts": [0, 14]},
        {"size": [3, 0], "counts": [0]},
        {"size": [3, True], "counts": [0, 3]},
        {"size": 15, "counts": [0, 15]},
        {"size": [3, 5]},
        "counts",
    ],
    ids=str,
)
def test_what_is_no_entry(entry):
    with pytest.raises(InputError, match="run lengths"):
        masks.of_entry(entry)
