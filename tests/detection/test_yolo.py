"""YOLO: one cell's target and loss by hand, the loss against plain loops, decoding, and the papers' networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcnn import backbones
from tfcnn.detection import yolo
from tfcnn.errors import InputError


@pytest.fixture
def unallocated():
    """Models in it have shapes, and no memory for their weights."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


TERMS = ("xy", "wh", "object", "no_object", "class")


def output_of(probability, confidence, place):
    """The network's output in darknet's order, from [N, S, S, K], [N, S, S, B] and [N, S, S, B, 4]."""
    rows = [np.reshape(part, (len(part), -1)) for part in (probability, confidence, place)]
    return np.concatenate(rows, axis=1).astype(np.float32)


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def plain_losses(probability, confidence, place, boxes, labels):
    """The paper's equation 3 for one picture, cell after cell."""
    grid, count, classes = probability.shape[0], confidence.shape[-1], probability.shape[-1]
    terms = dict.fromkeys(TERMS, 0.0)
    of_cell = {}
    for box, label in zip(boxes, labels, strict=True):
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        cell = min(int(grid * cy), grid - 1), min(int(grid * cx), grid - 1)
        if label >= 0:
            of_cell.setdefault(cell, (box, label))
    for row in range(grid):
        for column in range(grid):
            found = []
            for x, y, root_w, root_h in place[row, column]:
                cx, cy, w, h = (column + x) / grid, (row + y) / grid, root_w**2, root_h**2
                found.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
            responsible = None
            if (row, column) in of_cell:
                box, label = of_cell[row, column]
                shares = [iou(each, box) for each in found]
                if max(shares) > 0:
                    responsible = int(np.argmax(shares))
                else:
                    wanted = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]
                    centers = [
                        ((e[0] + e[2]) / 2, (e[1] + e[3]) / 2, e[2] - e[0], e[3] - e[1]) for e in found
                    ]
                    responsible = int(np.argmin([np.sum((np.array(c) - wanted) ** 2) for c in centers]))
                x, y, root_w, root_h = place[row, column, responsible]
                cx, cy = (box[0] + box[2]) / 2 * grid - column, (box[1] + box[3]) / 2 * grid - row
                w, h = box[2] - box[0], box[3] - box[1]
                terms["xy"] += 5 * ((x - cx) ** 2 + (y - cy) ** 2)
                terms["wh"] += 5 * ((root_w - np.sqrt(w)) ** 2 + (root_h - np.sqrt(h)) ** 2)
                terms["object"] += (confidence[row, column, responsible] - shares[responsible]) ** 2
                for index in range(classes):
                    terms["class"] += (probability[row, column, index] - (index == label)) ** 2
            for index in range(count):
                if index != responsible:
                    terms["no_object"] += 0.5 * confidence[row, column, index] ** 2
    return terms


def losses(probability, confidence, place, boxes, labels, **options):
    grid, count, classes = probability.shape[1], confidence.shape[-1], probability.shape[-1]
    found = yolo.yolo_losses(
        tf.constant(output_of(probability, confidence, place)),
        tf.constant(np.reshape(boxes, (len(probability), -1, 4)), tf.float32),
        tf.constant(np.reshape(labels, (len(probability), -1)), tf.int32),
        grid=grid,
        boxes=count,
        classes=classes,
        **options,
    )
    assert tuple(found) == TERMS
    return {name: value.numpy() for name, value in found.items()}


