"""Say what is in pictures and where: the best classes, each with a box."""

from __future__ import annotations

import dataclasses

import numpy as np
from absl import flags

from tfcnn import cli, images
from tfcnn.cli import box_files, lists
from tfcnn.detections import Detections
from tfcnn.errors import InputError

GROUP, SUMMARY = "localization", "classify pictures and put a box around their object"

TOP = flags.DEFINE_integer("top", 5, "Guesses of a picture, best first, e.g. --top=3", lower_bound=1)

LEGIBLE = 150  # pixels of the shorter side of a picture from which words fit
LARGEST = 640  # pixels of the longer side that a picture is enlarged to, at most


def main(run: cli.Run) -> None:
    if not run.flags.model:
        raise InputError(
            "--model is missing: a localizer's release, folder or .keras file, e.g. --model=localizer_voc"
        )
    for name in ("net", "weights", "preprocessing"):
        if run.flags[name].present:
            raise InputError(f"--{name} is not for a localizer, which --model names")
    predictor, _ = box_files.open_localizer(run, lists.paths(run.flags.model), TOP.value)
    rows, found = [], []

    def prepare(image):
        return predictor.prepare(image), image if run.flags.save_images else None

    for batch in run.batches(predictor.batch_size, prepare):
        answers = predictor.predict([picture.prepared[0] for picture in batch])
        for picture, guesses in zip(batch, answers, strict=True):
            with picture:
                picture.entry["guesses"] = box_files.entries(guesses)
                found += guesses.to_coco(picture.stem, predictor.category_ids)
                if run.flags.save_images:
                    picture.save(drawn(shown(guesses), picture.prepared[1]), "localized", main=True)
                best = picture.entry["guesses"][0]
                picture.lines.append(f"{best['label']} {best['score']:.1%}")
                box = " ".join(f"{side:.0f}" for side in best["box"])
                rows.append([picture.name, best["label"], f"{best['score']:.1%}", box])
    run.results["images_per_second"] = run.rate
    box_files.save(run, found, predictor.names, predictor.category_ids)
    run.table(["file", "class", "score", "box"], rows)


def shown(guesses: Detections) -> Detections:
    """Those of the best class: one, or K of a model of K objects."""
    return guesses.top(int((guesses.labels == guesses.labels[0]).sum()))


def drawn(guesses: Detections, image: np.ndarray) -> np.ndarray:
    """The picture with the boxes; a small one is enlarged by a whole number, so that the words do not hide it."""
    times = max(1, min(-(-LEGIBLE // min(image.shape[:2])), LARGEST // max(image.shape[:2])))
    large = images.resize(image, (image.shape[0] * times, image.shape[1] * times))[0]
    return dataclasses.replace(guesses, boxes=guesses.boxes * np.float32(times)).draw(large)


if __name__ == "__main__":
    cli.start(main, batch_size=32, image_size=None, model="localizer_voc")
