"""ImageNet's errors and mAP, against plain loops and by hand."""

import numpy as np
import pytest
from evaluation_cases import inclusive

from tfcnn.evaluation import imagenet


def naive_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (a, b))
    return width * height / (area - width * height)


def naive_localization(objects, guesses, images, limit):
    cls = loc = 0.0
    for image in range(images):
        best = sorted((g for g in guesses if g[0] == image), key=lambda g: -g[2])[:limit]
        labels = sorted({o[1] for o in objects if o[0] == image})
        for label in labels:
            boxes = [o[3:] for o in objects if o[:2] == (image, label)]
            mine = [g for g in best if g[1] == label]
            cls += (not mine) / len(labels)
            loc += (not any(naive_iou(g[3:], b) >= 0.5 for g in mine for b in boxes)) / len(labels)
    return cls / images, loc / images


def random_case(seed):
    random = np.random.default_rng(seed)

    def box():
        x, y, w, h = random.integers(1, 12, 4)
        return int(x), int(y), int(x + w), int(y + h)

    objects, found = [], []
    for image in range(20):
        objects += [(image, int(random.integers(0, 3)), 0, *box()) for _ in range(random.integers(1, 4))]
        for _ in range(int(random.integers(0, 9))):
            source = objects[-1] if random.random() < 0.5 else (image, int(random.integers(0, 4)), 0, *box())
            found.append((image, source[1], round(random.random(), 1), *source[3:]))
    return objects, [found[i] for i in random.permutation(len(found))]


@pytest.mark.parametrize("seed", range(10))
def test_localization_equals_the_formula(seed):
    objects, guesses = random_case(seed)
    ours = imagenet.localization(*inclusive(objects, guesses, 20), 4)
    for limit in (1, 5):
        cls, loc = naive_localization(objects, guesses, 20, limit)
        assert [ours[f"top{limit}_cls"], ours[f"top{limit}_loc"]] == pytest.approx([cls, loc], abs=1e-12)
    assert list(ours) == ["top1_cls", "top5_cls", "top1_loc", "top5_loc"]


def test_the_sixth_guess_is_not_heard_and_a_half_is_enough():
    wrong = [(0, 1, 0.9 - i / 10, 1, 1, 10, 10) for i in range(5)]
    right = (0, 0, 0.1, 1, 1, 10, 5)  # half of the object
    objects = [(0, 0, 0, 1, 1, 10, 10)]
    assert imagenet.localization(*inclusive(objects, [*wrong, right], 1), 2)["top5_cls"] == 1
    ours = imagenet.localization(*inclusive(objects, [*wrong[:4], right], 1), 2)
    assert ours == {"top1_cls": 1, "top5_cls": 0, "top1_loc": 1, "top5_loc": 0}


def naive_detection(objects, detections, label):
    mine = [o for o in objects if o[1] == label]
    if not mine:
        return np.nan
    taken, hits = set(), []
    ranked = sorted((d for d in detections if d[1] == label), key=lambda d: (-d[2], d[0]))
    for image, _, _, *box in ranked:
        best, which = -1.0, None
        for index, (its, _, _, *true) in enumerate(mine):
            w, h = true[2] - true[0] + 1, true[3] - true[1] + 1
            iou = naive_iou(box, true)
            if (
                its == image
                and index not in taken
                and iou >= min(0.5, w * h / ((w + 10) * (h + 10)))
                and iou > best
            ):
                best, which = iou, index
        hits.append(which is not None)
        taken.add(which)
    tp = np.cumsum(hits)
    precision = np.append(np.maximum.accumulate((tp / np.arange(1, len(tp) + 1))[::-1])[::-1], 0)
    return sum(precision[np.flatnonzero(hits)]) / len(mine)


@pytest.mark.parametrize("seed", range(10))
def test_detection_equals_the_rules(seed):
    objects, detections = random_case(seed)
    ours = imagenet.detection(*inclusive(objects, detections, 20), ["a", "b", "c", "d"])
    theirs = [naive_detection(objects, detections, label) for label in range(4)]
    assert [n["ap"] for n in ours["per_class"].values()] == pytest.approx(theirs, abs=1e-12, nan_ok=True)
    assert ours["map"] == pytest.approx(np.nanmean(theirs), abs=1e-12)


def test_a_small_object_asks_for_less_overlap():
    small, large = (0, 0, 0, 1, 1, 10, 10), (1, 0, 0, 1, 1, 100, 100)  # 10 px asks 100 / 400, 100 px 0.5
    detections = [(0, 0, 0.9, 1, 1, 10, 3), (1, 0, 0.8, 1, 1, 100, 30)]  # IoU 0.3 with each
    ours = imagenet.detection(*inclusive([small, large], detections, 2), ["a"])
    assert ours["per_class"]["a"]["ap"] == pytest.approx(0.5, abs=1e-12)


def test_a_detection_takes_the_second_best_object_where_the_best_is_taken():
    objects = [(0, 0, 0, 1, 1, 40, 40), (0, 0, 0, 1, 11, 40, 50)]
    detections = [(0, 0, 0.9, 1, 1, 40, 40), (0, 0, 0.8, 1, 4, 40, 43)]
    assert imagenet.detection(*inclusive(objects, detections, 1), ["a"])["map"] == pytest.approx(1, abs=1e-12)


def test_of_equal_overlaps_the_files_first_object_is_taken():
    objects = [(0, 0, 0, 1, 1, 40, 40), (0, 0, 0, 1, 9, 40, 48)]
    detections = [
        (0, 0, 0.9, 1, 5, 40, 44),
        (0, 0, 0.8, 1, 20, 40, 59),
    ]  # the second reaches only the second object
    assert imagenet.detection(*inclusive(objects, detections, 1), ["a"])["map"] == pytest.approx(1, abs=1e-12)
    swapped = imagenet.detection(*inclusive(objects[::-1], detections, 1), ["a"])
    assert swapped["map"] == pytest.approx(0.5, abs=1e-12)