def test_one_cell_by_hand():
    # One cell, two boxes, two classes. The object is (.25, .25, .75, .75) of class 1: centre .5, sides .5.
    place = np.zeros((1, 1, 1, 2, 4))
    place[0, 0, 0, 0] = 0.5, 0.5, np.sqrt(0.5), 1.0  # (.25, 0, .75, 1): IoU .25 / .5 = 1/2, responsible
    place[0, 0, 0, 1] = 0.9, 0.9, 0.2, 0.2  # too far to the corner
    confidence = np.array([[[[0.7, 0.4]]]])
    probability = np.array([[[[0.3, 0.6]]]])
    found = losses(probability, confidence, place, [[0.25, 0.25, 0.75, 0.75]], [1])
    assert found["xy"] == pytest.approx(0)
    assert found["wh"] == pytest.approx(5 * (1 - np.sqrt(0.5)) ** 2)
    assert found["object"] == pytest.approx((0.7 - 0.5) ** 2)
    assert found["no_object"] == pytest.approx(0.5 * 0.4**2)
    assert found["class"] == pytest.approx(0.3**2 + 0.4**2)


@pytest.mark.parametrize(("grid", "count"), [(2, 1), (3, 2), (7, 2), (8, 3)])
def test_the_loss_is_that_of_plain_loops(grid, count):
    rng = np.random.default_rng(grid)
    probability = rng.uniform(0, 1, (3, grid, grid, 4))
    confidence = rng.uniform(0, 1, (3, grid, grid, count))
    place = rng.uniform(0.05, 0.95, (3, grid, grid, count, 4))
    low = rng.uniform(0, 0.6, (3, 6, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.4, (3, 6, 2))], axis=-1)
    boxes[0, 1] = boxes[0, 0] + 1e-3  # two objects in one cell: the first keeps it
    boxes[1, 0] = 0.0, 0.0, 0.01, 0.01  # far from every box of its cell, perhaps
    labels = rng.integers(0, 4, (3, 6))
    labels[2, 3:] = -1
    found = losses(probability, confidence, place, boxes, labels)
    for picture in range(3):
        wanted = plain_losses(
            probability[picture], confidence[picture], place[picture], boxes[picture], labels[picture]
        )
        for name in TERMS:
            assert found[name][picture] == pytest.approx(wanted[name], rel=1e-4), name


def test_cells_inside_an_ignored_object_are_no_background():
    """2 x 2 cells, all with confidence 1: the crowd covers the left half, an object lies in the cell on top of it."""
    shape = (1, 2, 2, 1)
    place = np.full((*shape, 4), 0.5)
    arguments = (np.zeros((1, 2, 2, 1)), np.ones(shape), place)
    boxes, labels = [[0.0, 0.0, 0.5, 1.0], [0.1, 0.1, 0.4, 0.4]], [-1, 0]
    ignore = tf.constant([[True, False]])
    assert losses(*arguments, boxes, labels)["no_object"] == pytest.approx(0.5 * 3)
    found = losses(*arguments, boxes, labels, ignore=ignore)
    assert (
        found["no_object"] == pytest.approx(0.5 * 2) and found["object"] > 0
    )  # the cell below the object is free
    found = losses(*arguments, boxes, labels, ignore=ignore, ignore_overlap=1.0)
    assert found["no_object"] == pytest.approx(0.5 * 3)


