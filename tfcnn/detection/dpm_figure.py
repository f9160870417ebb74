"""Pictures of deformable part models: a component as the paper draws it, parts in a picture, the net's stages.

Letters: kh kw a root's sides in cells, P parts, s their side in cells of the fine map.

Source: Felzenszwalb et al. 2010, figures 1 and 2; Girshick et al. 2015, figure 3.
"""

from __future__ import annotations

import numpy as np

from tfcnn import draw, images
from tfcnn.detection.dpm import Component
from tfcnn.detection.dpm_net import FIRST_MAP, Dpm
from tfcnn.ops import hog
from tfcnn.ops.distance_transform import distance_transform

CELL = 24  # pixels of a coarse cell in drawings, even


def component_picture(component: Component, cell: int = CELL) -> np.ndarray:
    """A component's root filter, its part filters at their anchors, and what moving each part costs.

    Filters are glyphs of their positive weights, as bright as the strongest. Costs: in each part's window, the darker
    the cheaper is a part whose middle is moved there.

    Args:
        component: with HOG features.
        cell: pixels of a coarse cell, even.

    Returns:
        uint8 [kh cell, 3 kw cell + 8, 3].
    """
    kh, kw = component.shape
    root = draw.hog_glyphs(hog.orientation_weights(component.root), cell, offset=0)
    weights = hog.orientation_weights(component.parts)  # [P, s, s, 9]
    side, half = component.parts.shape[1], cell // 2
    filters, costs = (np.zeros([kh * cell, kw * cell, 3], np.uint8) for _ in range(2))
    most = np.percentile(weights, 99)
    steps = (np.arange(side * half) + 0.5) / half - side / 2  # cells of the fine map from the middle
    springs = [
        a_x * steps**2 + b_x * steps + (a_y * steps**2 + b_y * steps)[:, None]
        for a_x, b_x, a_y, b_y in component.deformation
    ]
    dearest = np.percentile([each - each.min() for each in springs], 90)
    for (y, x), own, spring in zip(component.anchors * half, weights, springs, strict=True):
        window = np.s_[y : y + side * half, x : x + side * half]
        glyph = draw.hog_glyphs(own, half, most, offset=0)
        filters[window] = np.maximum(filters[window], glyph)
        shade = np.clip((spring - spring.min()) / dearest, 0, 1) * 255
        costs[window] = np.maximum(costs[window] // 4, np.rint(shade)[..., None].astype(np.uint8))
        for panel in (filters, costs):
            edge = panel[window]
            edge[[0, -1]] = edge[:, [0, -1]] = (90, 90, 200)
    gap = np.full([kh * cell, 4, 3], 255, np.uint8)
    return np.concatenate([root, gap, filters, gap, costs], axis=1)


def parts_picture(
    picture: np.ndarray, filters: list[np.ndarray], boxes: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """A picture with the root and the parts of each object, and the predicted box in its class's colour.

    Args:
        picture: uint8 [H, W, 3].
        filters: [1 + P, 4] of each object, the root's box first, pixels.
        boxes: [n, 4], predicted.
        labels: int [n].

    Returns:
        uint8 [H, W, 3].
    """
    for own in filters:
        picture = draw.boxes(picture, own, [5] + [2] * (len(own) - 1))
    return draw.boxes(picture, boxes, labels)


def stages_picture(
    method: Dpm, picture: np.ndarray, shown_parts: int = 3, side: int = 220
) -> np.ndarray | None:
    """The net's stages on the level and with the component of a picture's best object.

    Above: the picture at that level, the root's response, the sum, which is the object geometry filter's answer, with
    the winning location. Below, for the first parts: their responses, and these after distance-transform pooling.

    Args:
        method: the model at work.
        picture: uint8 [H, W, 3].
        shown_parts: how many parts.
        side: of each tile, pixels.

    Returns:
        A sheet uint8 [H', W', 3]; None where nothing is found.
    """
    levels = method.on_pyramid(picture)
    places, _, margins, _ = method.above(levels, method.least)
    if not len(margins):
        return None
    place = places[np.argmax(margins)]
    number, shape = method.number(place), place[1]
    component, level = method.components[number], levels[place[0]]
    parts = level.maps[2][..., method.first_part[number] : method.first_part[number + 1]]
    pooled, _, _ = distance_transform(parts.transpose(2, 0, 1), component.deformation, method.output.radius)
    total = level.maps[FIRST_MAP + shape][..., place[4]]
    height, width = total.shape
    root = total - sum(
        own[y : y + 2 * height : 2, x : x + 2 * width : 2][:height, :width]
        for (y, x), own in zip(component.anchors, pooled, strict=True)
    )
    ends = [round(length * level.scale) for length in picture.shape[:2]]
    pad = method.output.pad

    def tile(values, factor):  # the map's part that lies on the picture
        first, cells = factor * pad, [max(1, factor * end // method.output.cell) for end in ends]
        shown = draw.heat_map(values[first : first + cells[0], first : first + cells[1]])
        return images.resize(shown, side, "letterbox", fill=(255, 255, 255))[0]

    box = method.output.windows(shape, *(np.array([i]) for i in place[2:4]), level.scale)
    found = images.resize(draw.boxes(picture, box, [5]), side, "letterbox", fill=(255, 255, 255))[0]
    tiles = [found, tile(root, 1), tile(total, 1)]
    captions = ["the root's place", "root filter's response", "object geometry: sum"]
    order = np.argsort(-np.square(component.parts).sum(axis=(1, 2, 3)))[:shown_parts]
    for values, name in ((parts.transpose(2, 0, 1), "response"), (pooled, "after distance transform")):
        tiles += [tile(values[i], 2) for i in order]
        captions += [f"part {i + 1}: {name}" for i in order]
    return draw.grid(tiles, 3, captions)
