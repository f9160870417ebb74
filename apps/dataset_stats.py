"""Say what a data set holds: classes, pictures, objects, what is broken, sizes and shapes of boxes."""

from __future__ import annotations

from absl import flags

from tfcnn import cli
from tfcnn.cli import data_flags
from tfcnn.cli.data_flags import DATA

GROUP, SUMMARY = "start", "count classes and objects of a data set, and list its broken annotations"

SPLIT = data_flags.define_split("Part of the data set", example="train")
ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO's annotation file; alone it is enough, e.g. --annotations=instances_val2017.json",
)
CHECK = flags.DEFINE_bool(
    "check_pictures", True, "Open every picture to see that it is whole and of the size noted"
)
SHEET = flags.DEFINE_integer("sheet", 24, "Pictures on the contact sheet, e.g. --sheet=60", lower_bound=1)


def main(run: cli.Run) -> None:
    from tfcnn import datasets
    from tfcnn.datasets import statistics

    packaged = data_flags.kind() in datasets.PACKAGED
    with_pictures = packaged or DATA.value is not None
    data = data_flags.open_split(SPLIT.value, ANNOTATIONS.value, pictures=with_pictures)
    data.examples = data.examples[: run.flags.limit]
    with_pictures = (with_pictures or data.name.startswith("tfds:")) and bool(data.examples)
    if with_pictures and CHECK.value and not packaged:
        with run.progress(len(data), "pictures checked") as progress:
            statistics.check_pictures(data, progress.advance)
    run.begin()
    figures = statistics.summary(data)
    run.metrics |= figures
    run.results |= figures | {"broken": data.broken}
    if run.flags.save_images and figures["object_count"]:
        title = "Objects a picture and a class; sizes and shapes of the boxes"
        run.sheet(statistics.figure(data), "boxes.png", title)
    if run.flags.save_images and with_pictures:
        sheet = statistics.contact_sheet(data, SHEET.value, seed=run.flags.seed)
        run.sheet(sheet, "sheet.png", f"{min(SHEET.value, len(data))} pictures")
    for finding in data.broken[:10]:
        run.say(f"{finding['file']}: {finding['why']}; {finding['rule']}")
    if len(data.broken) > 10:
        run.say(f"... and {len(data.broken) - 10} more findings in results.json")
    run.table(*table(figures, len(data.broken)))


def table(figures: dict, broken: int) -> tuple[list[str], list[list]]:
    """The lecture's row of the whole set (classes, pictures, objects a picture), then the largest classes."""
    whole = [
        f"all {figures['class_count']} classes" if figures["class_count"] != 1 else "the only class",
        figures["image_count"],
        figures["object_count"],
        f"{figures['objects_per_image']:.2f}",
    ]
    per_class = sorted(
        figures["per_class"].items(), key=lambda item: (-item[1]["objects"], -item[1]["images"])
    )
    rows = [
        [name, count["images"], count["objects"], f"{count['objects'] / max(1, count['images']):.2f}"]
        for name, count in per_class
    ]
    findings = [["findings of broken files", broken, "", ""]] if broken else []
    return ["class", "images", "objects", "objects an image"], [whole, *findings, *rows]


if __name__ == "__main__":
    cli.start(main, pictures=False, without=cli.NO_NET)
