"""Cut out the object of a class: the class' saliency seeds a segmentation by colour."""

from __future__ import annotations

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import asked
from tfcnn.errors import InputError
from tfcnn.visualization import SALIENCY_METHODS, SEEDS

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


def main(run: cli.Run) -> None:
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

    for batch in run.batches(run.flags.batch_size, prepare):
        seen = np.stack([picture.prepared[0] for picture in batch]).astype(np.float32)
        asked_for = np.full(len(batch), question.indices[0], np.int32)
        found = [each.numpy() for each in maps(seen, asked_for)]
        for picture, values, index, _, scores in zip(batch, *found, strict=True):
            with picture:
                described = question.describe(int(index), scores)
                picture.entry |= {"class": described, "method": METHOD.value, "layer": question.layer}
                cut(run, picture, values)
                box = picture.entry["box"]
                rows.append(
                    [
                        picture.name,
                        described["label"],
                        f"{described['score']:.4g}",
                        *(f"{x:.0f}" for x in box),
                    ]
                )
    run.table(["file", "channel" if question.layer else "class", "score", "x1", "y1", "x2", "y2"], rows)


def cut(run: cli.Run, picture: cli.Picture, values: np.ndarray) -> None:
    """Cut the object of a map out of its picture; write mask, cut-out, outline and map."""
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
    picture.entry["mask"] = picture.save(found.mask, "mask.png", "mask")
    picture.save(segmentation.cut_out(image, found.mask), "cut", "cut out", main=True)
    dimmed = np.where(found.mask[..., None], image, (255 + image.astype(np.uint16)) // 3).astype(np.uint8)
    picture.save(draw.boxes(dimmed, [found.box]), "object", "the object and its box")


if __name__ == "__main__":
    cli.start(main, batch_size=8, resize="stretch")