def test_without_overlap_the_nearest_box_is_responsible():
    place = np.zeros((1, 1, 1, 2, 4))
    place[0, 0, 0, 0] = 0.9, 0.9, 0.1, 0.1
    place[0, 0, 0, 1] = 0.3, 0.3, 0.1, 0.1
    found = losses(np.zeros((1, 1, 1, 1)), np.array([[[[1.0, 0.0]]]]), place, [[0.05, 0.05, 0.15, 0.15]], [0])
    assert found["no_object"] == pytest.approx(0.5)  # the first box is not responsible, and says 1
    assert found["object"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("grid", "box", "row", "column", "place"),
    [
        (2, [0.25, 0.25, 0.75, 0.75], 1, 1, (0, 0)),  # centre (1/2, 1/2), where four cells meet: the next
        (7, [2 / 7, 5 / 7, 4 / 7, 1], 6, 3, (0, 0)),  # centre (3/7, 6/7)
        (7, [0.25, 0.25, 0.5, 0.5], 2, 2, (0.625, 0.625)),  # centre 3/8, 21/8 cells from the corner
        (8, [0.5, 0.125, 1.5, 0.5], 2, 7, (1, 0.5)),  # centre (1, 5/16), on the right border: the last column
        (7, [0.25, 0.5, 0.5, 1.5], 6, 2, (0.625, 1)),  # centre (3/8, 1), on the lower border: the last row
    ],
)
def test_an_object_on_the_border_of_cells_is_one_cells_alone(grid, box, row, column, place):
    """The cell that is to answer gives the object as it is, the others nothing: no term but no_object is above 0."""
    sides = np.sqrt([box[2] - box[0], box[3] - box[1]])

    def terms(row, column):
        probability, confidence = np.zeros((1, grid, grid, 1)), np.zeros((1, grid, grid, 1))
        places = np.zeros((1, grid, grid, 1, 4))
        probability[0, row, column] = confidence[0, row, column] = 1
        places[0, row, column] = *place, *sides
        return losses(probability, confidence, places, [box], [0])

    right = terms(row, column)
    assert all(right[name] == pytest.approx(0, abs=1e-5) for name in TERMS), right
    for away in ((row - 1, column), (row, column - 1)):  # the cells on the other side of the border
        assert terms(*away)["class"] == pytest.approx(1) and terms(*away)["no_object"] == pytest.approx(0.5)


def test_without_objects_only_confidence_counts():
    confidence = np.full((2, 3, 3, 2), 0.5)
    for count in (0, 4):
        found = losses(
            np.ones((2, 3, 3, 5)),
            confidence,
            np.ones((2, 3, 3, 2, 4)),
            np.zeros((2, count, 4)),
            -np.ones((2, count)),
        )
        assert found["no_object"] == pytest.approx(0.5 * 18 * 0.25)
        assert all(np.all(found[name] == 0) for name in TERMS if name != "no_object")


def test_the_target_iou_passes_no_gradient():
    output = tf.Variable(
        output_of(np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 1, 1)), np.full((1, 1, 1, 1, 4), 0.5))
    )
    with tf.GradientTape() as tape:
        terms = yolo.yolo_losses(
            output, tf.constant([[[0.2, 0.2, 0.9, 0.9]]]), tf.constant([[0]]), grid=1, boxes=1, classes=1
        )
    gradient = tape.gradient(terms["object"], output).numpy()[0]
    assert gradient[1] < 0 and np.all(gradient[2:] == 0)


def test_a_box_comes_back_at_its_own_pixels_with_probability_times_confidence():
    place = np.zeros((1, 2, 2, 1, 4))
    place[0, 1, 0, 0] = 0.5, 0.25, np.sqrt(0.4), np.sqrt(0.3)  # centre (.25, .625), sides .4 and .3
    probability, confidence = np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 1))
    probability[0, 1, 0, 2], confidence[0, 1, 0, 0] = 0.8, 0.5
    boxes, scores = yolo.decode(tf.constant(output_of(probability, confidence, place)), 200, 100, 2, 1, 3)
    np.testing.assert_allclose(boxes[0, 2], [5, 95, 45, 155], atol=1e-4)
    np.testing.assert_allclose(scores[0, 2], [0, 0, 0.4], atol=1e-6)
    assert not np.any(scores.numpy()[0, [0, 1, 3]])


