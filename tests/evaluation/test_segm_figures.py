"""COCO's twelve figures of masks equal pycocotools', and the rules for what it has no word for."""

import contextlib
import io

import numpy as np
import pytest

from tfcnn import masks
from tfcnn.datasets.example import Record, Truth
from tfcnn.detections import Detections
from tfcnn.errors import InputError
from tfcnn.evaluation import results, segm
from tfcnn.evaluation.tables import truth_table

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
SIDE = 120


def official(truth, found):
    pytest.importorskip("pycocotools", reason="pycocotools is the oracle (pip install 'tfcnn[test]')")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = truth
        data.createIndex()
        evaluator = COCOeval(data, data.loadRes([dict(entry) for entry in found]), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(value) for value in evaluator.stats]


def blob(rng, scale):
    """A mask of an ellipse, sometimes with a hole, sometimes across the border."""
    ys, xs = np.mgrid[:SIDE, :SIDE]
    x, y = rng.uniform(-5, SIDE + 5, 2)
    a, b = np.exp(rng.uniform(np.log(4), np.log(scale), 2))
    far = ((xs - x) / a) ** 2 + ((ys - y) / b) ** 2
    return (far < 1) & ~((far < 0.1) & (rng.random() < 0.3))


def changed(rng, mask):
    """A mask like another one: shifted, and its border eaten here and there."""
    shifted = np.roll(mask, rng.integers(-6, 7, 2), (0, 1))
    return shifted & (rng.random(mask.shape) > rng.choice([0, 0.05, 0.3]))


def as_text(mask):
    runs = masks.encode(mask)
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()}


def random_case(seed):
    """COCO's dictionaries: crowds, ties, empty pictures, empty masks, areas that are not the masks'."""
    rng = np.random.default_rng(seed)
    images = rng.choice(1000, 8, replace=False).tolist()
    categories = rng.choice(np.arange(1, 91), 3, replace=False).tolist()
    annotations, found = [], []
    for place, image in enumerate(images):
        shapes = [blob(rng, 70) for _ in range(0 if place % 4 == 3 else rng.integers(1, 6))]
        for mask in shapes:
            label = int(rng.choice(categories[:-1]))
            area = rng.choice([1024.0, 9216.0, float(mask.sum()), 0.6 * mask.sum()])
            annotations.append(
                {
                    "id": 3 + 2 * len(annotations),
                    "image_id": image,
                    "category_id": label,
                    "bbox": [0, 0, 9, 9],
                }
                | {"area": float(area), "iscrowd": int(rng.random() < 0.15), "segmentation": as_text(mask)}
            )
            for _ in range(rng.integers(0, 4)):
                kind = label if rng.random() < 0.8 else int(rng.choice(categories))
                entry = {"image_id": image, "category_id": kind, "segmentation": as_text(changed(rng, mask))}
                found.append(entry | {"score": round(rng.random(), 1 if seed % 2 else 6)})
        for _ in range(rng.integers(0, 3)):
            mask = blob(rng, 40) if rng.random() < 0.7 else np.zeros((SIDE, SIDE), bool)
            entry = {
                "image_id": image,
                "category_id": int(rng.choice(categories)),
                "score": float(rng.random()),
            }
            found.append(entry | {"segmentation": as_text(mask)})
    truth = {
        "images": [{"id": i, "width": SIDE, "height": SIDE, "file_name": f"{i}.jpg"} for i in images],
        "categories": [{"id": c, "name": f"class{c}"} for c in sorted(categories)],
        "annotations": annotations,
    }
    return truth, [found[i] for i in rng.permutation(len(found))]


def records(truth):
    """As a reader gives them."""
    label_of = {category["id"]: label for label, category in enumerate(truth["categories"])}
    made = []
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in own], np.float64).reshape(-1, 4)
        areas = np.array([a["area"] for a in own], np.float64)
        crowd = np.array([a["iscrowd"] for a in own], bool)
        shown = [masks.of_entry(a["segmentation"]) for a in own]
        labels = np.array([label_of[a["category_id"]] for a in own], np.int32)
        known = Truth(
            boxes, areas, areas, labels, crowd, masks=lambda shown=shown: shown, annotated_areas=True
        )
        made.append(record(image["id"], known))
    return made


