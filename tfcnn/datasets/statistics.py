"""What a data set holds, in figures and pictures: classes, objects, sizes and shapes of boxes.

K classes, G objects of all pictures.
"""

from collections.abc import Callable

import numpy as np

from tfcnn import draw, images
from tfcnn.datasets import decode
from tfcnn.datasets.classes import distinct
from tfcnn.datasets.coco import AREAS
from tfcnn.datasets.example import Dataset, Record, report
from tfcnn.datasets.pipeline import whole_sample
from tfcnn.errors import InputError


def summary(dataset: Dataset) -> dict:
    """Counts of a data set.

    Args:
        dataset: any; objects are its boxes, so that a set of classification has none.

    Returns:
        {"class_count", "image_count", "object_count", "objects_per_image", "empty_images" (without an
        object), "difficult", "crowd", "sizes" {small, medium, large: objects by COCO's areas},
        "per_class" {name: {"images", "objects"}}}.
    """
    labels = _joined(dataset, "labels", np.int64)
    areas = _joined(dataset, "area", np.float64)
    count, object_count = len(dataset.examples), len(labels)
    pictures = np.zeros(len(dataset.classes), int)
    for record in dataset.examples:
        shown = set(record.labels.tolist()) | ({record.label} - {-1})
        pictures[list(shown)] += 1
    objects = np.bincount(labels, minlength=len(dataset.classes))
    return {
        "class_count": len(dataset.classes),
        "image_count": count,
        "object_count": object_count,
        "objects_per_image": object_count / count if count else 0.0,
        "empty_images": sum(not len(record.boxes) for record in dataset.examples),
        "difficult": int(_joined(dataset, "difficult", bool).sum()),
        "crowd": int(_joined(dataset, "crowd", bool).sum()),
        "sizes": {name: int(((areas >= low) & (areas < high)).sum()) for name, (low, high) in AREAS.items()},
        "per_class": {
            name: {"images": int(with_class), "objects": int(number)}
            for name, with_class, number in zip(_names(dataset), pictures, objects, strict=True)
        },
    }


def _names(dataset: Dataset) -> list[str]:
    return distinct(dataset.classes, dataset.category_ids)


def _joined(dataset: Dataset, column: str, dtype: type) -> np.ndarray:
    parts = [getattr(record, column) for record in dataset.examples]
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def check_pictures(dataset: Dataset, advance: Callable[[], None] = lambda: None) -> None:
    """Opens every picture and adds to `dataset.broken` those that cannot be read or have another size than
    noted, masks that do not fit their picture, and objects whose mask has no pixel.

    Whole JPEGs are known by their headers and ends and are not decoded.

    Args:
        dataset: any.
        advance: called after each picture.
    """
    for record in dataset.examples:
        try:
            data = record.source()
            width, height = decode.size(data, record.file) if isinstance(data, bytes) else data.shape[1::-1]
            if misfit := record.misfit((height, width)):
                report(dataset.broken, record.file, *misfit)
            if record.masks:
                _check_masks(dataset, record, (height, width))
        except InputError as error:
            report(dataset.broken, record.file, str(error), "picture left out when it is read")
        advance()


def _check_masks(dataset: Dataset, record: Record, shape: tuple[int, int]) -> None:
    try:
        shown = record.drawn_masks(shape)["masks"]
    except InputError as error:
        report(dataset.broken, record.file, str(error), "left out where masks are learnt or measured")
        return
    for index in np.flatnonzero(~shown.any(axis=(1, 2))):
        why = f"object {index + 1} ({dataset.classes[record.labels[index]]}) has a mask without a pixel"
        report(dataset.broken, record.file, why, "its box alone is learnt")


def figure(dataset: Dataset) -> np.ndarray:
    """A figure of the data set: objects a picture, objects a class, sizes and shapes of boxes.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: the set has no boxes.
    """
    boxes = _joined(dataset, "boxes", np.float64).reshape(-1, 4)
    if not len(boxes):
        raise InputError(f"The {dataset.name} data set has no boxes to draw")
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    counts = np.array([len(record.boxes) for record in dataset.examples])
    whole = np.array([[record.width, record.height] for record in dataset.examples], np.float64)
    shares = sides / np.repeat(np.maximum(whole, 1), counts, axis=0)
    with draw.fonts_for("".join(dataset.classes)) as shown:
        return _page(dataset, sides, counts, shares, shown)


