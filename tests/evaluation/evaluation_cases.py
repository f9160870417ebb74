"""Made-up truth and detections, as COCO's dictionaries and as tfcnn's tables."""

import numpy as np

from tfcnn.evaluation.results import coco_results
from tfcnn.evaluation.tables import ResultTable, TruthTable


def random_case(seed: int) -> tuple[dict, list[dict]]:
    """One of many small COCO data sets, each seed another mixture of what makes evaluators differ."""
    random = np.random.default_rng(seed)
    tied, coarse, crowded, many = seed % 2 == 0, seed % 3 == 0, seed % 4 == 1, seed % 5 == 2
    image_ids = random.choice(10_000, 12, replace=False).tolist()  # not contiguous, not sorted
    category_ids = random.choice(np.arange(1, 91), 5, replace=False).tolist()
    dense = seed % 7 in (0, 3)  # one class, all boxes in one place: each detection overlaps several objects

    def boxes(count):
        if dense and coarse:
            return np.concatenate([random.integers(0, 5, (count, 2)), random.integers(15, 21, (count, 2))], 1)
        if dense:
            return np.concatenate(
                [random.uniform(0, 15, (count, 2)), random.uniform(60, 90, (count, 2))], 1
            ).round(2)
        if coarse:  # whole numbers: IoUs are often equal, and often just a threshold
            return np.concatenate([random.integers(0, 20, (count, 2)), random.integers(1, 21, (count, 2))], 1)
        sides = np.exp(random.uniform(np.log(8), np.log(200), (count, 2)))
        return np.concatenate([random.uniform(0, 300, (count, 2)), sides], 1).round(2)

    annotations, results = [], []
    for place, image in enumerate(image_ids):
        count = 0 if place % 4 == 3 else int(random.integers(1, 9))  # every fourth picture is empty
        truth = boxes(count)
        labels = random.choice(category_ids[: 1 if dense else -1], count)  # the last class has no object
        for box, label in zip(truth.tolist(), labels.tolist(), strict=True):
            area = random.choice([1024.0, 9216.0, box[2] * box[3], 0.6 * box[2] * box[3]])
            crowd = int(random.random() < (0.3 if crowded else 0.05))
            annotations.append(
                {"id": 7 + 3 * len(annotations), "image_id": image, "category_id": label}
                | {"bbox": box, "area": float(area), "iscrowd": crowd}
            )
        found = int(random.integers(0, 30)) + (150 if many and place < 2 else 0)
        shapes = boxes(found)
        if count:
            near = random.random(found) < 0.6
            source = random.integers(0, count, found)
            shift = random.integers(-3, 4, (found, 4)) if coarse else random.normal(0, 0.1, (found, 4)) * 60
            shapes[near] = (truth[source] + shift)[near]
            shapes[:, 2:] = shapes[:, 2:].clip(min=1)
            shapes[: found // 3] = truth[source[: found // 3]]  # exact hits, several on one object
            kinds = np.where(near, labels[source], random.choice(category_ids, found))
        else:
            kinds = random.choice(category_ids[:1] if many else category_ids, found)
        scores = random.random(found).round(1 if tied else 6)
        results += [
            {"image_id": image, "category_id": c, "bbox": b, "score": s}
            for c, b, s in zip(kinds.tolist(), shapes.round(2).tolist(), scores.tolist(), strict=True)
        ]
    order = random.permutation(len(results))  # the file is not in the order of pictures
    truth = {
        "images": [
            {"id": image, "width": 500, "height": 500, "file_name": f"{image}.jpg"} for image in image_ids
        ],
        "categories": [{"id": c, "name": f"class{c}"} for c in category_ids],
        "annotations": annotations,
    }
    return truth, [results[i] for i in order]


def tables(truth: dict, results: list[dict]) -> tuple[TruthTable, ResultTable, list[str]]:
    """Both as tables, and the names of the classes."""
    images = {image["id"]: place for place, image in enumerate(truth["images"])}
    labels = {category["id"]: label for label, category in enumerate(truth["categories"])}
    annotations = truth["annotations"]
    boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    table = TruthTable(
        images=list(images),
        image=np.array([images[a["image_id"]] for a in annotations], np.int32),
        label=np.array([labels[a["category_id"]] for a in annotations], np.int32),
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        box_areas=boxes[:, 2] * boxes[:, 3],
        areas=np.array([a["area"] for a in annotations], np.float64),
        ignored=np.array([a["iscrowd"] for a in annotations], bool),
    )
    found, _ = coco_results(results, images, labels)
    return table, found, [category["name"] for category in truth["categories"]]


def inclusive(objects: list[tuple], detections: list[tuple], images: int) -> tuple[TruthTable, ResultTable]:
    """Tables from VOC's own numbers.

    Args:
        objects: (image, label, difficult, xmin, ymin, xmax, ymax).
        detections: (image, label, score, xmin, ymin, xmax, ymax).
        images: number of pictures.
    """
    t = np.array(objects, np.float64).reshape(-1, 7)
    d = np.array(detections, np.float64).reshape(-1, 7)

    def place(rows):
        corners = rows[:, 3:] - [1, 1, 0, 0]
        return corners, (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])

    true_boxes, true_areas = place(t)
    boxes, areas = place(d)
    ids = [f"{image:06d}" for image in range(images)]
    image, label = t[:, 0].astype(np.int32), t[:, 1].astype(np.int32)
    truth = TruthTable(ids, image, label, true_boxes, true_areas, true_areas, t[:, 2] > 0)
    return truth, ResultTable(d[:, 0].astype(np.int32), d[:, 1].astype(np.int32), d[:, 2], boxes, areas)