def test_boxes_are_cut_to_the_picture():
    place = np.full((1, 1, 1, 1, 4), 1.5)
    boxes, _ = yolo.decode(
        tf.constant(output_of(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), place)), 10, 20, 1, 1, 1
    )
    np.testing.assert_allclose(boxes[0, 0], [7.5, 3.75, 20, 10], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "hidden", "weights", "convolutions", "widths"),
    [
        ("yolo", yolo.YOLO_HIDDEN, 271_703_550, 24, [4096, 1470]),
        ("fast_yolo", yolo.FAST_YOLO_HIDDEN, 45_089_374, 9, [256, 4096, 1470]),
    ],
)
def test_the_papers_networks_have_their_layers_slopes_and_weights(
    name, hidden, weights, convolutions, widths, unallocated
):
    model = yolo.yolo(backbones.backbone(name, None), 20, hidden=hidden)
    assert model.count_params() == weights
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(keras.layers.Conv2D) == convolutions
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == widths
    leaky = [layer for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)]
    assert len(leaky) == convolutions + 1  # after each convolution and the dense layer of 4096, nowhere else
    assert all(layer.negative_slope == 0.1 for layer in leaky)  # the paper's equation 2
    linear = [layer for layer in model.layers if hasattr(layer, "activation")]
    assert all(layer.activation is keras.activations.linear for layer in linear)
    assert model.get_layer("output").output.shape == (None, 7 * 7 * 30)


@pytest.mark.parametrize(("size", "passthrough"), [(64, 0), (64, 4), (72, 4)])  # 72: maps of odd sides
def test_every_weight_of_a_small_yolo_learns_and_the_model_comes_back_from_its_file(
    tmp_path, size, passthrough
):
    model = yolo.yolo(
        backbones.backbone("tiny", None),
        3,
        size=size,
        grid=5,
        passthrough=passthrough,
        convolutions=(8,),
        channels=4,
        hidden=((16, "leaky"),),
        dropout=0.0,
        score_threshold=0.0,
    )
    image = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    raw = keras.Model(model.inputs, model.get_layer("output").output)
    with tf.GradientTape() as tape:
        terms = yolo.yolo_losses(
            raw(image, training=True),
            tf.constant([[[0.2, 0.2, 0.9, 0.9]], [[0.0, 0.0, 0.3, 0.2]]]),
            tf.constant([[0], [2]]),
            grid=5,
            boxes=2,
            classes=3,
        )
        loss = sum(tf.reduce_sum(term) for term in terms.values())
    for weight, gradient in zip(
        raw.trainable_weights, tape.gradient(loss, raw.trainable_weights), strict=True
    ):
        assert gradient is not None and np.any(gradient.numpy() != 0), weight.path
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for name, value in model(image).items():
        np.testing.assert_array_equal(value, again(image)[name])


def test_what_passes_through_is_the_deepest_map_of_half_the_stride():
    backbone = backbones.backbone("efficientnet_lite0", None)
    model = yolo.yolo(backbone, 2, size=96, grid=3, passthrough=8, channels=4, hidden=())
    source = model.get_layer("neck_passthrough").input
    assert source is backbone.output["stage5"] and source.shape[-1] == 112
    with pytest.raises(InputError, match="no endpoint of stride 16"):
        lonely = backbones.backbone("efficientnet_lite0", None, ["stage7"])
        yolo.yolo(lonely, 2, size=96, grid=3, passthrough=8)


def test_an_earlier_map_is_read_and_what_follows_it_is_left_out():
    backbone = backbones.backbone("efficientnet_lite0", None)
    model = yolo.yolo(backbone, 2, size=96, grid=3, endpoint="stage6", channels=4, hidden=())
    assert model.get_layer("neck_narrow").input is backbone.output["stage6"]
    later = {layer.name for layer in backbone.layers} - {layer.name for layer in model.layers}
    assert later and all(name.startswith(("block15", "head")) for name in later), later
    with pytest.raises(InputError, match="stage66.*stage6"):
        yolo.yolo(backbone, 2, size=96, grid=3, endpoint="stage66")


def test_few_channels_enter_the_dense_layers_without_a_rectifier():
    model = yolo.yolo(backbones.backbone("tiny", None), 3, size=64, grid=5, channels=4, hidden=())
    narrow = model.get_layer("neck_narrow")
    assert model.get_layer("flatten").input is narrow.output
    assert narrow.activation is keras.activations.linear


def test_more_cells_than_pixels_are_refused():
    with pytest.raises(InputError, match="4 pixels"):
        yolo.yolo(backbones.backbone("tiny", None), 3, size=4, grid=7)
