"""Methods of proposals: small pictures whose regions and boxes are known."""

import types

import numpy as np
import pytest

from tfcnn.detection import proposals
from tfcnn.detection.proposals import (
    baselines,
    bing,
    edge_boxes,
    edges,
    segmentation,
)
from tfcnn.detection.proposals import (
    selective_search as search,
)
from tfcnn.errors import InputError


def iou(one, two):
    """By the definition, for two boxes."""
    wide = max(0, min(one[2], two[2]) - max(one[0], two[0]))
    high = max(0, min(one[3], two[3]) - max(one[1], two[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return wide * high / (sum(areas) - wide * high)


@pytest.fixture(scope="module")
def scene():
    """A red square and a blue disc on grey, 96 x 64, and the boxes around them."""
    image = np.full((64, 96, 3), 128, np.uint8)
    image[10:40, 8:38] = (200, 30, 30)
    y, x = np.mgrid[:64, :96]
    image[(x - 70) ** 2 + (y - 36) ** 2 <= 15**2] = (30, 40, 200)
    return image, np.float32([[8, 10, 38, 40], [55, 21, 86, 52]])


def quadrants():
    """Four regions of 2 x 2 pixels in a picture of 4 x 4."""
    return np.int32(np.kron([[0, 1], [2, 3]], np.ones((2, 2))))


def test_regions_that_touch_at_a_corner_are_neighbours():
    pairs = segmentation.neighbours(quadrants()).tolist()
    assert pairs == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert segmentation.neighbours(np.int32([[0, 0, 1, 2]])).tolist() == [[0, 1], [1, 2]]


def test_boxes_of_regions_are_those_of_a_loop():
    labels = np.random.default_rng(0).integers(0, 6, (9, 13)).astype(np.int32)
    for label, box in enumerate(segmentation.region_boxes(labels)):
        y, x = np.nonzero(labels == label)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_normalised_colours_do_not_change_with_brightness():
    dark = np.uint8([[[40, 20, 20]]])
    assert segmentation.in_space(dark, "rgi")[0, 0].tolist() == [127, 63, 26]
    assert segmentation.in_space(2 * dark, "rgi")[0, 0].tolist() == [127, 63, 53]


def test_histograms_count_each_regions_pixels():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = 255  # region 0 alone is white
    found = search.regions(quadrants(), search.appearance(image))
    assert found.sizes.tolist() == [4, 4, 4, 4]
    colour = found.histograms[:, : search.COLOURS].reshape(4, 3, 25)
    assert colour[0, :, 24] == pytest.approx([1 / 3] * 3) and colour[1, :, 0] == pytest.approx([1 / 3] * 3)
    np.testing.assert_allclose(found.histograms[:, : search.COLOURS].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found.histograms[:, search.COLOURS :].sum(axis=1), 1, rtol=1e-6)


def plain_merges(start, weights, area):
    """The paper's algorithm 1 as a loop over sets of regions: the boxes in the order of the merges."""
    alive = {i: (start.sizes[i], start.boxes[i], start.histograms[i]) for i in range(len(start.sizes))}
    near = {frozenset(pair) for pair in start.pairs.tolist()}

    def similarity(pair):
        (size_a, box_a, hist_a), (size_b, box_b, hist_b) = (alive[i] for i in sorted(pair))
        common = np.minimum(hist_a, hist_b)
        wide, high = np.maximum(box_a[2:], box_b[2:]) - np.minimum(box_a[:2], box_b[:2])
        size = size_a + size_b
        parts = common[: search.COLOURS].sum(), common[search.COLOURS :].sum(), 1 - size / area
        return np.dot(weights, [*parts, 1 - (wide * high - size) / area])

    boxes, new = [], len(alive)
    while near:
        best = max(near, key=similarity)
        (size_a, box_a, hist_a), (size_b, box_b, hist_b) = (alive.pop(i) for i in best)
        box = [*np.minimum(box_a[:2], box_b[:2]), *np.maximum(box_a[2:], box_b[2:])]
        mixed = (size_a * hist_a + size_b * hist_b) / (size_a + size_b)
        alive[new] = size_a + size_b, np.float32(box), mixed
        touched = {pair for pair in near if pair & best}
        near -= touched
        near |= {frozenset([*(pair - best), new]) for pair in touched if pair != best}
        boxes.append(box)
        new += 1
    return boxes


def test_merging_several_hierarchies_in_step_is_the_plain_algorithm_on_each():
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    codes = search.appearance(image)
    kinds, starts = [search.ALL, search.NO_COLOUR, (0.25, 1, 0.5, 2)], []
    for cells in (6, 4, 6):
        labels = np.kron(np.arange(cells**2).reshape(cells, cells), np.ones((24 // cells,) * 2))
        starts.append(search.regions(labels.astype(np.int32), codes))
    found = search.merged(starts, kinds, image[..., 0].size)
    for start, kind, (boxes, places) in zip(starts, kinds, found, strict=True):
        count = len(start.sizes)
        assert boxes[:count].tolist() == start.boxes.tolist()
        assert boxes[count:].tolist() == np.float32(plain_merges(start, kind, 576)).tolist()
        assert places.tolist() == list(range(2 * count - 1, 0, -1))
        assert boxes[-1].tolist() == [0, 0, 24, 24]


@pytest.mark.parametrize("method", ["selective_search", "selective_search_quality", "edge_boxes"])
def test_the_objects_of_a_scene_are_found(scene, method):
    image, boxes = scene
    found = proposals.proposer(method, count=100, search="own")(
        image
    )  # OpenCV's is loose in so small a picture
    assert found.shape[1] == 5 and found.dtype == np.float32 and (np.diff(found[:, 4]) <= 0).all()
    for box in boxes:
        assert max(iou(row, box) for row in found) > 0.8
    assert (found[:, :2] >= 0).all() and (found[:, 2:4] <= (96, 64)).all()
    assert len(np.unique(found[:, :4], axis=0)) == len(found)


@pytest.mark.parametrize("method", [name for name in proposals.METHODS if name != "rpn"])
def test_every_method_takes_any_picture_and_repeats_itself(method):
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, 40), (40, 3), (30, 44)):
        for image in (np.zeros((*shape, 3), np.uint8), random.integers(0, 256, (*shape, 3)).astype(np.uint8)):
            found = proposals.proposer(method, count=50)(image)
            again = proposals.proposer(method, count=50)(image)
            assert found.shape[1:] == (5,) and len(found) <= 50 and np.isfinite(found).all()
            np.testing.assert_array_equal(found, again)


def test_a_large_picture_is_looked_at_reduced_and_answered_in_its_own_pixels(scene):
    image, boxes = scene
    large = np.kron(image, np.ones((4, 4, 1), np.uint8))
    found = proposals.proposer("selective_search", count=100, longest=96)(large)
    assert max(iou(row, 4 * boxes[0]) for row in found) > 0.8


def test_wrong_requests_are_named():
    with pytest.raises(InputError, match="selective_search"):
        proposals.proposer("selective_serch")
    with pytest.raises(InputError, match="count=0"):
        proposals.proposer("uniform", count=0)
    with pytest.raises(InputError, match="Faster R-CNN"):
        proposals.proposer("rpn")
    with pytest.raises(InputError, match="no.json"):
        proposals.proposer("bing", bing_weights="no.json")


def test_the_search_of_edge_boxes_is_opencvs_where_it_is_installed(monkeypatch):
    contrib = types.SimpleNamespace(createEdgeBoxes=None)
    monkeypatch.setattr(edge_boxes.cv2, "ximgproc", contrib, raising=False)
    assert edge_boxes.search_of() == "contrib" and edge_boxes.search_of("own") == "own"
    monkeypatch.delattr(contrib, "createEdgeBoxes")  # what an uninstalled package may leave behind
    assert edge_boxes.search_of() == "own"
    monkeypatch.delattr(edge_boxes.cv2, "ximgproc")
    assert edge_boxes.search_of() == "own"
    with pytest.raises(InputError, match="opencv-contrib-python-headless"):
        proposals.proposer("edge_boxes", search="contrib")
    with pytest.raises(InputError, match="contrib"):
        proposals.proposer("edge_boxes", search="conrtib")


def test_sliding_windows_of_a_size_stand_in_an_even_grid():
    image = np.zeros((400, 500, 3), np.uint8)
    boxes, _ = baselines.sliding_window(image, 10_000)
    chosen = boxes[np.abs(boxes[:, 2:] - boxes[:, :2] - (160, 40)).max(axis=1) < 1e-3]
    x, y = (np.unique(chosen[:, axis].round(2)) for axis in (0, 1))
    assert (
        len(x) * len(y) >= len(chosen) > 0.9 * len(x) * len(y) > 100
    )  # some are beyond the number asked for
    assert np.ptp(np.diff(x)) < 0.03 and np.diff(x)[0] == pytest.approx(np.diff(y)[0], abs=0.03)
    assert x[0] == pytest.approx(500 - chosen[:, 2].max(), abs=0.03)  # centred


def test_drawn_boxes_have_the_statistics_that_they_are_drawn_from():
    image = np.zeros((300, 400, 3), np.uint8)
    boxes, _ = baselines.gaussian(image, 4000)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / (400, 300)
    assert centre.mean(axis=0) == pytest.approx(baselines.MEAN[2:], abs=0.03)
    boxes, _ = baselines.uniform(image, 4000)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (400, 300)).all()


# ------------------------------------------------------------------------------------- edge boxes


def frame():
    """Groups: the four sides of a rectangle (20, 20, 60, 50) and a line far from it that crosses x = 80."""
    boxes = np.int32(
        [[20, 20, 60, 21], [20, 49, 60, 50], [20, 21, 21, 49], [59, 21, 60, 49], [70, 60, 90, 61]]
    )
    magnitudes = np.float32([40, 40, 28, 28, 20])
    return boxes, magnitudes


def groups_of(boxes, magnitudes, affinities):
    from scipy import sparse

    return edges.Groups(boxes, magnitudes, sparse.csr_array(np.float32(affinities)))


def test_a_box_scores_what_lies_wholly_inside_but_in_its_middle():
    groups = groups_of(*frame(), np.eye(5))
    whole, cut, around = [18, 18, 62, 52], [18, 18, 62, 40], [0, 0, 100, 80]
    found = edge_boxes.box_scores(groups, np.float32([whole, cut, around]))
    # the middle of `around` is (25, 20, 75, 60): by their lower right pixels it has the rectangle's lower and right
    # sides and its upper side, not the left one
    expected = [
        136 / ((44 + 34) / 2) ** 1.5,
        40 / ((44 + 22) / 2) ** 1.5,
        (28 + 20) / ((100 + 80) / 2) ** 1.5,
    ]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_group_like_one_that_crosses_the_box_counts_less():
    affinities = np.eye(5)
    affinities[0, 2] = affinities[2, 0] = 0.25
    cut = np.float32([[18, 18, 62, 40]])  # the left side, group 2, crosses
    found = edge_boxes.box_scores(groups_of(*frame(), affinities), cut)
    assert found[0] == pytest.approx(0.75 * 40 / 33**1.5, rel=1e-5)


def test_bounds_of_a_grid_are_the_scores_without_affinities():
    groups = groups_of(*frame(), np.eye(5))
    across, down = np.float32([[0, 64], [10, 74], [30, 94]]), np.float32([[0, 60], [15, 75]])
    boxes = [[x1, y1, x2, y2] for y1, y2 in down for x1, x2 in across]
    found = edge_boxes.grid_bounds(groups, across, down)
    assert found == pytest.approx(edge_boxes.box_scores(groups, np.float32(boxes)), rel=1e-5)


def test_edges_of_a_step_are_one_line_along_it():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 200
    magnitude, orientation = edges.edge_map(image)
    y, x = np.nonzero(magnitude > 0.5)
    assert set(x) <= {29, 30} and len(np.unique(y)) == 38
    assert np.abs(orientation[y, x] - np.pi / 2).max() < 0.05
    groups = edges.grouped(magnitude, orientation)
    assert 1 <= len(groups.boxes) <= 2 and groups.boxes[0, 3] - groups.boxes[0, 1] >= 37


def test_a_contour_that_bends_has_less_affinity_than_one_that_runs_on():
    magnitude, orientation = np.zeros((2, 40, 80), np.float32)
    magnitude[20, 5:25], magnitude[20, 26:46] = 1, 1  # two pieces of one line, a pixel apart
    magnitude[22:38, 46] = 1  # and one at a right angle to them
    orientation[22:38, 46] = np.pi / 2
    groups = edges.grouped(magnitude, orientation)
    order = np.argsort(groups.boxes[:, 0])
    table = groups.affinities.toarray()[order][:, order]
    assert table[0, 1] == pytest.approx(1, abs=1e-3) and table[1, 2] < 0.5
    assert np.diag(table) == pytest.approx(1)


# ------------------------------------------------------------------------------------------- bing


def test_normed_gradients_are_the_steps_of_the_best_channel():
    image = np.zeros((3, 4, 3), np.uint8)
    image[:, 2:, 1] = 100
    image[2, :, 2] = 200
    found = bing.normed_gradients(image)
    assert found[0].tolist() == [0, 100, 100, 0]
    assert found[1].tolist() == [200, 200, 200, 200]


def test_bing_learns_to_find_squares():
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(12):
        image = random.integers(0, 30, (200, 250, 3)).astype(np.uint8)
        x, y = random.integers(10, 120, 2)
        image[y : y + 40, x : x + 40] += 180
        pictures.append((image, np.float32([[x, y, x + 40, y + 40]])))
    weights = bing.train_bing(lambda: pictures)
    assert (
        weights.filter[2:6, 2:6].mean() < weights.filter[[0, -1]].mean()
    )  # edges of a square, not its inside
    hits = [
        max(iou(row, boxes[0]) for row in bing.bing(image, 20, weights=weights)[0])
        for image, boxes in pictures
    ]
    assert np.mean(np.array(hits) > 0.5) > 0.8


def test_weights_of_bing_come_back_from_their_file(tmp_path):
    weights = bing.Weights(np.arange(64).reshape(8, 8) / 64, {(10, 20): (0.5, -1.0)})
    bing.save(weights, tmp_path / "bing.json")
    again = bing.Weights.read(tmp_path / "bing.json")
    np.testing.assert_allclose(again.filter, weights.filter, rtol=1e-4)
    assert again.sizes == weights.sizes
