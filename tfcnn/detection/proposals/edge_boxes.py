"""Edge Boxes: a box is likely an object where many contours lie wholly inside it.

G groups of edges, n boxes, W boxes scored at a time.

Two searches over the same edges: our own, and that of opencv-contrib where it is installed, which is many times faster.

Source: Zitnick and Dollar, "Edge Boxes: Locating Object Proposals from Edges", 2014; constants of the authors' program
(pdollar/edges, edgeBoxes.m).
"""

import cv2
import numpy as np

from tfcnn.detection.proposals import edges
from tfcnn.errors import InputError, unknown

SEARCHES = ("own", "contrib")
ALPHA = 0.65  # IoU of neighbouring boxes of the search
BETA = 0.75  # IoU above which the lower of two boxes goes
KAPPA = 1.5  # how much less a large box's contours count
LEAST_SCORE = 0.01
MOST_ASPECT = 3.0
LEAST_AREA = 1000 / 500**2  # minBoxArea of a picture of 500 pixels, as a share of its longer side's square
SCORED = 6000  # boxes of the search that are scored in full: those of the highest bounds
REFINED = 500  # of these, boxes whose sides are moved, best first
LEAST_SIDE = 8  # opencv-contrib's, pixels: a box without area would have an infinite score
AT_ONCE = 1_000_000  # numbers of the table of boxes and groups that is held at a time


def search_of(search: str | None = None) -> str:
    """The search that `edge_boxes` makes: "own" or "contrib".

    Args:
        search: "own"; "contrib", that of opencv-contrib; None: opencv-contrib's where it is installed, else our own.

    Raises:
        InputError: another name, or opencv-contrib is asked for and not installed.
    """
    installed = hasattr(getattr(cv2, "ximgproc", None), "createEdgeBoxes")
    if search is None:
        return "contrib" if installed else "own"
    if search not in SEARCHES:
        raise unknown("search", search, SEARCHES)
    if search == "contrib" and not installed:
        raise InputError(
            f"search={search!r} needs OpenCV's ximgproc, which is not installed: put opencv-contrib-python-headless in "
            "the place of opencv-python-headless."
        )
    return search


