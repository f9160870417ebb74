"""How fast and how large is evaluation, beside pycocotools and faster-coco-eval?

    python benchmarks/evaluation.py [--images=5000] [--rounds=5]

The same truth and detections (20 classes, 1 to 7 objects a picture, 2 % crowds, 100 detections) are
evaluated in turn in one process, data already loaded; the ratio is the median of the rounds. Memory is the
growth of the peak resident size over the loaded data, each program in a process of its own.
"""

import argparse
import contextlib
import gc
import io
import pathlib
import subprocess
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tfcnn.evaluation import coco, voc  # noqa: E402
from tfcnn.evaluation.results import coco_results  # noqa: E402
from tfcnn.evaluation.tables import TruthTable  # noqa: E402

CLASSES = [f"class{k}" for k in range(20)]
PROGRAMS = ("tfcnn voc", "tfcnn coco", "faster-coco-eval", "faster-coco-eval at 0.5", "pycocotools")


def case(images: int, per_image: int = 100, seed: int = 0) -> tuple[dict, list[dict]]:
    """Truth in COCO's form and a results list: two detections in five lie near objects, the others anywhere."""
    random = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        count = random.integers(1, 8)
        sides = np.exp(random.uniform(np.log(12), np.log(300), (count, 2)))
        boxes = np.concatenate([random.uniform(0, 500 - sides.clip(max=480)), sides], axis=1).round(2)
        labels = random.integers(1, 21, count)
        crowds = random.random(count) < 0.02
        for box, label, crowd in zip(boxes.tolist(), labels.tolist(), crowds.tolist(), strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box}
                | {"area": round(0.7 * box[2] * box[3], 2), "iscrowd": int(crowd)}
            )
        source = random.integers(0, count, per_image)
        near = random.random(per_image) < 0.4
        sides = np.exp(random.uniform(np.log(12), np.log(300), (per_image, 2)))
        found = np.concatenate([random.uniform(0, 500 - sides.clip(max=480)), sides], axis=1)
        shift = random.normal(0, 0.12, (per_image, 4)) * np.tile(boxes[source, 2:], 2)
        found[near] = (boxes[source] + shift)[near]
        found[:, 2:] = found[:, 2:].clip(min=2)
        category = np.where(near, labels[source], random.integers(1, 21, per_image))
        score = np.clip(random.beta(1, 4, per_image) + 0.4 * near * random.random(per_image), 0, 1)
        results += [
            {"image_id": image, "category_id": c, "bbox": b, "score": s}
            for c, b, s in zip(
                category.tolist(), found.round(2).tolist(), score.round(6).tolist(), strict=True
            )
        ]
    truth = {
        "images": [
            {"id": i, "width": 500, "height": 500, "file_name": f"{i}.jpg"} for i in range(1, images + 1)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": annotations,
    }
    return truth, results


def prepare(program: str, truth: dict, results: list[dict]):
    """Loads the data as `program` has it: a call that evaluates, and the seconds that loading took."""
    start = time.perf_counter()
    if program.startswith("tfcnn"):
        table = table_of(truth)
        places = {image: place for place, image in enumerate(table.images)}
        labels = {category["id"]: label for label, category in enumerate(truth["categories"])}
        found, _ = coco_results(results, places, labels)
        rule = voc if program == "tfcnn voc" else coco
        return lambda: rule.evaluate(table, found, CLASSES), time.perf_counter() - start
    if program == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = truth
        data.createIndex()
        found = data.loadRes(results)

    def evaluate():
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOeval(data, found, "bbox")
            if program.endswith("0.5"):
                evaluator.params.iouThrs = np.array([0.5])
                evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluator.evaluate()
            evaluator.accumulate()
            if not program.endswith("0.5"):
                evaluator.summarize()
            return evaluator

    return evaluate, time.perf_counter() - start


def table_of(truth: dict) -> TruthTable:
    """The truth as tfcnn's readers would give it."""
    annotations = truth["annotations"]
    boxes = np.array([a["bbox"] for a in annotations])
    return TruthTable(
        images=[image["id"] for image in truth["images"]],
        image=np.array([a["image_id"] - 1 for a in annotations], np.int32),
        label=np.array([a["category_id"] - 1 for a in annotations], np.int32),
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        box_areas=boxes[:, 2] * boxes[:, 3],
        areas=np.array([a["area"] for a in annotations]),
        ignored=np.array([a["iscrowd"] for a in annotations], bool),
    )


def figures(outcome) -> str:
    """The main figures of a program's answer, to see that all evaluated the same."""
    if not isinstance(outcome, dict):
        stats = outcome.stats if len(getattr(outcome, "stats", [])) else [outcome.eval["precision"].mean()]
        return f"AP {stats[0]:.6f}"
    return f"AP {outcome['AP']:.6f}" if "AP" in outcome else f"11-point {outcome['map_11']:.6f}"


def time_all(images: int, rounds: int) -> None:
    """Prints seconds, and the ratio to faster-coco-eval's twelve figures in the same round."""
    truth, found = case(images)
    calls, loading, seconds, shown = {}, {}, {}, {}
    for program in PROGRAMS:
        calls[program], loading[program] = prepare(program, truth, found)
        seconds[program] = []
    for turn in range(rounds):
        for program in PROGRAMS:
            if program == "pycocotools" and turn:
                continue
            start = time.perf_counter()
            shown[program] = figures(calls[program]())
            seconds[program].append(time.perf_counter() - start)
    print(f"{images} pictures, {len(truth['annotations'])} objects, {len(found)} detections; {rounds} rounds")
    print(f"{'program':26}{'load s':>8}{'seconds':>9}{'times faster':>14}  figure")
    for program in PROGRAMS:
        paired = zip(seconds["faster-coco-eval"], seconds[program], strict=False)
        ratio = np.median([theirs / ours for theirs, ours in paired])
        middle = np.median(seconds[program])
        print(f"{program:26}{loading[program]:8.2f}{middle:9.3f}{ratio:14.2f}  {shown[program]}")


def memory_of(program: str, images: int) -> None:
    """Prints by how much the peak resident size grows over the loaded data, in MiB."""
    evaluate, _ = prepare(program, *case(images))
    small, _ = prepare(program, *case(20))
    small()  # imports and buffers that a program needs once
    gc.collect()
    before = _peak(reset=True)
    evaluate()
    print((_peak() - before) / 1024)


def _peak(reset: bool = False) -> int:
    """The process' peak resident size in KiB; reset to the present size first where the kernel allows it."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory_of", choices=PROGRAMS, help="used by the program itself")
    args = parser.parse_args()
    if args.memory_of:
        return memory_of(args.memory_of, args.images)
    time_all(args.images, args.rounds)
    print("\npeak MiB above the data")
    for program in PROGRAMS:
        command = [sys.executable, __file__, f"--images={args.images}", f"--memory_of={program}"]
        print(f"{program:26}{float(subprocess.check_output(command)):8.0f}", flush=True)


if __name__ == "__main__":
    main()
