"""VOC's average precision equals the devkit's rules, written here once more as plain loops."""

import dataclasses

import numpy as np
import pytest
from evaluation_cases import inclusive

from tfcnn.detections import Detections
from tfcnn.evaluation import voc

CLASSES = ["a", "b", "c"]


def naive(objects, detections, label, strict):
    """One class by VOCevaldet.m, or by voc_eval.py where strict: (11-point, area, raw)."""
    mine = [o for o in objects if o[1] == label]
    npos = sum(not o[2] for o in mine)
    if not npos:
        return [np.nan] * 3
    ranked = sorted((d for d in detections if d[1] == label), key=lambda d: -d[2])  # stable
    taken = set()
    tp, fp = [], []
    for image, _, _, x1, y1, x2, y2 in ranked:
        best, which = -np.inf, None
        for index, (its, _, _, tx1, ty1, tx2, ty2) in enumerate(mine):
            if its != image:
                continue
            width = min(x2, tx2) - max(x1, tx1) + 1
            height = min(y2, ty2) - max(y1, ty1) + 1
            if width > 0 and height > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (tx2 - tx1 + 1) * (ty2 - ty1 + 1) - width * height
                if width * height / union > best:
                    best, which = width * height / union, index
        hit = best > 0.5 if strict else best >= 0.5
        right = hit and not mine[which][2] and which not in taken
        if right:
            taken.add(which)
        tp.append(right)
        fp.append(not right and not (hit and mine[which][2]))
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall, precision = tp / npos, tp / np.maximum(tp + fp, np.finfo(float).eps)
    points = np.arange(0.0, 1.1, 0.1) if strict else [k / 10 for k in range(11)]
    reached = [
        precision[tp * 10 >= k * npos] if not strict else precision[recall >= t] for k, t in enumerate(points)
    ]
    eleven = sum(p.max() if p.size else 0 for p in reached) / 11
    r, p = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    steps = np.flatnonzero(r[1:] != r[:-1])
    area = ((r[steps + 1] - r[steps]) * p[steps + 1]).sum()
    hits = np.diff(np.concatenate([[0], tp])) > 0
    return [eleven, area, precision[hits].sum() / npos]


def random_case(seed):
    random = np.random.default_rng(seed)

    def box(near=None):
        if near is not None:
            shift = random.integers(-3, 4, 4)
            x1, y1, x2, y2 = np.array(near) + shift
            return int(x1), int(y1), int(max(x1, x2)), int(max(y1, y2))
        x, y = random.integers(1, 30, 2)
        width, height = random.integers(1, 16, 2)
        return int(x), int(y), int(x + width), int(y + height)

    objects, detections = [], []
    for image in range(15):
        here = [
            (image, int(random.integers(0, 2)), int(random.random() < 0.2), *box()) for _ in range(image % 5)
        ]
        objects += here
        for _ in range(int(random.integers(0, 15))):
            if here and random.random() < 0.7:
                one = here[random.integers(len(here))]
                found = (image, one[1], random.random().__round__(1), *box(one[3:]))
            else:
                found = (image, int(random.integers(0, 3)), random.random().__round__(1), *box())
            detections.append(found)
    order = random.permutation(len(detections))
    return objects, [detections[i] for i in order]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_random_cases_with_ties_equal_the_rules(seed, strict):
    objects, detections = random_case(seed)
    ours = voc.evaluate(*inclusive(objects, detections, 15), CLASSES, strict=strict)
    theirs = np.array([naive(objects, detections, label, strict) for label in range(3)])
    for label, name in enumerate(CLASSES):
        numbers = ours["per_class"][name]
        np.testing.assert_allclose(
            [numbers[k] for k in ("ap_11", "ap_area", "ap_raw")], theirs[label], atol=1e-12
        )
    assert [ours["map_11"], ours["map_area"], ours["map_raw"]] == pytest.approx(
        np.nanmean(theirs, 0), abs=1e-12
    )
    assert ours["absent"] == ["c"] and np.isnan(ours["per_class"]["c"]["ap_11"])


# REFERENCES: 1 is a right detection, in the order of scores; objects; raw, 11-point, area.
VECTORS = [
    ([1, 0, 1], 2, 0.833333, 0.848485, 0.833333),
    ([0, 1, 1], 2, 0.583333, 0.666667, 0.666667),
    ([1], 2, 0.5, 0.545455, 0.5),
    ([1, 0, 0, 1, 0, 1], 4, 0.5, 0.5, 0.5),
    ([1, 1, 0, 1, 0, 0, 1], 5, 0.664286, 0.694805, 0.664286),
]


@pytest.mark.parametrize("sequence, truths, raw, eleven, area", VECTORS)
def test_the_three_readings_of_average_precision(sequence, truths, raw, eleven, area):
    found = voc.Outcome(np.array(sequence, np.int8), np.linspace(1, 0, len(sequence)), truths)
    numbers = voc.average_precision(found)
    assert [numbers["ap_raw"], numbers["ap_11"], numbers["ap_area"]] == pytest.approx(
        [raw, eleven, area], abs=1e-6
    )


