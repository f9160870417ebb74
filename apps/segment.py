"""Cut out the object of a class: the class' saliency seeds a segmentation by colour. On a data set with masks it is
also measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import asked, data_flags, lists, recorded, training_record
from tfcnn.errors import InputError, unknown
from tfcnn.visualization import SALIENCY_METHODS, SEEDS

if TYPE_CHECKING:
    from tfcnn.datasets import Record

GROUP, SUMMARY = "looking inside", "cut an object out by the saliency of its class and GrabCut"

METHOD = flags.DEFINE_enum(
    "method",
    "smoothgrad",
    list(SALIENCY_METHODS),
    "The saliency that seeds the segmentation; see the app saliency",
)

RULE = flags.DEFINE_enum(
    "seeds",
    "otsu",
    list(SEEDS),
    "What of the map is surely object: otsu, by where the map itself falls in two; paper, its upper 5 %",
)
ITERATIONS = flags.DEFINE_integer("iterations", 5, "Cuts of GrabCut, e.g. --iterations=8", lower_bound=1)

SPLIT = data_flags.define_split()
OBJECTS = flags.DEFINE_string(
    "objects",
    None,
    "Of --dataset, take the pictures whose one object is of these classes; none takes every class, e.g. "
    "--objects=cat,dog",
)


def main(run: cli.Run) -> None:
    records = measured(run)
    question = asked.load(run)
    if len(question.indices) > 1:
        raise InputError(
            f"--class={run.flags['class'].value} names {len(question.indices)} classes; give one"
        )
    from tfcnn.visualization import saliency

    net = question.net
    maps = saliency.explained(net.model, METHOD.value, channel_of=question.layer, seed=run.flags.seed)
    rows = []

    def prepare(image):
        return images.resize(image, net.size, run.flags.resize)

    size = run.flags.batch_size
    batches = run.batches(size, prepare) if records is None else recorded.batches(run, records, size, prepare)
    for batch in batches:
        seen = np.stack([picture.prepared[0] for picture in batch]).astype(np.float32)
        asked_for = np.full(len(batch), question.indices[0], np.int32)
        found = [each.numpy() for each in maps(seen, asked_for)]
        for picture, values, index, _, scores in zip(batch, *found, strict=True):
            with picture:
                described = question.describe(int(index), scores)
                picture.entry |= {"class": described, "method": METHOD.value, "layer": question.layer}
                found_mask = cut(run, picture, values)
                box, row = picture.entry["box"], [picture.name, described["label"]]
                row += [f"{described['score']:.4g}", *(f"{x:.0f}" for x in box)]
                if records is not None:
                    picture.entry["iou"] = iou(picture, found_mask)
                    row.append(f"{picture.entry['iou']:.3f}")
                rows.append(row)
    columns = ["file", "channel" if question.layer else "class", "score", "x1", "y1", "x2", "y2"]
    if records is None:
        run.table(columns, rows)
        return
    found = [item.entry["iou"] for item in run.entries.values()]
    run.metrics |= {"mean_iou": float(np.mean(found)) if found else None, "images": len(found)}
    run.table([*columns, "IoU"], rows)
    run.say(f"mean IoU {run.metrics['mean_iou'] or 0:.1%} of {len(found)} pictures")


def measured(run: cli.Run) -> list[Record] | None:
    """The pictures of --dataset that show one object, with its mask; None where no data set is named."""
    only = (data_flags.DATA, SPLIT, OBJECTS)
    dataset = data_flags.instead_of_pictures(run, SPLIT.value, only, "masks")
    if dataset is None:
        return None
    objects = lists.names(OBJECTS.value or "", lambda name: name in dataset.classes)
    for name in objects:
        if name not in dataset.classes:
            raise unknown("--objects", name, dataset.classes, f"one of {', '.join(dataset.classes)}")
    wanted = {dataset.classes.index(name) for name in objects} or set(range(len(dataset.classes)))
    records = [
        record
        for record in dataset.examples
        if record.masks is not None and len(record.labels) == 1 and record.labels[0] in wanted
    ]
    if not records:
        what = " or ".join(objects) or "any class"
        raise InputError(f"--dataset={dataset.name}: no picture has one object of {what}, with a mask")
    data_flags.say_broken(run, dataset)
    return training_record.limited(dataclasses.replace(dataset, examples=records), run.flags.limit).examples


def iou(picture: recorded.Recorded, found: np.ndarray) -> float:
    """Intersection over union of a mask [H, W] and the object's own."""
    from tfcnn.evaluation.pointing import mask_iou

    truth = picture.record.drawn_masks(found.shape)["masks"][0]
    if truth.shape != found.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (truth.shape, found.shape)]
        raise InputError(f"its object's mask is {sizes[0]}, the picture {sizes[1]}")
    return mask_iou(found, truth)


def cut(run: cli.Run, picture: cli.Picture, values: np.ndarray) -> np.ndarray:
    """Cut the object of a map out of its picture; write mask, cut-out, outline and map. Gives the mask, [H, W]."""
    from tfcnn.visualization import segmentation

    image, placement = picture.image, picture.prepared[1]
    found = segmentation.segment(
        image,
        segmentation.on_the_file(values, placement, image.shape[:2]),
        rule=RULE.value,
        iterations=ITERATIONS.value,
        seed=run.flags.seed,
    )
    picture.entry |= {"box": list(found.box), "share": float(found.mask.mean())}
    picture.save(draw.heat_map(values, picture.prepared[0]), "saliency", f"{METHOD.value} of the class")
    if mask := picture.save(found.mask, "mask.png", "mask"):
        picture.entry["mask"] = mask
    picture.save(segmentation.cut_out(image, found.mask), "cut", "cut out", main=True)
    dimmed = np.where(found.mask[..., None], image, (255 + image.astype(np.uint16)) // 3).astype(np.uint8)
    picture.save(draw.boxes(dimmed, [found.box]), "object", "the object and its box")
    return found.mask


if __name__ == "__main__":
    cli.start(main, batch_size=8, resize="stretch")
