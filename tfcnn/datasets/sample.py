"""A picture on its way to the net, and the maps that move its pixels, boxes, joints and masks together.

H W the sample's size, h w the size it gets, M objects, J joints. Nothing here is random. Coordinates are
continuous: pixel i covers [i, i + 1).
"""

import dataclasses

import numpy as np

from tfcnn import images


@dataclasses.dataclass
class Sample:
    """A picture with what is marked in it.

    Attributes:
        image: uint8 [H, W, 3].
        boxes: float32 [M, 4].
        columns: per object: {"labels", "difficult", "crowd", "area"}, each [M].
        joints: float32 [J, 3] of the picture or [M, J, 3] of its objects (x, y, visible), or None.
        masks: bool [M, H, W], or None.
        void: bool [H, W], pixels that count for nobody, or None.
        proposals: float32 [R, 4], regions that another method proposed, or None.
        scale: (x, y) pixels of the sample a pixel of the file.
        offset: (x, y) where the file's corner (0, 0) lies, in pixels of the sample. A flip, a turn and a
            mosaic leave scale and offset as they were before.
        original_size: (height, width) of the file.
    """

    image: np.ndarray
    boxes: np.ndarray
    columns: dict[str, np.ndarray]
    joints: np.ndarray | None = None
    masks: np.ndarray | None = None
    void: np.ndarray | None = None
    proposals: np.ndarray | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    original_size: tuple[int, int] = (0, 0)


def resized(sample: Sample, size: int | tuple[int, int], mode: str, longest: int | None = None) -> Sample:
    """The whole picture at the net's size.

    Args:
        sample: of any size.
        size, mode, longest: as `images.resize` takes them.
    """
    image, at = images.resize(sample.image, size, mode, longest=longest)
    return placed(sample, image, at)


def placed(sample: Sample, image: np.ndarray, at: images.Placement) -> Sample:
    """The sample with another picture instead of its own, and everything else moved to fit it.

    Args:
        sample: of any size.
        image: uint8 [h, w, 3].
        at: from the sample's pixels to those of `image`.
    """
    h, w = image.shape[:2]
    edges = np.array([w, h, w, h])
    scale = np.abs([at.scale_x, at.scale_y])
    joints, masks, void, proposals = sample.joints, sample.masks, sample.void, sample.proposals
    if joints is not None:
        joints = move_joints(joints, at.affine(), (h, w))
    if masks is not None:
        masks = _nearest(masks, (h, w), at)
    if void is not None:
        void = _nearest(void[None], (h, w), at)[0]
    if proposals is not None:
        proposals = np.clip(at.from_file(proposals), 0, edges)
    return Sample(
        image=image,
        boxes=np.clip(at.from_file(sample.boxes), 0, edges),
        columns=sample.columns | {"area": (sample.columns["area"] * scale.prod()).astype(np.float32)},
        joints=joints,
        masks=masks,
        void=void,
        proposals=proposals,
        scale=tuple(np.array(sample.scale) * scale),
        offset=tuple(np.array(sample.offset) * scale + [at.offset_x, at.offset_y]),
        original_size=sample.original_size,
    )


def _nearest(masks: np.ndarray, size: tuple[int, int], at: images.Placement) -> np.ndarray:
    """Masks [M, H, W] read at the centre of each pixel of the result; False outside."""
    masks = masks.transpose(0, 2, 1) if at.swapped else masks
    rows = np.floor((np.arange(size[0]) + 0.5 - at.offset_y) / at.scale_y).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5 - at.offset_x) / at.scale_x).astype(int)
    inside = ((rows >= 0) & (rows < masks.shape[1]))[:, None] & ((columns >= 0) & (columns < masks.shape[2]))
    taken = masks[:, np.clip(rows, 0, masks.shape[1] - 1)][:, :, np.clip(columns, 0, masks.shape[2] - 1)]
    return taken & inside


