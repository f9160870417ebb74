"""The sliding window against windows one by one, offsets by hand, and greedy merging by hand."""

import keras
import numpy as np
import pytest

from tfcnn import backbones
from tfcnn.errors import InputError
from tfcnn.localization import overfeat, with_box_head
from tfcnn.localization.overfeat import SlidingWindow, Windows

SIZE, CLASSES = 19, 4


def unpadded(boxes=None, size=SIZE):
    """Windows of 19 pixels, no padding, the last pooling 3 x 3: maps of 9 and 3, a stride of 6 or 2 with offsets."""
    keras.utils.set_random_seed(1)
    image = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(6, 3, 2, activation="tanh", name="conv1")(image)  # 9
    x = keras.layers.MaxPooling2D(3, name="pool")(x)  # 3
    x = keras.layers.Dense(8, activation="tanh", name="fc")(keras.layers.Flatten()(x))
    x = keras.layers.Dense(CLASSES, name="classes")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(image, x, name="unpadded")
    if boxes is None:
        return model
    attach = "conv" if boxes == "place" else boxes
    return with_box_head(
        model, attach=attach, per_class=boxes == "fc", per_place=boxes == "place", hidden=(5,)
    )


def one_by_one(model, picture, step, size=SIZE):
    rows, columns = ((side - size) // step + 1 for side in picture.shape[:2])
    crops = [
        picture[y * step : y * step + size, x * step : x * step + size]
        for y in range(rows)
        for x in range(columns)
    ]
    found = model(np.stack(crops))
    found = found if isinstance(found, dict) else {"scores": keras.ops.softmax(found)}
    return {name: np.array(each).reshape(rows, columns, *each.shape[1:]) for name, each in found.items()}


def picture(height, width):
    return np.random.default_rng(0).uniform(0, 1, (height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("boxes", [None, "conv", "fc", "place"])
@pytest.mark.parametrize("offsets", [False, True])
def test_one_pass_is_every_window_by_itself(boxes, offsets):
    """At 43 x 31: every 6 pixels 5 x 3 windows, with offsets every 2 pixels 13 x 7."""
    model = unpadded(boxes)
    window = SlidingWindow(model, offsets)
    assert (window.window, window.step, window.offsets, window.classes) == (
        19,
        2 if offsets else 6,
        3 if offsets else 1,
        4,
    )
    image = picture(43, 31)
    found, expected = window.maps(image), one_by_one(model, image, window.step)
    assert found["scores"].shape == ((13, 7, 4) if offsets else (5, 3, 4))
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    if boxes:
        np.testing.assert_allclose(found["boxes"], expected["boxes"].reshape(found["boxes"].shape), atol=1e-4)


def test_the_lectures_picture_of_257_by_257_gives_two_by_two():
    """OverFeat's accurate net: windows of 221 pixels every 36; at 281 x 317 2 x 3, with offsets 6 x 9 (table 5)."""
    net = backbones.fully_convolutional(
        backbones.classifier("overfeat_accurate", None, classes=3, hidden=(4, 4))
    )
    shape = lambda *size: net.compute_output_shape((1, *size, 3))["scores"][1:3]  # noqa: E731
    assert shape(221, 221) == (1, 1) and shape(257, 257) == (2, 2) and shape(281, 317) == (2, 3)
    plain = SlidingWindow(
        backbones.classifier("overfeat_accurate", None, classes=3, hidden=(4, 4)), offsets=False
    )
    assert (plain.window, plain.step) == (221, 36) and plain.size_of(500, 500, 257) == (257, 257)


def test_offsets_of_one_axis_by_hand():
    """The paper's figure 3: 20 numbers pooled by 3 at 3 offsets give 6 each; windows of 5 of them 2 each; 6 in all."""
    row = np.arange(20)
    pooled = [
        np.array([row[3 * k + o : 3 * k + o + 3].max() for k in range((20 - o) // 3)]) for o in range(3)
    ]
    assert [len(each) for each in pooled] == [6, 6, 6]
    firsts = [each[: len(each) - 4, None] for each in pooled]  # what windows of 5 begin with
    parts = [first[None] if o == 0 else first[None][:0] for o in range(3) for first in firsts]
    assert overfeat.interleaved(parts, 3)[0, :, 0].tolist() == [2, 3, 4, 5, 6, 7]


def test_later_offsets_may_have_fewer_places():
    """At 21 pixels the second offset has a second window, the third has none: 2 places."""
    model = unpadded()
    image = picture(21, 21)
    found, expected = SlidingWindow(model).maps(image), one_by_one(model, image, 2)
    assert found["scores"].shape == (2, 2, 4)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)


def test_boxes_lie_in_the_file():
    """A box of the left half of every window; the picture is seen at half its size."""
    model = unpadded("conv")
    numbers = model.get_layer("box_numbers")
    kernel, _ = numbers.get_weights()
    numbers.set_weights([kernel * 0, np.float32([0.5, 0, 0, 1])])  # the corners are put in order
    image = np.zeros((62, 62, 3), np.uint8)
    looks = SlidingWindow(model, offsets=False)(image, 31)
    assert looks.size == (31, 31) and looks.scores.shape == (3, 3, 4) and looks.boxes.shape == (3, 3, 1, 4)
    np.testing.assert_allclose(looks.places[1, 2], [24, 12, 62, 50], atol=1e-4)
    np.testing.assert_allclose(looks.boxes[1, 2, 0], [24, 12, 43, 50], atol=1e-4)
    mirrored = SlidingWindow(model, offsets=False)(image, 31, flip=True)
    np.testing.assert_allclose(mirrored.boxes[1, 0, 0], [43, 12, 62, 50], atol=1e-4)


def test_a_net_without_boxes_gives_its_windows():
    looks = SlidingWindow(unpadded(), offsets=False)(np.zeros((31, 31, 3), np.uint8), 31)
    np.testing.assert_allclose(looks.boxes[:, :, 0], looks.places)


A, B, C = [0, 0, 10, 10], [2, 0, 12, 10], [30, 30, 40, 40]


def test_match_score_by_hand():
    """A and B: 2 of 10 apart, 80 of 120 shared."""
    a, b, c = map(np.float64, (A, B, C))
    assert overfeat.match_score(a, a) == 0
    assert overfeat.match_score(a, b) == pytest.approx(0.2 + 1 - 80 / 120)
    assert overfeat.match_score(a, c) == pytest.approx(3 * np.sqrt(2) + 1)


def test_greedy_merging_by_hand():
    """A and B become their mean with both scores; C stays alone, and is second though its window was the best."""
    boxes, scores = overfeat.merge([A, B, C], [0.4, 0.5, 0.6])
    assert boxes.tolist() == [[1, 0, 11, 10], C] and scores == pytest.approx([0.9, 0.6])
    boxes, scores = overfeat.merge([A, B, C], [0.4, 0.5, 0.6], threshold=0.1)
    assert boxes.tolist() == [C, B, A]


def test_the_nearest_two_are_merged_first():
    """0, 1 and 3 pixels to the right: the first two become 0.5, which with the third becomes 1.75."""
    boxes = np.array([[x, 0, x + 10, 10] for x in (0, 3, 1)], np.float64)
    merged, scores = overfeat.merge(boxes, [1, 1, 1])
    assert merged.tolist() == [[1.75, 0, 11.75, 10]] and scores.tolist() == [3]
    for none in (np.zeros((0, 4)), boxes[:1]):
        assert len(overfeat.merge(none, np.ones(len(none)))[0]) == len(none)


def look(scores, boxes):
    boxes = np.float32(boxes)[None, :, None]
    return Windows(boxes[:, :, 0], np.float32(scores)[None], boxes, (9, 9))


def test_classes_are_chosen_at_each_scale_and_merged_over_all():
    """The lecture's numbers: class 0 is the best at both scales, class 1 the second at one, class 2 at the other."""
    first = look([[0.5, 0.3, 0], [0.75, 0.1, 0], [0.6, 0.1, 0.1], [0.8, 0, 0.2]], [A, B, A, B])
    second = look([[0.7, 0, 0.3], [0.1, 0.2, 0.25]], [A, C])
    before, merged = overfeat.localize([first, second], top=2, min_score=0.3)
    assert before.labels.tolist().count(0) == 5 and sorted(set(before.labels.tolist())) == [0, 1, 2]
    assert merged.labels.tolist() == [0, 1, 2]
    assert merged.scores == pytest.approx([0.5 + 0.75 + 0.6 + 0.8 + 0.7, 0.3, 0.3])
    np.testing.assert_allclose(merged.boxes[1], A)


def test_on_a_padded_net_places_are_as_many_as_windows():
    window = SlidingWindow(backbones.classifier("tiny", None, classes=3, size=64))
    assert (window.window, window.step, window.offsets) == (64, 32, 1)
    assert window.maps(picture(128, 96))["scores"].shape == (3, 2, 3)


def test_a_finer_head_slides_with_the_classes():
    model = with_box_head(backbones.classifier("tiny", None, classes=3, size=64), finer=True, per_place=True)
    window = SlidingWindow(model)
    assert window.maps(picture(128, 96))["boxes"].shape == (3, 2, 1, 4)
    image = picture(64, 64)
    alone = model(image[None])["boxes"].numpy()
    np.testing.assert_allclose(window.maps(image)["boxes"][0, 0], alone, atol=1e-4)


def test_a_finer_head_that_reads_below_the_last_pooling_has_no_offsets():
    image = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(4, 4, 4, name="conv")(image)  # 6 x 6
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2, name="pool")(x))
    model = keras.Model(image, keras.layers.Dense(3, name="classes")(x), name="pooled")
    assert SlidingWindow(with_box_head(model, per_place=True)).offsets == 2
    window = SlidingWindow(with_box_head(model, per_place=True, finer=True))
    assert window.offsets == 1 and window.maps(picture(32, 24))["boxes"].shape == (2, 1, 1, 4)


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match="smaller than a window of 19"):
        SlidingWindow(unpadded()).maps(picture(18, 40))
    several = with_box_head(unpadded(), objects=2)
    with pytest.raises(InputError, match="several boxes of no class"):
        SlidingWindow(several)
    with pytest.raises(InputError, match="no one square size"):
        SlidingWindow(backbones.classifier("tiny", None, classes=3, size=(None, None)))
