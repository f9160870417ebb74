"""From the official files through the readers to the figures."""

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest

from tfcnn import datasets
from tfcnn.evaluation import coco, results, tables, voc


def jittered(dataset, seed=0):
    """A results list that a fair detector might give: each object twice, moved, some of another class."""
    random = np.random.default_rng(seed)
    found = []
    for record in dataset.examples:
        for box, label in zip(record.truth.boxes, record.truth.labels, strict=True):
            for score in random.random(2).round(2):  # many equal scores
                x1, y1, x2, y2 = box + random.normal(0, 0.1, 4) * np.tile(box[2:] - box[:2], 2)
                other = label if random.random() < 0.8 else random.integers(len(dataset.classes))
                found.append(
                    {"image_id": record.image_id, "category_id": int(dataset.category_ids[other])}
                    | {"bbox": [x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0)], "score": float(score)}
                )
    return found


def read(dataset, found):
    images = results.image_index(dataset.examples)
    categories = {category: label for label, category in enumerate(dataset.category_ids)}
    return tables.truth_table(dataset.examples), results.coco_results(found, images, categories)[0]


def test_coco_through_our_reader_equals_pycocotools_on_the_same_file(data):
    pytest.importorskip("pycocotools", reason="pycocotools is the oracle (pip install 'tfcnn[test]')")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = data("coco-part.zip")
    dataset = datasets.open("coco", path, "val2017", pictures=False)
    found = jittered(dataset)
    ours = coco.evaluate(*read(dataset, found), dataset.classes)
    with zipfile.ZipFile(path) as archive, contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(archive.read("coco-part/annotations/instances_val2017.json"))
        truth.createIndex()
        theirs = COCOeval(truth, truth.loadRes(found), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert list(ours.values())[:12] == pytest.approx(theirs.stats.tolist(), abs=1e-12)
    assert 0.2 < ours["AP"] < 0.8


def test_voc_truth_found_as_it_is_has_ap_1_in_every_reading(data):
    dataset = datasets.open("voc", data("voc2007-320.zip"), "val", pictures=False)
    found = [
        {"image_id": record.image_id, "category_id": int(label) + 1, "score": 1.0}
        | {"bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]}
        for record in dataset.examples
        for box, label in zip(record.truth.boxes, record.truth.labels, strict=True)
    ]
    ours = voc.evaluate(*read(dataset, found), dataset.classes)
    assert [ours["map_area"], ours["map_raw"]] == pytest.approx(
        [1, 1], abs=0.002
    )  # a few objects lie on another
    assert ours["per_class"]["cat"]["truths"] == 198 - 8 and ours["per_class"]["cat"]["detections"] == 198
    assert sum(numbers["truths"] for numbers in ours["per_class"].values()) == 7812 - 1511
