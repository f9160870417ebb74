"""What is drawn lies where it should."""

import numpy as np
import pytest

from tfcnn import draw
from tfcnn.errors import InputError


def test_a_box_colours_its_outermost_pixels_and_nothing_else():
    image = np.full((40, 60, 3), 7, np.uint8)
    drawn = draw.boxes(image, [[10, 5, 30, 25]], labels=[3])
    frame = np.zeros((40, 60), bool)
    frame[5:25, 10:30] = True
    frame[6:24, 11:29] = False
    assert (drawn[frame] == draw.colour(3)).all() and (drawn[~frame] == 7).all()
    assert (image == 7).all() and drawn.flags.writeable


def test_boxes_outside_empty_or_not_finite_do_no_harm():
    image = np.zeros((20, 20, 3), np.uint8)
    assert (draw.boxes(image, np.zeros((0, 4))) == 0).all()
    odd = [[-50, -50, 500, 500], [np.nan, 0, 5, 5], [9, 9, 3, 3], [30, 30, 40, 40], [4, 4, 4, 4]]
    names = ["a very long name that is wider than the picture"]
    drawn = draw.boxes(image, odd, [0] * 5, [0.5] * 5, names)
    assert drawn.shape == image.shape and drawn.any()
    assert draw.boxes(np.zeros((1, 1, 3), np.uint8), [[0, 0, 1, 1]], [0], [1.0], ["x"]).shape == (1, 1, 3)


def test_the_best_score_lies_on_top():
    image = np.zeros((30, 30, 3), np.uint8)
    pair = [[5, 5, 25, 25], [5, 5, 25, 25]]
    for scores, top in (([0.9, 0.1], 0), ([0.1, 0.9], 1)):
        assert tuple(draw.boxes(image, pair, [0, 1], scores)[24, 15]) == draw.colour(top)


def test_a_mask_is_laid_over_with_an_outline_and_the_last_on_top():
    image = np.full((20, 30, 3), 100, np.uint8)
    a, b = np.zeros((2, 20, 30), bool)
    a[2:12, 2:12], b[8:18, 8:28] = True, True
    drawn = draw.masks(image, [a, np.zeros_like(a), b], [0, 1, 2], alpha=0.5)
    colours = [np.array(draw.colour(label)) for label in (0, 2)]
    assert (drawn[2, 2:12] == colours[0]).all() and (drawn[8, 8:28] == colours[1]).all()  # outlines
    np.testing.assert_array_equal(drawn[5, 5], np.rint((100 + colours[0]) / 2))
    np.testing.assert_array_equal(drawn[10, 10], np.rint((np.rint((100 + colours[0]) / 2) + colours[1]) / 2))
    assert (drawn[~(a | b)] == 100).all() and (image == 100).all()
    own = draw.masks(image, [a, b])
    assert (own[2, 2] == draw.colour(0)).all() and (own[8, 8] == draw.colour(1)).all()


def test_colours_of_many_classes_differ():
    assert len({draw.colour(i) for i in range(1000)}) > 900
    neighbours = [np.abs(np.subtract(draw.colour(i), draw.colour(i + 1))).sum() for i in range(100)]
    assert min(neighbours) > 100


def test_heat_grows_lighter_with_the_value_and_reads_in_grey():
    ramp = draw.heat_map(np.linspace(-3, 8, 256)[None])
    grey = ramp[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > -1).all() and grey[0] < 20 and grey[-1] > 220
    assert (draw.heat_map(np.full((2, 2), 5.0)) == draw.heat_map(np.array([[0.0, 1.0]]))[0, 0]).all()
    one, two = (draw.heat_map(np.array([[value, 0.0]]), span=(0.0, 0.8))[0, 0] for value in (0.8, 0.1))
    assert (one == ramp[0, -1]).all() and 0 < two.sum() < one.sum()  # maps of one span compare
    assert (draw.heat_map(np.array([[0.8]]), span=(0.0, 0.8)) == ramp[0, -1]).all()
    over = draw.heat_map(np.array([[0.0, 1.0]]), np.full((10, 40, 3), 100, np.uint8))
    assert over.shape == (10, 40, 3) and over[:, 30:].mean() > over[:, :10].mean() + 50
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="non-finite"):
            draw.heat_map(np.array([[0.0, bad]]))


