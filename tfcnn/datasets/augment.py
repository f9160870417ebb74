"""Augmentation of a picture with its boxes, joints and masks together: NumPy and OpenCV, one resampling a
picture.

H W the file's size, h w the net's, M objects, J joints. Everything random comes from the generator that is
handed in.
A picture passes three steps: a window of it is mapped onto the net's input (scale, crop, expand, aspect,
flip, rotation: one affine map for pixels and geometry), the colours are changed by one 3 x 4 matrix,
objects that hardly show are left out.
"""

import dataclasses

import numpy as np

GREY = (127, 127, 127)  # what lies outside the picture: the middle of the range, as in images.resize


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far pictures are changed; the defaults change nothing.

    Attributes:
        window: least and largest side of the window, in sides of the picture: below 1 the picture is
            cropped (zoom in), above 1 it lies on a canvas of `fill` (zoom out).
        aspect: the window's ratio is changed by a factor from 1 / (1 + aspect) to 1 + aspect.
        flip: share of pictures mirrored left to right.
        rotation: degrees, either way.
        brightness, contrast, saturation: shares, either way.
        hue: share of a full turn of the colour circle, either way.
        mosaic: share of pictures put together of four.
        min_visible: an object is kept when at least this share of its box lies in the window.
        min_objects: a crop is taken when it keeps at least this share of the picture's objects; after ten
            draws without one the whole picture is taken.
        fill: RGB of what lies outside the picture.
    """

    window: tuple[float, float] = (1.0, 1.0)
    aspect: float = 0.0
    flip: float = 0.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    mosaic: float = 0.0
    min_visible: float = 0.3
    min_objects: float = 0.3
    fill: tuple[int, int, int] = GREY


DETECTION = Augmentation(
    window=(0.5, 1.5), aspect=0.3, flip=0.5, brightness=0.12, contrast=0.3, saturation=0.4, hue=0.02
)
CLASSIFICATION = Augmentation(
    window=(0.6, 1.0), aspect=0.3, flip=0.5, brightness=0.12, contrast=0.3, saturation=0.3, min_objects=0.0
)
POSE = Augmentation(
    window=(0.8, 1.4), flip=0.5, rotation=30.0, brightness=0.12, contrast=0.3, saturation=0.3, min_objects=1.0
)
PRESETS = {"none": None, "detection": DETECTION, "classification": CLASSIFICATION, "pose": POSE}


@dataclasses.dataclass
class Sample:
    """A picture on its way to the net.

    Attributes:
        image: uint8 [H, W, 3].
        boxes: float32 [M, 4].
        columns: per object: {"labels", "difficult", "crowd", "area"}, each [M].
        joints: float32 [J, 3] or [M, J, 3], or None.
        masks: bool [M, H, W], or None.
        scale: (x, y) pixels of the sample a pixel of the file.
        offset: (x, y) where the file's corner (0, 0) lies, in pixels of the sample, before a flip or a
            rotation.
    """

    image: np.ndarray
    boxes: np.ndarray
    columns: dict[str, np.ndarray]
    joints: np.ndarray | None = None
    masks: np.ndarray | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)


def augment(
    sample: Sample,
    size: tuple[int, int],
    how: Augmentation,
    rng: np.random.Generator,
    letterbox: bool = False,
    swap: np.ndarray | None = None,
) -> Sample:
    """Draws one variant of a picture and what is marked in it.

    Args:
        sample: the whole picture.
        size: (h, w) of the result.
        how: the ranges.
        rng: the only source of randomness.
        letterbox: True keeps the picture's ratio (but for `aspect`), False stretches the picture to the
            result's.
        swap: int [J], the joint that each joint becomes in a mirror.

    Returns:
        The sample at the new size, boxes inside the picture.
    """
    height, width = sample.image.shape[:2]
    window = draw_window(sample.boxes, width, height, size, how, rng, letterbox)
    angle = rng.uniform(-how.rotation, how.rotation) if how.rotation else 0.0
    mirrored = rng.random() < how.flip
    matrix = colour_matrix(how, rng)
    if matrix is not None:
        import cv2

        sample = dataclasses.replace(sample, image=cv2.transform(sample.image, matrix))
    sample = through_window(sample, window, size, how, angle)
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
    """A random window (x1, y1, x2, y2) of the picture, in its pixels; it may reach beyond the picture.

    Where the window is smaller than the picture it lies inside it, where it is larger it holds it, on each
    axis alone.
    """
    full_width, full_height = float(width), float(height)
    if letterbox:
        unit = max(width / size[1], height / size[0])
        full_width, full_height = unit * size[1], unit * size[0]
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


def visible_share(boxes: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    """Share [M] of each box's area that lies in the window (x1, y1, x2, y2)."""
    low = np.maximum(boxes[:, :2], window[:2])
    high = np.minimum(boxes[:, 2:], window[2:])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.prod(np.maximum(high - low, 0), axis=1) / np.maximum(area, 1e-9)