def visible_share(boxes: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    """How much of each box shows.

    Args:
        boxes: float32 [M, 4].
        window: (x1, y1, x2, y2) in the same pixels.

    Returns:
        [M], the share of each box's area that lies in the window, 0..1.
    """
    low = np.maximum(boxes[:, :2], window[:2])
    high = np.minimum(boxes[:, 2:], window[2:])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.prod(np.maximum(high - low, 0), axis=1) / np.maximum(area, 1e-9)


def through_window(
    sample: Sample,
    window: tuple[float, float, float, float],
    size: tuple[int, int],
    fill: tuple[int, int, int],
    min_visible: float = 0.0,
    angle: float = 0.0,
    beyond: bool = False,
) -> Sample:
    """The picture as seen through a window, turned about the window's centre: one affine map for everything.

    Args:
        window: (x1, y1, x2, y2) in the sample's pixels; it may reach beyond the picture.
        size: (h, w) of the result.
        fill: RGB of what lies outside the picture.
        min_visible: objects and proposals that show a smaller share of their box are left out.
        angle: degrees, counter-clockwise as seen.
        beyond: leave boxes whole where they reach beyond the window.

    Returns:
        The sample of size (h, w): boxes clipped to it unless `beyond`, areas times the change of scale and the share
        that shows; a joint outside is not visible. The box of a turned object is the one round its turned corners,
        of a person with joints [J, 3] the one round the turned joints.
    """
    h, w = size
    sx, sy = w / (window[2] - window[0]), h / (window[3] - window[1])
    affine = np.array([[sx, 0, -window[0] * sx], [0, sy, -window[1] * sy]])
    offset = np.array(sample.offset) * (sx, sy) + affine[:, 2]
    if angle:
        affine = _turn(angle, w / 2, h / 2) @ np.vstack([affine, [0, 0, 1]])
    moved = _hulls(sample.boxes, affine)
    if angle and sample.joints is not None and sample.joints.ndim == 2 and len(moved) == 1:
        points = sample.joints[sample.joints[:, 2] > 0, :2] @ affine[:, :2].T + affine[:, 2]
        if len(points) and (np.ptp(points, axis=0) > 0).all():
            moved = np.concatenate([points.min(0), points.max(0)])[None]
    share = visible_share(moved, (0, 0, w, h))
    kept = np.flatnonzero(share >= max(min_visible, 1e-6))
    columns = {name: column[kept] for name, column in sample.columns.items()}
    columns["area"] = (columns["area"] * (sx * sy) * share[kept]).astype(np.float32)
    joints, masks, void, proposals = sample.joints, sample.masks, sample.void, sample.proposals
    if proposals is not None:
        proposals = _hulls(proposals, affine)
        shown = visible_share(proposals, (0, 0, w, h)) >= max(min_visible, 1e-6)
        proposals = np.clip(proposals[shown], 0, [w, h, w, h]).astype(np.float32)
    if joints is not None:
        joints = move_joints(joints if joints.ndim == 2 else joints[kept], affine, size)
    if masks is not None:
        masks = np.array([_warp_mask(mask, affine, size) for mask in masks[kept]], bool).reshape(-1, h, w)
    if void is not None:
        void = _warp_mask(void, affine, size)
    return dataclasses.replace(
        sample,
        image=_warp(sample.image, affine, size, fill),
        boxes=(moved[kept] if beyond else np.clip(moved[kept], 0, [w, h, w, h])).astype(np.float32),
        columns=columns,
        joints=joints,
        masks=masks,
        void=void,
        proposals=proposals,
        scale=(sample.scale[0] * sx, sample.scale[1] * sy),
        offset=tuple(offset),
    )


def _turn(angle: float, x: float, y: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]])


def _hulls(boxes: np.ndarray, affine: np.ndarray) -> np.ndarray:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    moved = corners @ affine[:, :2].T + affine[:, 2]
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