def test_a_grid_puts_each_picture_in_its_cell():
    pictures = [np.full((10, 20, 3), i + 1, np.uint8) for i in range(5)] + [np.full((4, 4, 3), 6, np.uint8)]
    sheet = draw.grid(pictures, columns=2)
    assert sheet.shape == (4 + 3 * 14, 4 + 2 * 24, 3)
    for i, (y, x) in enumerate([(9, 14), (9, 38), (23, 14), (23, 38), (37, 14), (37, 38)]):
        assert (sheet[y, x] == i + 1).all()
    assert (sheet == 6).all(-1).sum() == 16  # the small one keeps its size
    captioned = draw.grid(pictures, columns=3, captions=["a caption that is too long"] * 6)
    assert captioned.shape[0] == 4 + 2 * (10 + 18 + 4) and (captioned[15:28] == 0).any()
    assert draw.grid([]).shape[2] == 3


def test_names_in_another_script_are_drawn_in_a_font_that_has_it(monkeypatch):
    """Cyrillic is in a font that Matplotlib brings along; a letter of private use is in none, and is spelled."""
    image = np.zeros((200, 300, 3), np.uint8)

    def tag(name):
        return draw.boxes(image, [[20, 50, 250, 150]], [0], names=[name])

    font, shown = draw._font(["кошка"], 20)
    assert shown("кошка") == "кошка" and "DejaVu" in font.getname()[0]
    assert (tag("кошка") != tag("собака")).any() and (
        tag("кошка") != tag("\\u043a\\u043e\\u0448\\u043a\\u0430")
    ).any()
    assert draw._font(["\ue123 cat"], 20)[1]("\ue123 cat") == "\\ue123 cat"
    assert (tag("\ue123 cat") == tag("\\ue123 cat")).all()
    assert draw._font(["Käfer"], 20)[1] is str
    monkeypatch.setattr(draw, "_file_with", lambda letters: pytest.fail("looked for twice"))
    assert draw.grid([image], captions=["café"]).shape == (226, 308, 3)


def test_a_hog_is_drawn_as_strokes_along_its_edges():
    """A gradient along x (bins 0 and 8 of 9) is an upright edge, one along y (bin 4) a lying one."""
    weights = np.zeros([1, 2, 9])
    weights[0, 0, [0, 8]] = weights[0, 1, 4] = 1
    shown = draw.hog_glyphs(weights, side=15, most=1)
    assert shown.shape == (15, 30, 3)
    upright, lying = shown[:, :15, 0], shown[:, 15:, 0]
    assert upright[7, 7] == 255 and upright[1, 7] > 0 and not upright[7, [0, 1, 13, 14]].any()
    assert lying[7, 1] == lying[7, 13] == 255 and not lying[[0, 1, 13, 14], 7].any()
    assert not draw.hog_glyphs(np.zeros([2, 2, 9])).any()


def test_a_skeleton_has_its_lines_and_points():
    """Of three joints the last is not known: a red line between the first two, and nothing else."""
    image = np.zeros((100, 100, 3), np.uint8)
    joints = np.array([[20, 50], [80, 50], [np.nan, 10]])
    pairs, red, blue = [(0, 1), (1, 2)], (255, 0, 0), (0, 0, 255)
    drawn = draw.skeleton(image, joints, pairs, [red, blue], [blue] * 3)
    assert drawn[50, 50].tolist() == list(red) and drawn[50, 20].tolist() == list(blue)
    assert not drawn[:40].any() and not image.any()
    assert (drawn != draw.skeleton(image, joints + 5, pairs, [red, blue], [blue] * 3)).any()