def through_window(
    sample: Sample,
    window: tuple[float, float, float, float],
    size: tuple[int, int],
    how: Augmentation,
    angle: float = 0.0,
) -> Sample:
    """The picture as seen through a window, turned by `angle` degrees about the window's middle.

    Args:
        window: (x1, y1, x2, y2) in the picture's pixels.
        size: (h, w) of the result.
        angle: degrees, counter-clockwise as seen.

    Returns:
        The sample at size `size`: objects clipped to it, those below `how.min_visible` left out; a joint
        outside is not visible. A turned box is the box round its turned corners.
    """
    h, w = size
    sx, sy = w / (window[2] - window[0]), h / (window[3] - window[1])
    affine = np.array([[sx, 0, -window[0] * sx], [0, sy, -window[1] * sy]])
    if angle:
        affine = _turn(angle, w / 2, h / 2) @ np.vstack([affine, [0, 0, 1]])
    image = _warp(sample.image, affine, size, how.fill, angle)
    moved = _hulls(sample.boxes, affine)
    share = visible_share(moved, (0, 0, w, h))
    kept = np.flatnonzero(share >= max(how.min_visible, 1e-6))
    columns = {name: column[kept] for name, column in sample.columns.items()}
    if "area" in columns:
        columns["area"] = columns["area"] * np.float32(sx * sy) * share[kept].astype(np.float32)
    joints = sample.joints
    if joints is not None:
        joints = move_joints(joints if joints.ndim == 2 else joints[kept], affine, size)
    masks = sample.masks
    if masks is not None:
        masks = _warp_masks(masks[kept], affine, size, angle)
    return Sample(
        image,
        np.clip(moved[kept], 0, [w, h, w, h]).astype(np.float32),
        columns,
        joints,
        masks,
        (sample.scale[0] * sx, sample.scale[1] * sy),
        (
            sample.offset[0] * sx + affine[0, 2] * (not angle),
            sample.offset[1] * sy + affine[1, 2] * (not angle),
        ),
    )


def _turn(angle: float, x: float, y: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]])


def _hulls(boxes: np.ndarray, affine: np.ndarray) -> np.ndarray:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    moved = corners @ affine[:, :2].T + affine[:, 2]
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


def _warp(image, affine, size, fill, angle):
    """Pixels under an affine map of continuous coordinates, reduced first where bilinear sampling would
    skip pixels."""
    import cv2

    h, w = size
    scale = np.hypot(affine[0], affine[1])[:2] if angle else np.array([affine[0, 0], affine[1, 1]])
    if (scale < 0.75).any():
        small = [max(1, round(side * min(1.0, s))) for side, s in zip(image.shape[1::-1], scale, strict=True)]
        affine = affine @ np.diag([image.shape[1] / small[0], image.shape[0] / small[1], 1.0])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    # OpenCV puts a pixel's middle on its number; here it lies at the number and a half.
    centred = affine.copy()
    centred[:, 2] += affine[:, :2] @ [0.5, 0.5] - 0.5
    # The edge is repeated half a pixel outwards by clipping to the picture afterwards, so that no dark rim
    # is mixed in.
    warped = cv2.warpAffine(image, centred, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return _outside(warped, affine, image.shape, fill)


def _outside(warped, affine, shape, fill):
    """Fills what lies beyond the picture: a pixel belongs to it when its middle does."""
    import cv2

    h, w = warped.shape[:2]
    corners = (
        np.array([[0, 0], [shape[1], 0], [shape[1], shape[0]], [0, shape[0]]]) @ affine[:, :2].T
        + affine[:, 2]
    )
    if affine[0, 1] == 0 and affine[1, 0] == 0:
        x1, y1 = np.clip(np.ceil(corners[0] - 0.5), 0, [w, h]).astype(int)
        x2, y2 = np.clip(np.ceil(corners[2] - 0.5), 0, [w, h]).astype(int)
        warped[:y1], warped[y2:], warped[:, :x1], warped[:, x2:] = fill, fill, fill, fill
        return warped
    inside = np.zeros((h, w), np.uint8)
    cv2.fillConvexPoly(inside, np.round((corners - 0.5) * 256).astype(np.int32), 255, cv2.LINE_8, shift=8)
    warped[inside == 0] = fill
    return warped


def _warp_masks(masks, affine, size, angle):
    moved = np.zeros((len(masks), *size), bool)
    for index, mask in enumerate(masks):
        picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
        moved[index] = _warp(picture, affine, size, (0, 0, 0), angle)[..., 0] > 127
    return moved


def move_joints(joints: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Joints [..., J, 3] under an affine map; those that leave the picture become (0, 0, 0)."""
    places = joints[..., :2] @ affine[:, :2].T + affine[:, 2]
    inside = (places >= 0).all(-1) & (places <= [size[1], size[0]]).all(-1) & (joints[..., 2] > 0)
    return np.where(inside[..., None], np.concatenate([places, joints[..., 2:]], -1), 0).astype(np.float32)


def flip(sample: Sample, swap: np.ndarray | None = None) -> Sample:
    """The sample mirrored left to right; `swap` int [J] tells which joint a joint becomes (left hand,
    right hand)."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    joints = sample.joints
    if joints is not None:
        joints = joints.copy()
        joints[..., 0] = np.where(joints[..., 2] > 0, width - joints[..., 0], 0)
        joints = joints if swap is None else joints[..., swap, :]
    masks = sample.masks if sample.masks is None else sample.masks[..., ::-1].copy()
    return dataclasses.replace(
        sample, image=np.ascontiguousarray(sample.image[:, ::-1]), boxes=boxes, joints=joints, masks=masks
    )


def colour_matrix(how: Augmentation, rng: np.random.Generator) -> np.ndarray | None:
    """One float32 [3, 4] map of colours: hue, saturation, contrast about middle grey and brightness; None
    for no change."""
    if not (how.brightness or how.contrast or how.saturation or how.hue):
        return None
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * (
        how.brightness,
        how.contrast,
        how.saturation,
        how.hue * 2 * np.pi,
    )
    axis = np.full((3, 3), 1 / 3)  # the turn of the colour circle is a turn about the grey axis
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = axis + np.cos(hue) * (np.eye(3) - axis) + np.sin(hue) * cross
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    linear = (1 + contrast) * ((1 + saturation) * np.eye(3) - saturation * grey) @ turn
    shift = 255 * brightness - 127.5 * contrast
    return np.column_stack([linear, np.full(3, shift)]).astype(np.float32)
