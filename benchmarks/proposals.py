"""Selective search against OpenCV's (opencv-contrib, ximgproc): time and recall of both on the same pictures.

    python benchmarks/proposals.py --data=voc2007-320.zip --images=60

Paired rounds: each picture is searched by one and then by the other; the ratio is the median over the pictures. OpenCV
runs in its fast mode with base_k = inc_k = 50 and sigma 0.8 (k of 50, 100 and 150), at the file's own size, and so do
we (k of 50 and 100, the paper's fast mode). Both use one thread. opencv-contrib-python-headless takes the place of
OpenCV, so this needs an environment of its own.
"""

import pathlib
import sys
import time

import cv2
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tfcnn import datasets  # noqa: E402
from tfcnn.detection.proposals.selective_search import selective_search  # noqa: E402
from tfcnn.evaluation.proposal_recall import Recall, ground_truth  # noqa: E402

DATA = flags.DEFINE_string("data", None, "VOC 2007: folder or .zip", required=True)
SPLIT = flags.DEFINE_string("split", "val", "Part of it")
IMAGES = flags.DEFINE_integer("images", 60, "Pictures, evenly spread")


def peer(image: np.ndarray) -> np.ndarray:
    """OpenCV's boxes, float32 [n, 4]."""
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    search.switchToSelectiveSearchFast(50, 50, 0.8)
    boxes = np.float32(search.process())
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def main(argv: list[str]) -> None:
    if not hasattr(cv2, "ximgproc"):
        raise app.UsageError("this OpenCV has no ximgproc: install opencv-contrib-python-headless")
    cv2.setNumThreads(1)
    examples = datasets.open("voc", DATA.value, SPLIT.value).examples
    records = [examples[place * len(examples) // IMAGES.value] for place in range(IMAGES.value)]
    seconds = {"opencv": [], "tfcnn": []}
    recalls = {name: Recall((100, 1000, 10000)) for name in seconds}
    count = dict.fromkeys(seconds, 0)
    for number, record in enumerate(records):
        image = record.image()
        methods = {"opencv": peer, "tfcnn": lambda image: selective_search(image)[0]}
        for name in list(methods)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            boxes = methods[name](image)
            seconds[name].append(time.perf_counter() - began)
            recalls[name].add(boxes, ground_truth(record, record.placement(image.shape)))
            count[name] += len(boxes)
    for name, recall in recalls.items():
        shares = " ".join(
            f"{n}: {row['recall']['0.5']:.1%} ({row['recall']['0.7']:.1%})"
            for n, row in recall.figures().items()
        )
        each = f"{np.median(seconds[name]):.3f} s, {count[name] / len(records):.0f} boxes"
        print(f"{name:8} {each}; recall at IoU 0.5 (0.7) {shares}")
    ratio = np.median(np.divide(seconds["tfcnn"], seconds["opencv"]))
    print(f"tfcnn takes {ratio:.2f} times opencv's time, median of {len(records)} pictures")


if __name__ == "__main__":
    app.run(main)