def test_floating_points_miss_a_recall_of_just_three_fifths():
    found = voc.Outcome(np.array(VECTORS[4][0], np.int8), np.linspace(1, 0, 7), 5)
    assert voc.average_precision(found, float_points=True)["ap_11"] == pytest.approx(0.678571, abs=1e-6)


def test_a_case_where_the_three_differ():
    found = voc.Outcome(np.array([0, 1, 0, 1, 1], np.int8), np.linspace(1, 0, 5), 4)
    # Precision at the hits 1/2, 2/4, 3/5; made non-increasing 3/5 at all of them; recall reaches 3/4.
    numbers = voc.average_precision(found)
    assert numbers["ap_raw"] == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 4, abs=1e-12)
    assert numbers["ap_area"] == pytest.approx(3 / 4 * 3 / 5, abs=1e-12)
    assert numbers["ap_11"] == pytest.approx(8 / 11 * 3 / 5, abs=1e-12)


def outcomes(objects, detections, **how):
    return voc.match(*inclusive(objects, detections, 3), 1, **how)[0].outcome.tolist()


def test_iou_of_just_a_half_is_right_but_not_by_py_faster_rcnn():
    objects = [(0, 0, 0, 1, 1, 10, 10)]
    half = [(0, 0, 0.9, 1, 1, 10, 5)]  # 10 x 5 of 10 x 10 inclusive pixels
    assert outcomes(objects, half) == [voc.TRUE_POSITIVE]
    assert outcomes(objects, half, strict=True) == [voc.FALSE_POSITIVE]


def test_the_best_object_counts_even_when_it_is_taken():
    objects = [(0, 0, 0, 1, 1, 10, 10), (0, 0, 0, 1, 4, 10, 13)]
    detections = [
        (0, 0, 0.9, 1, 1, 10, 10),
        (0, 0, 0.8, 1, 2, 10, 11),
    ]  # the second overlaps both, the first more
    assert outcomes(objects, detections) == [voc.TRUE_POSITIVE, voc.FALSE_POSITIVE]


def test_a_difficult_object_is_neither_right_nor_wrong_however_often():
    objects = [(0, 0, 1, 1, 1, 10, 10), (1, 0, 0, 1, 1, 10, 10)]
    detections = [(0, 0, 0.9, 1, 1, 10, 10), (0, 0, 0.8, 1, 1, 10, 9), (1, 0, 0.7, 1, 1, 10, 10)]
    assert outcomes(objects, detections) == [voc.IGNORED, voc.IGNORED, voc.TRUE_POSITIVE]


def test_detections_far_outside_the_picture_are_not_clipped():
    objects = [(0, 0, 0, 1, 1, 10, 10)]
    assert outcomes(objects, [(0, 0, 0.9, -9, 1, 10, 10)]) == [voc.TRUE_POSITIVE]  # IoU 100 / 200
    assert outcomes(objects, [(0, 0, 0.9, -10, 1, 10, 10)]) == [voc.FALSE_POSITIVE]  # 100 / 210


def test_equal_scores_keep_the_files_order():
    objects = [(0, 0, 0, 1, 1, 10, 10)]
    hit, miss = (0, 0, 0.5, 1, 1, 10, 10), (1, 0, 0.5, 1, 1, 10, 10)
    assert outcomes(objects, [hit, miss]) == [voc.TRUE_POSITIVE, voc.FALSE_POSITIVE]
    assert outcomes(objects, [miss, hit]) == [voc.FALSE_POSITIVE, voc.TRUE_POSITIVE]


def test_nothing_found_is_0_and_nothing_to_find_is_nan():
    empty = voc.evaluate(*inclusive([(0, 0, 0, 1, 1, 5, 5)], [], 1), ["a", "b"])
    assert empty["map_11"] == empty["map_area"] == empty["map_raw"] == 0 and empty["absent"] == ["b"]
    nothing = voc.evaluate(*inclusive([], [(0, 0, 0.5, 1, 1, 5, 5)], 1), ["a"])
    assert np.isnan(nothing["map_11"]) and nothing["per_class"]["a"]["detections"] == 1


def test_detections_by_picture_give_the_same():
    objects, detections = random_case(5)
    truth, results = inclusive(objects, detections, 15)
    results = dataclasses.replace(results, score=np.random.default_rng(0).permutation(len(results)) / 1000)
    by_picture = {}
    for place, image in enumerate(truth.images):
        mine = results.image == place
        by_picture[image] = Detections(results.boxes[mine], results.score[mine], results.label[mine])
    again, once = voc.evaluate(truth, by_picture, CLASSES), voc.evaluate(truth, results, CLASSES)
    assert again["per_class"]["a"] == once["per_class"]["a"] and again["map_raw"] == once["map_raw"] > 0