def _page(
    dataset: Dataset, sides: np.ndarray, counts: np.ndarray, shares: np.ndarray, shown: Callable[[str], str]
) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(11, 7.5), layout="constrained", dpi=110)
    axes = page.subplots(2, 3)
    _counts_panel(axes[0, 0], counts)
    _classes_panel(axes[0, 1], dataset, shown)
    _sides_panel(axes[0, 2], np.sqrt(sides.prod(1)))
    _histogram(
        axes[1, 0], np.log2(sides[:, 0] / sides[:, 1]), np.linspace(-4, 4, 33), "shape: width / height"
    )
    axes[1, 0].set_xticks(range(-4, 5, 2), ["1/16", "1/4", "1", "4", "16"])
    share = np.sqrt(shares.prod(1))
    _histogram(axes[1, 1], share, np.linspace(0, 1, 41), "size: side of the box / side of the picture")
    axes[1, 2].hexbin(
        shares[:, 0], shares[:, 1], gridsize=25, extent=(0, 1, 0, 1), bins="log", cmap="magma_r"
    )
    axes[1, 2].set_title("width and height, in shares of the picture", fontsize=9)
    axes[1, 2].set_xlabel("width", fontsize=8)
    axes[1, 2].set_ylabel("height", fontsize=8)
    for panel in axes.flat:
        panel.tick_params(labelsize=7)
    canvas = FigureCanvasAgg(page)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _histogram(panel, values: np.ndarray, edges: np.ndarray, title: str) -> None:
    panel.hist(np.clip(values, edges[0], edges[-1]), edges, color="#4c72b0")
    panel.set_title(title, fontsize=9)
    panel.set_ylabel("objects", fontsize=8)


def _counts_panel(panel, counts: np.ndarray) -> None:
    last = max(1, int(np.percentile(counts, 99.5)))
    panel.hist(np.minimum(counts, last), np.arange(last + 2) - 0.5, color="#4c72b0")
    panel.axvline(counts.mean(), color="#c44e52")
    panel.set_title(f"objects a picture, mean {counts.mean():.2f}", fontsize=9)
    panel.set_ylabel("pictures", fontsize=8)


def _classes_panel(panel, dataset: Dataset, shown: Callable[[str], str]) -> None:
    numbers = np.bincount(_joined(dataset, "labels", np.int64), minlength=len(dataset.classes))
    most = np.argsort(-numbers, kind="stable")[:25]
    names = _names(dataset)
    panel.barh(range(len(most)), numbers[most], color="#4c72b0")
    panel.set_yticks(range(len(most)), [shown(names[k]) for k in most], parse_math=False)
    panel.invert_yaxis()
    panel.set_xscale("symlog")
    more = f", the first {len(most)} of {len(numbers)}" if len(most) < len(numbers) else ""
    panel.set_title(f"objects a class{more}", fontsize=9)


def _sides_panel(panel, sides: np.ndarray) -> None:
    least = max(1.0, sides.min())
    edges = np.geomspace(
        least, max(2 * least, sides.max()), 41
    )  # where all are alike, the axis still has a width
    _histogram(panel, sides, edges, "size: square root of the area, pixels")
    panel.set_xscale("log")
    for (name, (low, _)), top in zip(AREAS.items(), (0.98, 0.98, 0.98), strict=True):
        left = max(np.sqrt(low), edges[0])
        if left < edges[-1]:
            panel.axvline(left, color="#999999", linewidth=0.7)
            panel.text(left, top, f" {name}", transform=panel.get_xaxis_transform(), fontsize=7, va="top")


def contact_sheet(dataset: Dataset, count: int = 24, side: int = 240, seed: int = 0) -> np.ndarray:
    """Pictures of the set drawn at random, with their boxes and joints.

    Args:
        dataset: any.
        count: pictures.
        side: pixels of a picture's longer side on the sheet.
        seed: of the draw.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: no picture can be read.
    """
    order = np.random.default_rng(seed).permutation(len(dataset.examples))
    cells, captions = [], []
    for index in order:
        if len(cells) == count:
            break
        record = dataset.examples[index]
        try:
            cells.append(_cell(dataset, index, side))
        except InputError:  # named by check_pictures
            continue
        of_class = f" {dataset.classes[record.label]}" if record.label >= 0 else ""
        captions.append(f"{str(record.image_id).rsplit('/', 1)[-1]}{of_class}")
    if not cells:
        raise InputError(f"The {dataset.name} data set has no picture that can be read")
    return draw.grid(cells, columns=6, captions=captions)


def _cell(dataset: Dataset, index: int, side: int) -> np.ndarray:
    sample = whole_sample(dataset.examples[index])
    share = side / max(sample.image.shape[:2])
    size = [max(1, round(length * share)) for length in sample.image.shape[:2]]
    image, at = images.resize(sample.image, size)
    if len(sample.boxes):
        image = draw.boxes(image, at.from_file(sample.boxes), sample.columns["labels"], names=dataset.classes)
    if sample.joints is not None:
        image = image.copy()
        joints = sample.joints.reshape(-1, sample.joints.shape[-2], 3)
        for person in joints:
            for joint, (x, y, shown) in enumerate(person):
                if shown > 0:
                    row, column = int(y * at.scale_y), int(x * at.scale_x)
                    image[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = draw.colour(joint)
    return image
