"""Augmentation: what is drawn at random for a picture; sample.py carries it out.

H W the picture's size, h w the net's, M objects. Everything random comes from the generator that is handed
in. The colours are changed by one 3 x 4 matrix, then a random window of the picture is mapped onto the net's
input (scale, crop, expand, aspect, flip and rotation in one resampling), and objects that hardly show are
left out.
"""

import dataclasses

import numpy as np

from tfcnn.datasets.sample import Sample, flip, through_window, visible_share

GREY = (127, 127, 127)  # what lies outside the picture: the middle of the range, as in images.resize


# The colour circle turns about the grey axis: Rodrigues' formula for the axis (1, 1, 1).
EYE = np.eye(3)
GREY_AXIS = np.full((3, 3), 1 / 3)
CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
LUMA = np.tile([0.299, 0.587, 0.114], (3, 1))  # what saturation leaves alone


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far pictures are changed; the defaults change nothing.

    Attributes:
        window: least and largest side of the window, in sides of the picture: below 1 the picture is cropped
            (zoom in), above 1 it lies on a canvas of `fill` (zoom out).
        aspect: the window's ratio is changed by a factor from 1 / (1 + aspect) to 1 + aspect.
        sides: instead of `window` and `aspect`, each side of the window is moved by up to this share of the picture's
            width or height, outwards or inwards.
        flip: share of pictures mirrored left to right.
        rotation: degrees, either way.
        brightness, contrast, saturation: shares, either way.
        hue: share of a full turn of the colour circle, either way.
        exposure: value and saturation of HSV are each multiplied by a factor of up to 1 + exposure, or divided by it.
        mosaic: share of pictures put together of four.
        min_visible: an object is kept when at least this share of its box lies in the window.
        min_objects: a crop is taken when it keeps at least this share of the picture's objects; after ten
            draws without one the whole picture is taken.
        beyond: boxes may reach beyond the window; False: they are cut off at its edge.
        fill: RGB of what lies outside the picture.
    """

    window: tuple[float, float] = (1.0, 1.0)
    aspect: float = 0.0
    sides: float = 0.0
    flip: float = 0.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    exposure: float = 0.0
    mosaic: float = 0.0
    min_visible: float = 0.3
    min_objects: float = 0.3
    beyond: bool = False
    fill: tuple[int, int, int] = GREY


DETECTION = Augmentation(
    window=(0.5, 1.5), aspect=0.3, flip=0.5, brightness=0.12, contrast=0.3, saturation=0.4, hue=0.02
)
CLASSIFICATION = Augmentation(
    window=(0.6, 1.0),
    aspect=0.3,
    flip=0.5,
    brightness=0.12,
    contrast=0.3,
    saturation=0.3,
    min_objects=0.0,
)
# Sermanet et al. 2013 (OverFeat), section 4.2: the windows of a sliding localizer cut objects off, and it learns the
# whole object's box where at least half of it shows.
WINDOWS = dataclasses.replace(DETECTION, window=(0.5, 1.0), min_visible=0.5, min_objects=1.0, beyond=True)
POSE = Augmentation(
    window=(0.8, 1.4),
    flip=0.5,
    rotation=30.0,
    brightness=0.12,
    contrast=0.3,
    saturation=0.3,
    min_visible=0.9,
    min_objects=1.0,
)
# Redmon et al. 2016 (YOLO), section 2.2; darknet's data.c moves each side, and keeps every object that shows at all.
YOLO = Augmentation(sides=0.2, flip=0.5, exposure=0.5, min_visible=0.0, min_objects=0.0)
PRESETS = {
    "none": None,
    "flip": Augmentation(flip=0.5),  # all that Fast and Faster R-CNN do
    "detection": DETECTION,
    "detection_mosaic": dataclasses.replace(DETECTION, mosaic=0.5),
    "classification": CLASSIFICATION,
    "windows": WINDOWS,
    "pose": POSE,
    "yolo": YOLO,
}


def augment(
    sample: Sample,
    size: tuple[int, int],
    how: Augmentation,
    rng: np.random.Generator,
    letterbox: bool = False,
    swap: np.ndarray | None = None,
) -> Sample:
    """Draws one variant of a picture and of what is marked in it.

    Args:
        sample: the whole picture.
        size: (h, w) of the result.
        how: the ranges.
        rng: the only source of randomness.
        letterbox: True keeps the picture's ratio (but for `aspect`), False stretches the picture to the
            result's.
        swap: int [J], the joint that each joint becomes in a mirror.

    Returns:
        The sample at the new size, boxes inside it unless `how.beyond`.
    """
    height, width = sample.image.shape[:2]
    window = draw_window(sample.boxes, width, height, size, how, rng, letterbox)
    angle = rng.uniform(-how.rotation, how.rotation) if how.rotation else 0.0
    mirrored = rng.random() < how.flip
    matrix = colour_matrix(how, rng)
    if matrix is not None:
        import cv2

        sample = dataclasses.replace(sample, image=cv2.transform(sample.image, matrix))
    if how.exposure:
        sample = dataclasses.replace(sample, image=exposed(sample.image, how.exposure, rng))
    sample = through_window(sample, window, size, how.fill, how.min_visible, angle, how.beyond)
    return flip(sample, swap) if mirrored else sample


def draw_window(
    boxes: np.ndarray,
    width: int,
    height: int,
    size: tuple[int, int],
    how: Augmentation,
    rng: np.random.Generator,
    letterbox: bool,
) -> tuple[float, float, float, float]:
    """Draws a window of the picture; it may reach beyond the picture.

    On each axis alone it lies inside the picture where it is smaller, and holds it where it is larger.

    Args:
        boxes: float32 [M, 4] of the picture's objects.
        width, height: of the picture, pixels.
        size: (h, w) of the result.
        how, rng, letterbox: as `augment` takes them.

    Returns:
        (x1, y1, x2, y2) in the picture's pixels.
    """
    full_width, full_height = float(width), float(height)
    if letterbox:
        unit = max(width / size[1], height / size[0])
        full_width, full_height = unit * size[1], unit * size[0]
    if how.sides:
        left, top, right, bottom = rng.uniform(-how.sides, how.sides, 4)
        x, y = (width - full_width) / 2, (height - full_height) / 2
        return (
            x + left * full_width,
            y + top * full_height,
            x + (1 + right) * full_width,
            y + (1 + bottom) * full_height,
        )
    for _ in range(10):
        side = rng.uniform(*how.window)
        stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log1p(how.aspect))
        w, h = full_width * side * stretch, full_height * side / stretch
        x = rng.uniform(min(0, width - w), max(0, width - w))
        y = rng.uniform(min(0, height - h), max(0, height - h))
        window = (x, y, x + w, y + h)
        if not len(boxes) or (visible_share(boxes, window) >= how.min_visible).mean() >= how.min_objects:
            return window
    x, y = (width - full_width) / 2, (height - full_height) / 2
    return (x, y, x + full_width, y + full_height)


def colour_matrix(how: Augmentation, rng: np.random.Generator) -> np.ndarray | None:
    """Draws one affine map of colours: hue is turned, then saturation, contrast about middle grey and brightness
    change.

    Args:
        how, rng: as `augment` takes them.

    Returns:
        float32 [3, 4], or None for no change.
    """
    if not (how.brightness or how.contrast or how.saturation or how.hue):
        return None
    spread = (how.brightness, how.contrast, how.saturation, how.hue * 2 * np.pi)
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * spread
    turn = GREY_AXIS + np.cos(hue) * (EYE - GREY_AXIS) + np.sin(hue) * CROSS
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = (1 + contrast) * ((1 + saturation) * EYE - saturation * LUMA) @ turn
    matrix[:, 3] = 255 * brightness - 127.5 * contrast
    return matrix


def exposed(image: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """Multiplies saturation and value of HSV by random factors from 1 / (1 + most) to 1 + most.

    Args:
        image: uint8 [H, W, 3].
        most: above 0.
        rng: the source of randomness.

    Returns:
        uint8 [H, W, 3].

    Source: darknet's image.c, random_distort_image and rand_scale.
    """
    saturation, value = (rng.uniform(1, 1 + most) ** sign for sign in rng.choice([-1, 1], 2))
    brightest = image.max(axis=-1, keepdims=True).astype(np.float32)
    dark = np.minimum((brightest - image) * saturation, brightest)  # saturation is at most 1
    return np.clip(np.rint((brightest - dark) * value), 0, 255).astype(np.uint8)


def mosaic(
    samples: list[Sample],
    size: tuple[int, int],
    how: Augmentation,
    rng: np.random.Generator,
    letterbox: bool = False,
) -> Sample:
    """Four pictures round a random point of one, each augmented by itself.

    Args:
        samples: four whole pictures, without joints.
        size: (h, w) of the result.
        how, rng, letterbox: as `augment` takes them.

    Returns:
        The sample of size (h, w) with the objects of all four; scale and offset are the first picture's.

    Source: Bochkovskiy et al., "YOLOv4", arXiv 2004.10934, section 3.3.
    """
    h, w = size
    x, y = (round(side * rng.uniform(0.3, 0.7)) for side in (w, h))
    quarters = [(0, 0, x, y), (x, 0, w, y), (0, y, x, h), (x, y, w, h)]
    image = np.empty((h, w, 3), np.uint8)
    void = None if samples[0].void is None else np.zeros(size, bool)
    parts = []
    for sample, (x1, y1, x2, y2) in zip(samples, quarters, strict=True):
        part = augment(sample, (y2 - y1, x2 - x1), how, rng, letterbox)
        image[y1:y2, x1:x2] = part.image
        part.boxes += np.float32([x1, y1, x1, y1])
        if part.proposals is not None:
            part.proposals += np.float32([x1, y1, x1, y1])
        if part.masks is not None:
            part.masks = np.pad(part.masks, ((0, 0), (y1, h - y2), (x1, w - x2)))
        if void is not None:
            void[y1:y2, x1:x2] = part.void
        parts.append(part)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("boxes", "masks", "proposals")
        if getattr(parts[0], name) is not None
    }
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in samples[0].columns}
    return dataclasses.replace(parts[0], image=image, columns=columns, void=void, **joined)