def edge_boxes(
    image: np.ndarray, count: int, seed: int = 0, beta: float = BETA, search: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best boxes by their contours.

    Args:
        image: uint8 [H, W, 3], RGB.
        count: most boxes.
        seed: not used: nothing is drawn.
        beta: IoU above which the lower of two boxes goes.
        search: of `search_of`.

    Returns:
        (boxes float32 [n, 4], scores float32 [n]), best first.

    Raises:
        InputError: opencv-contrib is asked for and not installed.

    Source: section 3.3: a search over positions, sizes and aspects, greedy refinement, suppression.
    """
    magnitude, orientation = edges.edge_map(image)
    if search_of(search) == "contrib":
        return contrib_search(magnitude, orientation, count, beta)
    return own_search(magnitude, orientation, count, beta)


def contrib_search(
    magnitude: np.ndarray, orientation: np.ndarray, count: int, beta: float = BETA
) -> tuple[np.ndarray, np.ndarray]:
    """Searches with opencv-contrib's EdgeBoxes: all boxes of the search are scored in full and refined.

    Args:
        magnitude, orientation: float32 [H, W], of `edges.edge_map`.
        count: most boxes.
        beta: IoU above which the lower of two boxes goes.

    Returns:
        (boxes float32 [n, 4], scores float32 [n]), best first.
    """
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    if not (magnitude > edges.LEAST_MAGNITUDE).any():
        return nothing
    finder = cv2.ximgproc.createEdgeBoxes(  # a new one for each picture: it keeps tables of the one before
        alpha=ALPHA,
        beta=beta,
        eta=1.0,
        minScore=LEAST_SCORE,
        maxBoxes=count,
        edgeMinMag=edges.LEAST_MAGNITUDE,
        edgeMergeThr=edges.MOST_TURN / np.pi,  # it counts half turns
        clusterMinMag=edges.LEAST_GROUP,
        maxAspectRatio=MOST_ASPECT,
        minBoxArea=max(LEAST_AREA * max(magnitude.shape) ** 2, LEAST_SIDE**2),
        gamma=edges.GAMMA,
        kappa=KAPPA,
    )
    sides, scores = finder.getBoundingBoxes(magnitude, normals(orientation))
    if not len(sides):
        return nothing
    boxes = np.array(sides, np.float32)
    boxes[:, :2] -= 1  # its first pixel is 1, as in the authors' program
    boxes[:, 2:] += boxes[:, :2]
    scores = np.ravel(scores).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def normals(orientation: np.ndarray) -> np.ndarray:
    """The orientation across an edge, as opencv-contrib has it, of the one along it.

    Args:
        orientation: float32 [H, W], radians, of `edges.edge_map`.

    Returns:
        float32 [H, W], 0..pi, x to the right and y down.

    Source: opencv_contrib, ximgproc: StructuredEdgeDetection.computeOrientation.
    """
    return np.mod(orientation + np.pi / 2, np.pi).astype(np.float32)


def own_search(
    magnitude: np.ndarray, orientation: np.ndarray, count: int, beta: float = BETA
) -> tuple[np.ndarray, np.ndarray]:
    """Searches by ourselves: boxes of the highest bounds are scored in full, and the best of these are refined.

    Args:
        magnitude, orientation: float32 [H, W], of `edges.edge_map`.
        count: most boxes.
        beta: IoU above which the lower of two boxes goes.

    Returns:
        (boxes float32 [n, 4], scores float32 [n]), best first.
    """
    groups = edges.grouped(magnitude, orientation)
    if not len(groups.boxes):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    grids = windows(magnitude.shape)
    bounds = np.concatenate([grid_bounds(groups, *grid) for grid in grids] or [np.zeros(0)])
    best = np.argsort(-bounds, kind="stable")[:SCORED]
    boxes = np.concatenate([_boxes_of(*grid) for grid in grids] or [np.zeros((0, 4))])[best]
    boxes, scores = _suppressed(boxes, box_scores(groups, boxes), SCORED, beta)
    best = refined(groups, boxes[:REFINED], scores[:REFINED], magnitude.shape)
    boxes, scores = (
        np.concatenate(parts) for parts in zip(best, (boxes[REFINED:], scores[REFINED:]), strict=True)
    )
    return _suppressed(boxes, scores, count, beta)


def windows(shape: tuple[int, ...], alpha: float = ALPHA) -> list[tuple[np.ndarray, np.ndarray]]:
    """The boxes of the search: two neighbours in position, size or aspect have an IoU of alpha.

    Args:
        shape: (H, W, ...) of the picture.
        alpha: as said.

    Returns:
        a grid of boxes a size: (float32 [nx, 2] as (x1, x2), float32 [ny, 2] as (y1, y2)), whole pixels.
    """
    height, width = shape[:2]
    scale_step, aspect_step = np.sqrt(1 / alpha), (1 + alpha) / (2 * alpha)
    step = (1 - alpha) / (1 + alpha)
    least = np.sqrt(LEAST_AREA) * max(height, width)
    sizes = least * scale_step ** np.arange(1 + np.log(max(height, width) / least) / np.log(scale_step))
    turns = int(np.log(MOST_ASPECT) / np.log(aspect_step**2))
    found = []
    for size in sizes:
        for turn in range(-turns, turns + 1):
            w, h = size * aspect_step**turn, size / aspect_step**turn
            if w <= width and h <= height:
                x = np.arange(0, width - w + 1e-3, max(2.0, w * step))
                y = np.arange(0, height - h + 1e-3, max(2.0, h * step))
                spans = (np.stack([start, start + side], axis=1) for start, side in ((x, w), (y, h)))
                found.append(tuple(np.rint(span).astype(np.float32) for span in spans))
    return found


def _boxes_of(across, down):
    """float32 [ny nx, 4] of a grid."""
    x, y = np.meshgrid(np.arange(len(across)), np.arange(len(down)))
    return np.concatenate([across[x.ravel()], down[y.ravel()]], axis=1)[:, [0, 2, 1, 3]]


def _suppressed(boxes, scores, count, beta):
    """At most `count` boxes above LEAST_SCORE, best first, without those that a better one covers."""
    good = scores > LEAST_SCORE
    boxes, scores = boxes[good].astype(np.float32), scores[good]
    if not len(boxes):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = np.asarray(cv2.dnn.NMSBoxes(sides, scores, LEAST_SCORE, beta), np.int64)[:count]
    return boxes[kept], scores[kept]


def grid_bounds(groups: edges.Groups, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """What the boxes of a grid score at most: every group wholly inside counts in full.

    Inside in x and inside in y are two tables, whose product over the groups is the sum of a box.

    Args:
        groups: of `edges.grouped`.
        across: float32 [nx, 2]; down: float32 [ny, 2], of `windows`.

    Returns:
        float32 [ny nx], in the order of the grid's rows.
    """
    inside, middle = [], []
    for span, column in ((across, 0), (down, 1)):
        low, high = groups.boxes[:, column], groups.boxes[:, 2 + column]
        start, end = span.T[:, :, None]
        within = (low >= start) & (high <= end)
        quarter = (end - start) / 4
        inside.append(within.astype(np.float32))
        middle.append((within & (high > start + quarter) & (high <= end - quarter)).astype(np.float32))
    total = (inside[1] * groups.magnitudes) @ inside[0].T - (middle[1] * groups.magnitudes) @ middle[0].T
    half = ((across[0, 1] - across[0, 0]) + (down[0, 1] - down[0, 0])) / 2
    return (total / half**KAPPA).ravel()


def box_scores(groups: edges.Groups, boxes: np.ndarray) -> np.ndarray:
    """How much contour each box has wholly inside, the middle left out.

    A group counts with its magnitude times 1 less its strongest affinity with a group that crosses the box; a group
    crosses where the box around it does.

    Args:
        groups: of `edges.grouped`.
        boxes: float32 [n, 4].

    Returns:
        float32 [n], divided by (width / 2 + height / 2) to the power KAPPA, the authors' norm.

    Source: section 3.2, equations 2 to 4.
    """
    scores = np.zeros(len(boxes), np.float32)
    if not len(groups.boxes):
        return scores
    table = groups.affinities
    own = groups.boxes.T.astype(np.float32)
    step = max(1, AT_ONCE // len(groups.boxes))
    for first in range(0, len(boxes), step):
        part = boxes[first : first + step]
        x1, y1, x2, y2 = part.T[:, :, None]
        inside = (own[0] >= x1) & (own[1] >= y1) & (own[2] <= x2) & (own[3] <= y2)
        touching = (own[0] < x2) & (own[1] < y2) & (own[2] > x1) & (own[3] > y1)
        box, group = np.nonzero(touching & ~inside)
        weight = inside.astype(np.float32)
        count = table.indptr[group + 1] - table.indptr[group]
        entry = np.repeat(table.indptr[group] - np.cumsum(count) + count, count) + np.arange(count.sum())
        np.minimum.at(
            weight.reshape(-1),
            np.repeat(box * len(own[0]), count) + table.indices[entry],
            1 - table.data[entry],
        )
        quarter_x, quarter_y = (x2 - x1) / 4, (y2 - y1) / 4
        middle = (own[2] > x1 + quarter_x) & (own[3] > y1 + quarter_y)
        middle &= (own[2] <= x2 - quarter_x) & (own[3] <= y2 - quarter_y)  # by its lower right pixel
        weight *= inside & ~middle
        half = np.maximum(x2 - x1 + y2 - y1, 1)[:, 0] / 2
        scores[first : first + step] = weight @ groups.magnitudes / half**KAPPA
    return scores


def refined(
    groups: edges.Groups, boxes: np.ndarray, scores: np.ndarray, shape: tuple[int, ...], alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Each box's sides moved outwards and inwards while its score grows, by ever smaller steps.

    Args:
        groups: of `edges.grouped`.
        boxes: float32 [n, 4]; scores: float32 [n], theirs.
        shape: (H, W, ...) of the picture.
        alpha: of the search: the first step is half of what lay between its boxes.

    Returns:
        (boxes, scores) in the same order.
    """
    height, width = shape[:2]
    boxes, scores = boxes.copy(), scores.copy()
    sides = boxes[:, 2:] - boxes[:, :2]
    steps = np.tile(sides * (1 - alpha) / (1 + alpha), 2)  # of x1, y1, x2, y2
    while (open_ := np.flatnonzero(steps.max(axis=1) > 2)).size:
        steps[open_] = np.maximum(steps[open_] / 2, 1).round()
        for side in range(4):
            for sign in (-1, 1):
                moved = boxes[open_]
                moved[:, side] += sign * steps[open_, side]
                moved = np.clip(moved, 0, [width, height, width, height]).astype(np.float32)
                new = np.where((moved[:, 2:] - moved[:, :2] >= 4).all(axis=1), box_scores(groups, moved), 0)
                better = new > scores[open_]
                boxes[open_[better]], scores[open_[better]] = moved[better], new[better]
    return boxes, scores
