"""Which saliency method points at the object: the pointing game, and how well its maps seed a segmentation.

    python benchmarks/pointing.py VOC2012-MASKS [--split=val] [--segment]

VOC2012-MASKS is a folder or .zip in VOC's layout with masks (SegmentationObject). The game is played on every picture
that has an object of eight classes which ImageNet has, too; asked is the class of ImageNet, among those of the VOC
class, that the net finds most probable, and hit is an object of the class or what lies within 15 pixels of it. The net
sees the whole picture, stretched to 224 pixels, and the map is brought to the file's size; "blurred" is the game on
the map after a Gaussian of 8 pixels, since a single pixel decides. With --segment also the mean IoU of `segment`'s
masks, as the app makes them (of the net's best class, whatever that is), on the pictures whose one object is of the
eight classes, by both rules for seeds, beside GrabCut that starts from a centred rectangle of 80 % a side. Shares in
percent.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcnn import runtime  # noqa: E402


def span(first, last):
    return list(range(first, last + 1))


# ImageNet's classes of each VOC class.
CLASSES = {
    "aeroplane": [404, 895],
    "bird": span(7, 24) + span(80, 100) + span(127, 146),
    "boat": [403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914],
    "bus": [654, 779, 874],
    "cat": span(281, 285),
    "dog": span(151, 268),
    "sheep": [348, 349],
    "train": [466, 547, 565, 705, 820, 829],
}
BATCH, BLUR = 8, 8.0


def jobs(data):
    """(record, VOC class) of every class of the eight in every picture."""
    for record in data.examples:
        for label in sorted(set(record.labels)):
            if data.classes[label] in CLASSES:
                yield record, int(label)


def answers_of(net, maps, batch, names):
    """(map, logits) of each job, asked for its class."""
    import numpy as np

    from tfcnn import images

    seen = np.stack([images.resize(record.image(), 224, "stretch")[0] for record, _ in batch]).astype(
        np.float32
    )
    logits = net(seen, training=False)["logits"].numpy()
    asked = []
    for row, (_, label) in zip(logits, batch, strict=True):
        group = CLASSES[names[label]]
        asked.append(group[int(row[group].argmax())])
    return maps(seen, np.array(asked, np.int32))[0].numpy(), seen


def play(net, data, method):
    """The figures of one method: {column: share}."""
    import cv2
    import numpy as np
    from scipy import ndimage

    from tfcnn.evaluation import pointing
    from tfcnn.visualization.saliency import explained

    maps, plain, blurred, exact = explained(net, method), [], [], []
    todo = list(jobs(data))
    begun = time.perf_counter()
    for first in range(0, len(todo), BATCH):
        batch = todo[first : first + BATCH]
        values, _ = answers_of(net, maps, batch, data.classes)
        for (record, label), value in zip(batch, values, strict=True):
            mask = record.masks()[record.labels == label].any(axis=0)
            large = cv2.resize(value, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
            place = pointing.maximum(large)
            plain.append((label, pointing.is_hit(place, mask)))
            exact.append((label, pointing.is_hit(place, mask, 0)))
            soft = pointing.maximum(ndimage.gaussian_filter(large, BLUR))
            blurred.append((label, pointing.is_hit(soft, mask)))
    seconds = time.perf_counter() - begun
    columns = {"hits": plain, "on the object": exact, "blurred": blurred}
    figures = {name: 100 * pointing.accuracy(outcomes)["mean"] for name, outcomes in columns.items()}
    return {**figures, "ms a picture": 1000 * seconds / max(1, len(todo)), "maps": np.float64(len(todo))}


def centre(data):
    """The figures of one who always points at the middle."""
    from tfcnn.evaluation import pointing

    found = []
    for record, label in jobs(data):
        mask = record.masks()[record.labels == label].any(axis=0)
        middle = (mask.shape[0] // 2, mask.shape[1] // 2)
        found.append((label, pointing.is_hit(middle, mask), pointing.is_hit(middle, mask, 0)))
    near = 100 * pointing.accuracy([each[:2] for each in found])["mean"]
    exact = 100 * pointing.accuracy([(label, hit) for label, _, hit in found])["mean"]
    return {"hits": near, "on the object": exact, "blurred": near}


def segmented(net, data, methods, limit=None):
    """Mean IoU of the masks that each method seeds, and of a centred rectangle's: {name: (mean, pictures)}."""
    import numpy as np

    from tfcnn import images
    from tfcnn.evaluation.pointing import mask_iou
    from tfcnn.visualization import SEEDS, segmentation
    from tfcnn.visualization.gradients import BEST
    from tfcnn.visualization.saliency import explained

    alone = [record for record, _ in jobs(data) if len(record.labels) == 1][:limit]
    maps = {method: explained(net, method) for method in methods}
    rows = [f"{method}, {rule}" for method in methods for rule in SEEDS]
    found = {name: [] for name in ("centred rectangle", *rows)}
    for first in range(0, len(alone), BATCH):
        batch = alone[first : first + BATCH]
        pictures = [record.image() for record in batch]
        masks = [record.masks()[0] for record in batch]
        resized = [images.resize(picture, 224, "stretch") for picture in pictures]
        seen = np.stack([image for image, _ in resized]).astype(np.float32)
        for picture, mask in zip(pictures, masks, strict=True):
            guess = segmentation.grab_cut(picture, segmentation.centred_rectangle(mask.shape))
            found["centred rectangle"].append(mask_iou(guess.mask, mask))
        for method, function in maps.items():
            values = function(seen, np.full(len(batch), BEST, np.int32))[0].numpy()
            for rule in SEEDS:
                for picture, mask, value, (_, placement) in zip(
                    pictures, masks, values, resized, strict=True
                ):
                    there = segmentation.on_the_file(value, placement, mask.shape)
                    cut = segmentation.segment(picture, there, rule=rule).mask
                    found[f"{method}, {rule}"].append(mask_iou(cut, mask))
    return {name: (100 * float(np.mean(each)), len(each)) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--methods", default="", help="some of them, by commas")
    parser.add_argument("--segment", action="store_true")
    parser.add_argument("--limit", type=int, help="with --segment, so many pictures")
    flags = parser.parse_args()
    runtime.start()
    from tfcnn import datasets
    from tfcnn.backbones import classifier
    from tfcnn.visualization import SALIENCY_METHODS

    data = datasets.open("voc", flags.data, flags.split)
    net = classifier("efficientnet_lite0")
    methods = flags.methods.split(",") if flags.methods else SALIENCY_METHODS
    if flags.segment:
        print(f"{'seeds':28}{'mean IoU':>10}{'pictures':>10}")
        for name, (mean, count) in segmented(net, data, methods, flags.limit).items():
            print(f"{name:28}{mean:10.1f}{count:10}", flush=True)
        return
    columns = ["hits", "on the object", "blurred", "ms a picture"]
    print(f"{'method':22}" + "".join(f"{name:>15}" for name in columns))
    rows = {"centre": centre(data)}
    for name in ("centre", *methods):
        row = rows.get(name) or play(net, data, name)
        cells = [f"{row[column]:15.1f}" if column in row else f"{'':15}" for column in columns]
        print(f"{name:22}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
