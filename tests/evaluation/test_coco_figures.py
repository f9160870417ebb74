"""COCO's twelve figures equal pycocotools'."""

import contextlib
import io

import numpy as np
import pytest
from evaluation_cases import random_case, tables

from tfcnn.detections import Detections
from tfcnn.evaluation import coco

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def official(truth, results):
    pytest.importorskip("pycocotools", reason="pycocotools is the oracle (pip install 'tfcnn[test]')")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = truth
        data.createIndex()
        evaluator = COCOeval(data, data.loadRes([dict(r) for r in results]), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(value) for value in evaluator.stats], evaluator.eval


def assert_equal(truth, results):
    stats, detail = official(truth, results)
    table, found, classes = tables(truth, results)
    ours = coco.evaluate(table, found, classes)
    assert list(ours)[:12] == NAMES
    np.testing.assert_allclose(
        [-1 if np.isnan(ours[n]) else ours[n] for n in NAMES], stats, rtol=0, atol=1e-12
    )
    order = np.argsort([category["id"] for category in truth["categories"]])  # pycocotools sorts categories
    evaluation = coco.accumulate(table, found, len(classes))
    precision = np.nan_to_num(evaluation.precision, nan=-1.0)[:, :, order]
    np.testing.assert_allclose(precision, detail["precision"][..., 2], rtol=0, atol=1e-12)
    recall = np.nan_to_num(evaluation.recall, nan=-1.0)[:, order]
    np.testing.assert_allclose(recall, detail["recall"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_random_and_adversarial_cases_equal_pycocotools(seed):
    assert_equal(*random_case(seed))


def one(bboxes, results, areas=None, crowds=None, first_id=1):
    """One picture, one class."""
    areas = areas or [w * h for _, _, w, h in bboxes]
    crowds = crowds or [0] * len(bboxes)
    truth = {
        "images": [{"id": 5, "width": 500, "height": 500, "file_name": "5.jpg"}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": first_id + i, "image_id": 5, "category_id": 3, "bbox": b, "area": a, "iscrowd": c}
            for i, (b, a, c) in enumerate(zip(bboxes, areas, crowds, strict=True))
        ],
    }
    found = [{"image_id": 5, "category_id": 3, "bbox": b, "score": s} for b, s in results]
    return truth, found


def figures(truth, results):
    return coco.evaluate(*tables(truth, results))


def test_two_objects_worked_out_by_hand():
    # The first detection hits the first object, the second misses, the third has IoU 0.5 with the second one.
    truth, results = one(
        [[0, 0, 10, 10], [100, 100, 10, 10]],
        [([0, 0, 10, 10], 0.9), ([50, 50, 10, 10], 0.8), ([100, 100, 10, 5], 0.7)],
    )
    ours = figures(truth, results)
    # At 0.5: recall 0.5 at precision 1 (51 recalls of 101), then 2/3 (50 recalls). Above: only the 51.
    assert ours["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
    assert ours["AP75"] == pytest.approx(51 / 101, abs=1e-12)
    assert ours["AP"] == pytest.approx((ours["AP50"] + 9 * 51 / 101) / 10, abs=1e-12)
    assert ours["AR1"] == 0.5 and ours["AR100"] == pytest.approx((1 + 9 * 0.5) / 10, abs=1e-12)
    assert ours["APs"] == ours["AP"] and np.isnan(ours["APm"]) and np.isnan(ours["APl"])
    assert_equal(truth, results)


def test_area_of_just_32_squared_is_small_and_medium():
    truth, results = one(
        [[0, 0, 32, 32], [100, 100, 96, 96]], [([0, 0, 32, 32], 0.9), ([100, 100, 96, 96], 0.8)]
    )
    ours = figures(truth, results)
    assert [ours[name] for name in ("APs", "APm", "APl")] == pytest.approx([1, 1, 1], abs=1e-12)
    assert_equal(truth, results)


def test_only_the_100_best_detections_of_a_picture_and_class_count():
    misses = [([200, 200, 30, 30 + i], 1 - i / 1000) for i in range(100)]
    hit = ([0, 0, 40, 40], 0.5)
    truth, results = one([[0, 0, 40, 40]], [*misses[:99], hit])
    assert figures(truth, results)["AR100"] == 1 and figures(truth, results)["AR10"] == 0
    assert_equal(truth, results)
    truth, results = one([[0, 0, 40, 40]], [*misses, hit])
    assert figures(truth, results)["AR100"] == 0
    assert_equal(truth, results)


def test_a_false_detection_of_just_32_squared_counts_as_small_and_medium():
    truth, results = one(
        [[0, 0, 30, 30], [100, 100, 50, 50]],
        [([300, 300, 32, 32], 0.9), ([0, 0, 30, 30], 0.8), ([100, 100, 50, 50], 0.7)],
    )
    ours = figures(truth, results)
    assert [ours["APs"], ours["APm"]] == pytest.approx([0.5, 0.5], abs=1e-12)
    assert_equal(truth, results)


def test_the_best_object_is_taken_and_of_equals_the_last():
    # Both detections overlap both objects; the first takes the better one, or the second finds nothing at 0.75.
    boxes = [[0, 0, 40, 40], [0, 8, 40, 40]]
    truth, results = one(boxes, [([0, 6, 40, 40], 0.9), ([0, 0, 40, 40], 0.8)])
    assert figures(truth, results)["AP75"] == pytest.approx(1, abs=1e-12)
    assert_equal(truth, results)
    truth, results = one(boxes, [([0, 4, 40, 40], 0.9), ([0, 0, 40, 40], 0.8)])  # as near to both
    assert figures(truth, results)["AP75"] == pytest.approx(1, abs=1e-12)
    assert_equal(truth, results)


def test_annotation_id_0_is_an_object_like_any_other():
    boxes = [[0, 0, 40, 40], [100, 100, 50, 50]]
    hits = [(box, 0.9) for box in boxes]
    from_zero = figures(*one(boxes, hits, first_id=0))
    assert from_zero["AP"] == pytest.approx(1, abs=1e-12)
    assert (
        from_zero["AR100"] == figures(*one(boxes, hits, first_id=1))["AR100"] == pytest.approx(1, abs=1e-12)
    )
    assert official(*one(boxes, hits, first_id=0))[0][0] < 1  # what we do not repeat


def test_a_crowd_takes_any_number_of_detections_and_none_is_wrong():
    results = [([5, 5, 20, 20], 0.9), ([30, 30, 20, 20], 0.8), ([200, 200, 30, 30], 0.7)]
    truth, results = one([[0, 0, 100, 100], [200, 200, 30, 30]], results, crowds=[1, 0])
    assert figures(truth, results)["AP"] == pytest.approx(1, abs=1e-12)
    assert_equal(truth, results)


def test_no_detections_is_0_and_no_objects_is_nan():
    truth, _ = one([[0, 0, 10, 10]], [])
    assert figures(truth, [])["AP"] == 0
    nothing, results = one([], [([0, 0, 10, 10], 0.9)])
    assert all(np.isnan(figures(nothing, results)[name]) for name in NAMES)
    assert all(np.isnan(figures(nothing, [])[name]) for name in NAMES)


def test_detections_by_picture_are_evaluated_as_a_results_list_is():
    truth, results = random_case(3)
    table, found, classes = tables(truth, results)
    ids = [category["id"] for category in truth["categories"]]
    by_picture = {
        image: Detections.from_coco([r for r in results if r["image_id"] == image], ids)
        for image in table.images
    }
    again = coco.summarize(coco.accumulate(table, by_picture, len(classes)), classes)
    once = coco.evaluate(table, found, classes)
    assert [again[name] for name in NAMES] == pytest.approx(
        [once[name] for name in NAMES], abs=1e-12, nan_ok=True
    )