def record(image_id, truth, **more):
    return Record(image_id, f"{image_id}.jpg", SIDE, SIDE, bytes, truth=truth, **more)


def figures(truth, found):
    made, names = records(truth), [category["name"] for category in truth["categories"]]
    labels = {category["id"]: label for label, category in enumerate(truth["categories"])}
    table, _ = results.coco_results(found, results.image_index(made), labels)
    return segm.evaluate(made, table, names)


@pytest.mark.parametrize("seed", range(12))
def test_random_cases_equal_pycocotools(seed):
    truth, found = random_case(seed)
    ours, findings = figures(truth, found)
    ours = [-1 if np.isnan(ours[name]) else ours[name] for name in NAMES]
    np.testing.assert_allclose(ours, official(truth, found), rtol=0, atol=1e-12)
    assert set(findings) <= {"empty"} and max(ours) > 0


def square(x, y, side=40):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def by_hand(truths, found, difficult=(), void=None, without=()):
    """One picture of one class: the figures of detections with the given masks, best first."""
    box = np.array([[0, 0, 40, 40]] * len(truths), np.float64)
    areas, labels = np.full(len(truths), 1600.0), np.zeros(len(truths), np.int32)
    ignored = np.isin(np.arange(len(truths)), difficult)
    shown = [None if i in without else masks.encode(mask) for i, mask in enumerate(truths)]
    known = Truth(box, areas, areas, labels, ignored, masks=lambda: shown)
    made = record("a", known, void=None if void is None else lambda: void)
    scores = 1 - np.arange(len(found)) / 100
    detections = Detections(
        np.zeros((len(found), 4)), scores, np.zeros(len(found)), masks=[masks.encode(m) for m in found]
    )
    return segm.evaluate([made], {"a": detections}, ["cat"])


def test_iou_of_masks_worked_out_by_hand():
    # 40 x 30 of 40 x 40 is IoU 0.75: right at the six thresholds up to 0.75.
    part = square(0, 0)
    part[30:] = False
    ours, findings = by_hand([square(0, 0)], [part])
    assert ours["AP"] == pytest.approx(0.6, abs=1e-12) and ours["AP75"] == pytest.approx(1, abs=1e-12)
    assert ours["APm"] == ours["AP"] and np.isnan(ours["APs"])  # 1600 pixels, whatever the box says
    assert not findings


def test_void_pixels_count_for_nobody():
    whole = square(0, 0, 60)
    void = whole & ~square(0, 0)
    ours, _ = by_hand([square(0, 0)], [whole], void=void)
    assert ours["AP"] == pytest.approx(1, abs=1e-12)  # all that it has too much is void
    ours, _ = by_hand([square(0, 0)], [whole])
    assert ours["AP50"] == 0  # 1600 of 3600
    ours, findings = by_hand([square(0, 0)], [void, square(0, 0)], void=void)
    assert findings == {"empty": 1} and ours["AP50"] == pytest.approx(0.5, abs=1e-12)  # it hits nothing


def test_difficult_objects_are_neither_found_nor_wrong_to_be_found():
    ours, _ = by_hand([square(0, 0), square(60, 60)], [square(60, 60), square(0, 0)], difficult=[1])
    assert ours["AP"] == pytest.approx(1, abs=1e-12)
    ours, _ = by_hand([square(0, 0), square(60, 60)], [square(0, 0)])
    assert ours["AP50"] < 0.6  # where it is not difficult it is missed


def test_an_object_without_a_mask_is_ignored_and_its_box_stands_for_it():
    found = [square(0, 0), square(60, 60)]  # the first lies on the box of the object without a mask
    ours, findings = by_hand([square(9, 9), square(60, 60)], found, without=[0])
    assert ours["AP"] == pytest.approx(1, abs=1e-12) and findings == {"missing": 1}
    ours, _ = by_hand([square(9, 9), square(60, 60)], found[1:], without=[0])
    assert ours["AR100"] == pytest.approx(1, abs=1e-12)  # nor is it missed
    assert segm.in_words(findings) == [
        "masks: 1 object without a mask: ignored, its box standing for the mask"
    ]


