"""Pixels, boxes, joints and masks move together."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcnn.datasets.augment import (
    DETECTION,
    POSE,
    PRESETS,
    Augmentation,
    augment,
    colour_matrix,
    draw_window,
    mosaic,
)
from tfcnn.datasets.sample import Sample, flip, mirrored_joints, through_window, visible_share

GREY = (127, 127, 127)
ALL = Augmentation(
    window=(0.4, 1.6), aspect=0.5, flip=0.5, rotation=45, contrast=0.3, hue=0.1, brightness=0.1
)


def made(boxes=(), height=60, width=80, joints=None, background=0):
    """A dark picture whose boxes are white, with a mask each."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image = np.full((height, width, 3), background, np.uint8)
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, box in zip(masks, boxes.astype(int), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = True
        image[mask] = 255
    count = len(boxes)
    columns = {
        "labels": np.arange(count, dtype=np.int32),
        "difficult": np.zeros(count, bool),
        "crowd": np.zeros(count, bool),
        "area": np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
    }
    void = masks.any(axis=0)  # the same pixels, so that one has to be where the others are
    return Sample(image, boxes, columns, joints, masks, void, original_size=(height, width))


def bounds(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def equal(a, b):
    for field in dataclasses.fields(Sample):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, dict):
            assert x.keys() == y.keys()
            x, y = list(x.values()), list(y.values())
            assert all(np.array_equal(p, q) for p, q in zip(x, y, strict=True))
        else:
            np.testing.assert_array_equal(x, y)


# ------------------------------------------------------------------------------- by hand


def test_window_of_the_whole_changes_nothing():
    sample = made([[10, 20, 30, 40]], joints=np.float32([[5, 6, 1], [0, 0, 0]]))
    sample.image = np.random.default_rng(0).integers(0, 255, sample.image.shape, dtype=np.uint8)
    equal(through_window(sample, (0, 0, 80, 60), (60, 80), GREY), sample)


def test_crop_by_hand():
    sample = made([[10, 20, 30, 40], [60, 0, 80, 10]], joints=np.float32([[25, 30, 1], [5, 5, 1]]))
    seen = through_window(sample, (20, 10, 60, 50), (80, 80), GREY, min_visible=0.3)
    assert seen.boxes.tolist() == [[0, 20, 20, 60]]  # half of the first shows, nothing of the second
    assert seen.columns["labels"].tolist() == [0]
    assert seen.columns["area"].tolist() == [400 * 4 / 2]
    assert seen.joints.tolist() == [[10, 40, 1], [0, 0, 0]]
    assert bounds(seen.masks[0]) == [0, 20, 20, 60] and bounds(seen.image[..., 0] > 127) == [0, 20, 20, 60]
    assert (seen.scale, seen.offset) == ((2, 2), (-40, -20))
    assert not len(through_window(sample, (20, 10, 60, 50), (80, 80), GREY, min_visible=0.6).boxes)


def test_a_box_beyond_the_window_by_hand():
    sample = made([[10, 20, 30, 40]])
    seen = through_window(sample, (20, 10, 60, 50), (80, 80), GREY, min_visible=0.5, beyond=True)
    assert seen.boxes.tolist() == [[-20, 20, 20, 60]] and seen.columns["area"].tolist() == [400 * 4 / 2]
    assert flip(seen).boxes.tolist() == [[60, 20, 100, 60]]


def test_windows_hold_half_of_the_object_and_keep_its_whole_box():
    sample = made([[0, 0, 60, 45]])
    reach = []
    for seed in range(60):
        seen = augment(sample, (50, 50), PRESETS["windows"], np.random.default_rng(seed))
        assert len(seen.boxes) == 1 and visible_share(seen.boxes, (0, 0, 50, 50))[0] >= 0.5 - 1e-6
        reach.append(np.maximum(seen.boxes[0, 2:] - 50, -seen.boxes[0, :2]).max())
    assert max(reach) > 5


def test_expand_by_hand():
    sample = made([[0, 0, 80, 60]], background=9)
    seen = through_window(sample, (-40, -60, 120, 60), (60, 80), (1, 2, 3))
    assert seen.boxes.tolist() == [[20, 30, 60, 60]]
    assert bounds((seen.image == 255).all(2)) == [20, 30, 60, 60]
    assert (seen.image[:30] == [1, 2, 3]).all() and (seen.image[:, 60:] == [1, 2, 3]).all()
    assert bounds(seen.masks[0]) == [20, 30, 60, 60]


def test_turn_by_hand():
    # A quarter turn counter-clockwise about the middle of a square: (x, y) -> (y, side - x).
    sample = made([[10, 20, 30, 60]], 80, 80, joints=np.float32([[10, 20, 1]]))
    seen = through_window(sample, (0, 0, 80, 80), (80, 80), GREY, angle=90)
    np.testing.assert_allclose(seen.boxes, [[20, 50, 60, 70]], atol=1e-4)
    np.testing.assert_array_equal(seen.image, np.rot90(sample.image))
    np.testing.assert_array_equal(seen.masks[0], np.rot90(sample.masks[0]))
    sample = made([], 80, 80, joints=np.float32([[10, 20, 1], [30, 30, 1]]))
    seen = through_window(sample, (0, 0, 80, 80), (80, 80), GREY, angle=90)
    np.testing.assert_allclose(seen.joints, [[20, 70, 1], [30, 50, 1]], atol=1e-4)


def test_the_box_of_a_turned_person_is_round_its_joints():
    joints = np.float32([[20, 40, 1], [60, 40, 1], [40, 30, 1], [0, 0, 0]])
    sample = made([[20, 30, 60, 40]], 80, 80, joints=joints)
    seen = through_window(sample, (0, 0, 80, 80), (80, 80), GREY, angle=30)
    points = seen.joints[:3, :2]
    np.testing.assert_allclose(seen.boxes[0], [*points.min(0), *points.max(0)], atol=1e-3)


def test_reducing_averages():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    sample = dataclasses.replace(made([], 64, 64), image=noise)
    seen = through_window(sample, (0, 0, 64, 64), (16, 16), GREY)
    np.testing.assert_allclose(seen.image, noise.reshape(16, 4, 16, 4, 3).mean((1, 3)), atol=1)


def test_visible_share_by_hand():
    boxes = np.float32([[0, 0, 10, 10], [8, 8, 12, 12], [50, 50, 60, 60]])
    assert visible_share(boxes, (0, 0, 10, 5)).tolist() == [0.5, 0, 0]
    assert visible_share(boxes, (0, 0, 10, 10)).tolist() == [1, 0.25, 0]


def test_mirrored_joints():
    names = ["left_eye", "nose", "right_eye", "right_knee", "left_knee"]
    assert mirrored_joints(names).tolist() == [2, 1, 0, 4, 3]


def test_flip_by_hand():
    sample = made([[10, 20, 30, 40]], joints=np.float32([[10, 5, 1], [0, 0, 0]]))
    seen = flip(sample, np.array([1, 0]))
    assert seen.boxes.tolist() == [[50, 20, 70, 40]] and bounds(seen.masks[0]) == [50, 20, 70, 40]
    assert seen.joints.tolist() == [[0, 0, 0], [70, 5, 1]]  # the left one became the right one
    np.testing.assert_array_equal(seen.image, sample.image[:, ::-1])


def test_colour_matrix():
    rng = np.random.default_rng
    assert colour_matrix(Augmentation(flip=0.5), rng(0)) is None
    grey = np.full((4, 1), 100.0)
    grey[3] = 1
    hue = colour_matrix(Augmentation(hue=0.5), rng(1))
    np.testing.assert_allclose(hue @ grey, 100, rtol=1e-5)  # grey has no hue
    assert np.abs(hue[:, :3] - np.eye(3)).max() > 0.1
    np.testing.assert_allclose(colour_matrix(Augmentation(saturation=0.9), rng(1)) @ grey, 100, rtol=1e-5)
    contrast = colour_matrix(Augmentation(contrast=0.9), rng(1))
    np.testing.assert_allclose(contrast @ [127.5, 127.5, 127.5, 1], 127.5, rtol=1e-5)
    brightness = colour_matrix(Augmentation(brightness=0.2), rng(1))
    shift = brightness @ [50, 60, 70, 1] - [50, 60, 70]
    assert np.ptp(shift) < 1e-4 and 0 < abs(shift[0]) <= 0.2 * 255


# ------------------------------------------------------------------------------- properties

box_lists = st.lists(
    st.tuples(st.integers(0, 70), st.integers(0, 50), st.integers(4, 40), st.integers(4, 40)).map(
        lambda b: [b[0], b[1], min(b[0] + b[2], 80), min(b[1] + b[3], 60)]
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=30)
@given(box_lists)
def test_flip_twice_is_the_identity(boxes):
    sample = made(boxes, joints=np.float32([[3, 4, 1], [9, 9, 1], [0, 0, 0]]))
    swap = np.array([1, 0, 2])
    equal(flip(flip(sample, swap), swap), sample)


@settings(deadline=None, max_examples=60)
@given(box_lists, st.integers(0, 10**6), st.booleans(), st.sampled_from(["mosaic", *PRESETS, "all"]))
def test_boxes_are_whole_whatever_is_drawn(boxes, seed, letterbox, name):
    how = ALL if name == "all" else PRESETS.get(name) or DETECTION
    sample, rng = made(boxes), np.random.default_rng(seed)
    if name == "mosaic":
        seen = mosaic([sample, made(), sample, sample], (40, 56), how, rng, letterbox)
    else:
        seen = augment(sample, (40, 56), how, rng, letterbox)
    assert seen.image.shape == (40, 56, 3) and seen.image.dtype == np.uint8
    assert seen.boxes.dtype == np.float32 and (seen.boxes[:, :2] < [56, 40]).all()
    assert (seen.boxes[:, 2:] > 0).all()  # each is seen
    if name != "windows":  # there boxes reach beyond
        assert (seen.boxes >= 0).all() and (seen.boxes <= [56, 40, 56, 40]).all()
    assert (seen.boxes[:, 2:] > seen.boxes[:, :2]).all() and np.isfinite(seen.columns["area"]).all()
    count = len(seen.boxes)
    assert seen.masks.shape == (count, 40, 56)
    assert all(len(column) == count for column in seen.columns.values())
    assert seen.columns["area"].dtype == np.float32 and seen.columns["labels"].dtype == np.int32


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_box_mask_and_pixels_agree(seed, letterbox):
    """The bounds of what is white are the box, wherever the window fell."""
    sample = made([[20, 10, 50, 44]])
    how = dataclasses.replace(ALL, rotation=0, contrast=0, hue=0, brightness=0, fill=(0, 0, 0))
    seen = augment(sample, (90, 120), how, np.random.default_rng(seed), letterbox)
    for index, box in enumerate(seen.boxes):
        assert np.abs(bounds(seen.masks[index]) - box).max() <= 1.01
        np.testing.assert_array_equal(seen.void, seen.masks[index])
        assert np.abs(bounds(seen.image[..., 0] > 127) - box).max() <= 1.01


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_joints_stay_on_their_pixels(seed):
    """A dot drawn on each joint is where the joint is afterwards, turned and mirrored or not."""
    joints = np.float32([[30, 20, 1], [55, 40, 1], [0, 0, 0]])
    sample = made([], joints=joints)
    for joint, (x, y, shown) in enumerate(joints.astype(int)):
        if shown:
            sample.image[y - 2 : y + 2, x - 2 : x + 2, joint] = 255
    how = dataclasses.replace(ALL, window=(0.6, 1.2), contrast=0, hue=0, brightness=0, fill=(0, 0, 0))
    seen = augment(sample, (120, 160), how, np.random.default_rng(seed), swap=np.array([1, 0, 2]))
    assert seen.joints[2].tolist() == [0, 0, 0]
    mirrored = augment(sample, (120, 160), how, np.random.default_rng(seed)).joints
    swapped = not np.array_equal(mirrored, seen.joints)
    for joint, (x, y, shown) in enumerate(seen.joints[:2]):
        if shown and 6 < x < 154 and 6 < y < 114:
            dot = seen.image[..., 1 - joint if swapped else joint].astype(float)
            rows, columns = np.mgrid[:120, :160] + 0.5
            near = (np.abs(rows - y) < 12) & (np.abs(columns - x) < 12)
            weight = dot * near
            np.testing.assert_allclose(
                [(columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()],
                [x, y],
                atol=0.6,
            )


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.booleans(), box_lists)
def test_window_keeps_enough_objects(seed, letterbox, boxes):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    rng = np.random.default_rng(seed)
    window = draw_window(boxes, 80, 60, (50, 50), DETECTION, rng, letterbox)
    wide, high = window[2] - window[0], window[3] - window[1]
    if len(boxes):
        share = visible_share(boxes, window) >= DETECTION.min_visible
        assert share.mean() >= DETECTION.min_objects
    for low, high_end, length, side in ((window[0], window[2], wide, 80), (window[1], window[3], high, 60)):
        if length <= side:
            assert low >= -1e-9 and high_end <= side + 1e-9
        else:
            assert low <= 1e-9 and high_end >= side - 1e-9
    ratio = wide / high * (1 if letterbox else 60 / 80)
    assert 1 / 1.3001 <= ratio <= 1.3001


def test_a_crop_does_not_lose_the_one_object():
    boxes = np.float32([[0, 0, 6, 6]])
    for seed in range(60):
        window = draw_window(boxes, 80, 60, (50, 50), DETECTION, np.random.default_rng(seed), False)
        assert visible_share(boxes, window)[0] >= DETECTION.min_visible


def test_windows_fall_everywhere():
    windows = np.array(
        [
            draw_window(np.zeros((0, 4)), 80, 60, (50, 50), DETECTION, np.random.default_rng(s), False)
            for s in range(300)
        ]
    )
    for axis, side in ((0, 80), (1, 60)):
        low, length = windows[:, axis], windows[:, axis + 2] - windows[:, axis]
        share = low / (side - length)  # where it lies in the room it has, cropped or expanded
        for part in (length < side, length > side):
            assert part.sum() > 80
            assert share[part].min() < 0.1 and share[part].max() > 0.9 and abs(share[part].mean() - 0.5) < 0.1
    assert length.min() < 0.6 * 60 and length.max() > 1.4 * 60


def test_the_same_generator_draws_the_same():
    sample = made([[10, 20, 30, 40]])
    for how in (DETECTION, POSE, ALL):
        equal(
            augment(sample, (50, 50), how, np.random.default_rng(3)),
            augment(sample, (50, 50), how, np.random.default_rng(3)),
        )
    other = augment(sample, (50, 50), DETECTION, np.random.default_rng(4))
    assert not np.array_equal(
        other.image, augment(sample, (50, 50), DETECTION, np.random.default_rng(3)).image
    )


def test_the_sample_handed_in_is_left_alone():
    sample = made([[10, 20, 30, 40]], joints=np.float32([[25, 30, 1]]))
    before = dataclasses.replace(
        sample,
        image=sample.image.copy(),
        boxes=sample.boxes.copy(),
        columns={name: column.copy() for name, column in sample.columns.items()},
        joints=sample.joints.copy(),
        masks=sample.masks.copy(),
        void=sample.void.copy(),
    )
    for seed in range(4):
        augment(sample, (50, 50), ALL, np.random.default_rng(seed))
    mosaic([dataclasses.replace(sample, joints=None)] * 4, (50, 50), DETECTION, np.random.default_rng(0))
    equal(sample, before)


def test_mosaic_has_all_four():
    samples = [made([[10, 10, 70, 50]], background=40 * k) for k in range(4)]
    for k, sample in enumerate(samples):
        sample.columns["labels"] = np.int32([k])
    how = Augmentation(mosaic=1)
    seen = mosaic(samples, (100, 100), how, np.random.default_rng(0))
    assert seen.columns["labels"].tolist() == [0, 1, 2, 3]
    for label, box in zip(seen.columns["labels"], seen.boxes, strict=True):
        middle = ((box[:2] + box[2:]) / 2).astype(int)
        assert (seen.image[middle[1], middle[0]] == 255).all()
        assert seen.masks[label, middle[1], middle[0]]
    np.testing.assert_array_equal(seen.void, seen.masks.any(axis=0))
    # Each lies in its own quarter.
    left, top = seen.boxes[0, 2], seen.boxes[0, 3]
    assert seen.boxes[1, 0] > left and seen.boxes[2, 1] > top and (seen.boxes[3, :2] > [left, top]).all()


def test_presets_change_pictures():
    assert PRESETS["none"] is None
    for name, how in PRESETS.items():
        if how is not None:
            assert how != Augmentation(), name


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_extreme_sizes(size):
    sample = made([[10, 20, 30, 40]])
    seen = augment(sample, size, DETECTION, np.random.default_rng(0))
    assert seen.image.shape == (*size, 3)
    one = Sample(np.zeros((1, 1, 3), np.uint8), np.float32([[0, 0, 1, 1]]), made([[0, 0, 1, 1]]).columns)
    seen = augment(one, (32, 32), DETECTION, np.random.default_rng(0))
    assert seen.image.shape == (32, 32, 3) and len(seen.boxes) == 1