def _warp(image: np.ndarray, affine: np.ndarray, size: tuple[int, int], fill: tuple[int, ...]) -> np.ndarray:
    """Pixels under an affine map, averaged first where bilinear sampling alone would skip some."""
    import cv2

    h, w = size
    source = affine
    scale = np.hypot(affine[0, :2], affine[1, :2])
    if (scale < 0.75).any():
        small = [max(1, round(side * min(1.0, s))) for side, s in zip(image.shape[1::-1], scale, strict=True)]
        affine = affine @ np.diag([image.shape[1] / small[0], image.shape[0] / small[1], 1.0])
        reduced = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    else:
        reduced = image
    # OpenCV puts the centre of pixel i on i, here it lies on i + 0.5.
    shifted = affine.copy()
    shifted[:, 2] += affine[:, :2] @ [0.5, 0.5] - 0.5
    warped = cv2.warpAffine(reduced, shifted, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    _fill_outside(warped, source, image.shape[:2], fill)
    return warped


def _fill_outside(
    warped: np.ndarray, affine: np.ndarray, shape: tuple[int, int], fill: tuple[int, ...]
) -> None:
    """Fills, in place, what lies beyond the picture: a pixel belongs to it when its centre does."""
    import cv2

    h, w = warped.shape[:2]
    corners = np.array([[0, 0], [shape[1], 0], [shape[1], shape[0]], [0, shape[0]]], np.float64)
    corners = corners @ affine[:, :2].T + affine[:, 2]
    if affine[0, 1] == 0 and affine[1, 0] == 0:
        (x1, y1), (x2, y2) = np.clip(np.ceil(corners[[0, 2]] - 0.5), 0, [w, h]).astype(int).tolist()
        for left, top, right, bottom in ((0, 0, w, y1), (0, y2, w, h), (0, y1, x1, y2), (x2, y1, w, y2)):
            if right > left and bottom > top:
                cv2.rectangle(warped, (left, top), (right - 1, bottom - 1), fill, cv2.FILLED)
        return
    inside = np.zeros((h, w), np.uint8)
    cv2.fillConvexPoly(inside, np.round((corners - 0.5) * 256).astype(np.int32), 255, cv2.LINE_8, 8)
    warped[inside == 0] = fill


def _warp_mask(mask: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return _warp(mask[..., None].astype(np.uint8) * 255, affine, size, (0,)) > 127


def move_joints(joints: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Joints under an affine map.

    Args:
        joints: float32 [..., J, 3] (x, y, visible).
        affine: float64 [2, 3].
        size: (h, w) of the picture that they go to.

    Returns:
        float32 [..., J, 3]; joints that leave the picture become (0, 0, 0).
    """
    points = joints[..., :2] @ affine[:, :2].T + affine[:, 2]
    inside = (points >= 0).all(-1) & (points <= [size[1], size[0]]).all(-1) & (joints[..., 2] > 0)
    moved = np.concatenate([points, joints[..., 2:]], axis=-1)
    return np.where(inside[..., None], moved, 0).astype(np.float32)


def flip(sample: Sample, swap: np.ndarray | None = None) -> Sample:
    """The sample mirrored left to right.

    Args:
        swap: int [J], the joint that each joint becomes in a mirror (a left hand a right one); see
            `mirrored_joints`.
    """
    import cv2

    width = sample.image.shape[1]
    joints, masks, void, proposals = sample.joints, sample.masks, sample.void, sample.proposals
    boxes = _mirrored_boxes(sample.boxes, width)
    if proposals is not None:
        proposals = _mirrored_boxes(proposals, width)
    if joints is not None:
        joints = joints.copy()
        joints[..., 0] = np.where(joints[..., 2] > 0, width - joints[..., 0], 0)
        joints = joints if swap is None else joints[..., swap, :]
    if masks is not None:
        masks = np.ascontiguousarray(masks[..., ::-1])
    if void is not None:
        void = np.ascontiguousarray(void[:, ::-1])
    image = cv2.flip(sample.image, 1)
    return dataclasses.replace(
        sample, image=image, boxes=boxes, joints=joints, masks=masks, void=void, proposals=proposals
    )


def _mirrored_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = width - boxes[:, [2, 0]]
    return mirrored


def mirrored_joints(names: list[str]) -> np.ndarray:
    """The joint, int [J], that each joint becomes in a mirror: "left_" and "right_" are swapped in its
    name; itself where there is none of that name."""
    index = {name: k for k, name in enumerate(names)}
    return np.array([index.get(_mirrored(name), k) for k, name in enumerate(names)])


def _mirrored(name: str) -> str:
    side, _, part = name.partition("_")
    return {"left": f"right_{part}", "right": f"left_{part}"}.get(side, name)