def test_pictures_without_masks_and_masks_of_another_size_are_counted():
    boxes, one = np.array([[0.0, 0, 40, 40]]), np.ones(1)
    plain = Truth(boxes, one, one, np.zeros(1, np.int32), np.zeros(1, bool))
    known = Truth(
        boxes, one, one, np.zeros(1, np.int32), np.zeros(1, bool), masks=lambda: [masks.encode(square(0, 0))]
    )

    def unreadable():
        raise InputError("no such file")

    broken = Truth(boxes, one, one, np.zeros(1, np.int32), np.zeros(1, bool), masks=unreadable)
    made = [record("bare", plain), record("known", known), record("broken", broken), record("nothing", None)]
    hit = Detections(boxes, [0.5], [0], masks=[masks.encode(square(0, 0))])
    other = masks.encode(square(0, 0)[:-1])
    mixed = Detections(
        np.repeat(boxes, 3, 0), [0.9, 0.8, 0.7], [0, 0, 0], masks=[other, masks.encode(square(0, 0)), None]
    )
    figures, findings = segm.evaluate(made, {"bare": hit, "known": mixed, "broken": hit}, ["cat"])
    assert findings == {"unreadable": 1, "bare": 1, "size": 1, "none": 1}
    assert figures["AP50"] == pytest.approx(0.5, abs=1e-12)  # that of another size is wrong, the second right
    words = segm.in_words({"size": 2, "unreadable": 1})
    assert words[0] == "masks: 2 detections with a mask of another size than its picture: hits nothing"
    # A picture without objects counts: what is found there is wrong.
    figures, _ = segm.evaluate(
        made, {"known": hit, "nothing": Detections(boxes, [0.6], [0], masks=hit.masks)}, ["cat"]
    )
    assert figures["AP50"] == pytest.approx(0.5, abs=1e-12)


def test_where_truth_or_results_have_no_masks_there_are_no_figures():
    box = np.array([[0.0, 0, 40, 40]])
    made = Record("a", "a.jpg", SIDE, SIDE, bytes, boxes=box, masks=lambda: square(0, 0)[None])
    assert segm.evaluate([made], {"a": Detections(box, [0.5], [0])}, ["cat"]) is None
    hit = Detections(box, [0.5], [0], masks=[masks.encode(square(0, 0))])
    assert segm.evaluate([made], {"a": hit}, ["cat"])[0]["AP"] == pytest.approx(1)  # a record made in code
    assert segm.evaluate([Record("a", "a.jpg", SIDE, SIDE, bytes, boxes=box)], {"a": hit}, ["cat"]) is None
    assert truth_table([made]).masks is None


def test_a_results_list_of_masks_alone_has_the_boxes_round_them():
    entries = [{"image_id": 5, "category_id": 3, "score": 0.5, "segmentation": as_text(square(7, 20))}]
    table, _ = results.coco_results(entries, {5: 0}, {3: 0})
    assert table.boxes.tolist() == [[7, 20, 47, 60]] and table.masks[0]["size"] == [SIDE, SIDE]
    assert table.take(np.zeros(0, int)).masks.shape == (0,)
    plain = [{"image_id": 5, "category_id": 3, "score": 0.5, "bbox": [0, 0, 1, 1]}]
    assert results.coco_results(plain, {5: 0}, {3: 0})[0].masks is None
    bad = [*plain, {**plain[0], "segmentation": {"size": [2, 2], "counts": [0, 3]}}]
    with pytest.raises(
        InputError, match="segmentation of entry 2 is neither polygons nor run lengths of 2x2"
    ):
        results.coco_results(bad, {5: 0}, {3: 0})
    with pytest.raises(InputError, match="entry 1 has no bbox"):
        results.coco_results([{"image_id": 5, "category_id": 3, "score": 0.5}], {5: 0}, {3: 0})
