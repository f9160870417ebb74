"""A painting made by code: strokes that follow a flow round whirls, light on dark. The style when none is given."""

import cv2
import numpy as np
from scipy import ndimage

# Night blues, a pale sky, straw and orange; strokes near a whirl take the warm end.
_PALETTE = np.array(
    [
        (16, 24, 66),
        (28, 56, 122),
        (52, 98, 164),
        (108, 152, 186),
        (198, 206, 172),
        (240, 206, 92),
        (222, 130, 40),
    ],
    np.float32,
)
_MARGIN = 40  # pixels round the painting that are cut off, so that strokes run over its edge


def swirls(height: int = 512, width: int = 640, seed: int = 0, strokes: int = 11000) -> np.ndarray:
    """Paint whirls with short bent strokes.

    Args:
        height, width: pixels.
        seed: of the whirls and the strokes.
        strokes: how many, the broad ones first.

    Returns:
        uint8 [height, width, 3].
    """
    random = np.random.default_rng(seed)
    size = np.array([height + 2 * _MARGIN, width + 2 * _MARGIN])
    angle, warmth = _flow(*size, random)
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = _PALETTE[0]
    broad = np.linspace(1.0, 0.0, strokes)
    starts = random.uniform(0, size - 1, (strokes, 2))
    lines = _follow(angle, starts, 40)  # [strokes, 40, 2]
    rows, columns = starts.astype(int).T
    shade = np.clip(warmth[rows, columns] * 5.2 + random.normal(0, 0.75, strokes), 0, len(_PALETTE) - 1.001)
    low = shade.astype(int)
    colours = _PALETTE[low] + (shade - low)[:, None] * (_PALETTE[low + 1] - _PALETTE[low])
    colours = colours + random.normal(0, 9, (strokes, 3))
    for line, colour, b in zip(lines, colours, broad, strict=True):
        line = line[: int(14 + 26 * b)]
        _fill(canvas, line, 1.4 + 2.2 * b, 0.0, colour)
        _fill(canvas, line, 0.5 + 0.6 * b, 0.5 + 0.8 * b, colour + 16)  # the ridge of the paint
    return canvas[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].copy()


def _flow(height, width, random):
    """The strokes' direction (radians) and how warm the colour is (0..1), at each pixel."""
    noise = ndimage.gaussian_filter(random.normal(size=(height, width)), height / 9)
    slope_y, slope_x = np.gradient(noise / np.abs(np.gradient(noise)).max())
    along_y, along_x = -0.6 * slope_x, 0.6 * slope_y + 0.35
    warmth = 0.28 + 0.12 * noise / np.abs(noise).max()
    rows, columns = np.mgrid[:height, :width]
    for _ in range(9):
        dy, dx = rows - random.uniform(0, height), columns - random.uniform(0, width)
        size = random.uniform(0.05, 0.17) * height
        distance = np.hypot(dy, dx) + 1e-6
        turn = random.choice([-2.5, 2.5]) * np.exp(-((distance / (2.2 * size)) ** 2))
        along_y, along_x = along_y + turn * dx / distance, along_x - turn * dy / distance
        rings = 0.5 + 0.5 * np.cos(distance / size * 3.2)
        warmth = warmth + np.exp(-((distance / size) ** 2)) * (0.35 + 0.35 * rings)
    return np.arctan2(along_y, along_x), np.clip(warmth, 0, 1)


def _follow(angle, starts, length):
    """Lines of `length` points (y, x) that follow the flow from their starts."""
    points, lines = starts.copy(), []
    limit = np.array(angle.shape) - 1
    for _ in range(length):
        lines.append(points.copy())
        rows, columns = np.clip(points, 0, limit).astype(int).T
        direction = angle[rows, columns]
        points = points + np.stack([np.sin(direction), np.cos(direction)], axis=1)
    return np.stack(lines, axis=1)


def _fill(canvas, line, radius, shift, colour):
    """Fill a line that swells and tapers, moved sideways by `shift` pixels; 1/16 pixel exact."""
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    swell = radius * np.minimum(1.0, 3.0 * np.sin(np.linspace(0.1, np.pi - 0.1, len(line))))[:, None]
    outline = np.concatenate([line + normal * (shift + swell), (line + normal * (shift - swell))[::-1]])
    corners = np.rint(outline[:, ::-1] * 16).astype(np.int32)
    cv2.fillPoly(canvas, [corners], np.clip(colour, 0, 255).tolist(), cv2.LINE_AA, 4)
