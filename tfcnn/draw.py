"""Boxes with labels, skeletons, heat maps and sheets of pictures: uint8 [H, W, 3] in, a new one out."""

from __future__ import annotations

import colorsys
import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfcnn.errors import InputError

# Dark violet over red to pale yellow: lightness grows steadily, so it reads in grey too.
_HEAT = np.array(
    [(8, 4, 24), (62, 12, 96), (128, 28, 108), (190, 50, 84), (236, 94, 44), (250, 168, 50), (252, 252, 178)],
    np.float32,
)


def colour(index: int) -> tuple[int, int, int]:
    """The RGB of a class: neighbours differ clearly, and every index has one."""
    hue = index * 0.618033988749895 % 1.0
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.75, (0.95, 0.75)[index // 8 % 2]))


def boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw boxes on a picture, the best score on top.

    Args:
        image: uint8 [H, W, 3].
        boxes: [n, 4] (x1, y1, x2, y2) in its continuous pixels; parts outside are cut off.
        labels: [n] class indices: the colours, and with `names` the texts. Without, all have one colour.
        scores: [n], 0..1, written behind the name.
        names: the name of each class; letters that Pillow's font lacks are drawn with an installed font that has
            them, else written as \\uXXXX.

    Returns:
        uint8 [H, W, 3].
    """
    picture = Image.fromarray(np.asarray(image, np.uint8))
    canvas = ImageDraw.Draw(picture)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    side = min(picture.size)
    width = max(1, round(side / 150))
    font, shown = _font(names or (), max(10, round(side / 28)))
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for i in order:
        x1, y1, x2, y2 = boxes[i]
        if not (np.isfinite(boxes[i]).all() and x2 >= x1 and y2 >= y1):
            continue
        rgb = colour(0 if labels is None else int(labels[i]))
        left, top = math.floor(x1), math.floor(y1)
        right, bottom = max(left, math.ceil(x2) - 1), max(top, math.ceil(y2) - 1)
        canvas.rectangle((left, top, right, bottom), outline=rgb, width=width)
        words = [] if names is None or labels is None else [shown(str(names[int(labels[i])]))]
        words += [] if scores is None else [f"{scores[i]:.2f}"]
        if words:
            _tag(canvas, " ".join(words), max(0, left), max(0, top), rgb, font, picture.size)
    return np.array(picture)


def _tag(canvas, text, left, top, rgb, font, size):
    """A filled label over the upper edge of a box, or inside it where there is no room above."""
    x1, y1, x2, y2 = canvas.textbbox((0, 0), text, font=font)
    wide, high = x2 - x1 + 4, y2 - y1 + 4
    left = max(0, min(left, size[0] - wide))
    top = top - high if top >= high else top
    canvas.rectangle((left, top, left + wide, top + high), fill=rgb)
    light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140
    canvas.text((left + 2 - x1, top + 2 - y1), text, font=font, fill="black" if light else "white")


def masks(
    image: np.ndarray,
    masks: Iterable[np.ndarray],
    labels: Sequence[int] | None = None,
    alpha: float = 0.45,
) -> np.ndarray:
    """Lay masks over a picture, each in its colour with an outline, the last on top.

    Args:
        image: uint8 [H, W, 3].
        masks: bool [H, W] each.
        labels: class indices: the colours, those of `boxes`. Without, each mask has its own.
        alpha: share of the colour, 0..1.

    Returns:
        uint8 [H, W, 3].
    """
    picture = np.array(image, np.uint8)
    width = max(1, round(min(picture.shape[:2]) / 200))
    for index, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        shown, part = mask[window], picture[window]
        rgb = np.array(colour(index if labels is None else int(labels[index])))
        part[shown] = np.rint((1 - alpha) * part[shown] + alpha * rgb)
        part[shown & ~_inside(shown, width)] = rgb
    return picture


def _inside(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask whose neighbours, `width` steps along rows and columns, all belong to it."""
    inside = np.pad(mask, 1)
    for _ in range(width):
        middle = inside[1:-1, 1:-1]
        across = inside[1:-1, :-2] & inside[1:-1, 2:]
        inside = np.pad(middle & across & inside[:-2, 1:-1] & inside[2:, 1:-1], 1)
    return inside[1:-1, 1:-1]


def skeleton(
    image: np.ndarray,
    joints: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    lines: Sequence[tuple[int, int, int]],
    points: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """Draw the joints of a person and the lines between them.

    Args:
        image: uint8 [H, W, 3].
        joints: [J, 2], x and y in its continuous pixels; parts outside are cut off, joints that are not finite are
            left out with their lines.
        pairs: the two joints of each line.
        lines: RGB of each line.
        points: RGB of each joint.

    Returns:
        uint8 [H, W, 3].
    """
    picture = Image.fromarray(np.asarray(image, np.uint8))
    canvas = ImageDraw.Draw(picture)
    joints = np.asarray(joints, np.float64).reshape(-1, 2)
    there = np.isfinite(joints).all(axis=1)
    width = max(1, round(min(picture.size) / 80))
    for (a, b), rgb in zip(pairs, lines, strict=True):
        if there[a] and there[b]:
            canvas.line([*joints[a], *joints[b]], fill=rgb, width=width)
    for (x, y), rgb in zip(joints[there], np.array(points)[there].tolist(), strict=True):
        canvas.ellipse((x - width, y - width, x + width, y + width), fill=tuple(rgb), outline="white")
    return np.array(picture)


def heat_map(
    values: np.ndarray, image: np.ndarray | None = None, span: tuple[float, float] | None = None
) -> np.ndarray:
    """Show a map in colours, its least value dark and its greatest light.

    Args:
        values: [h, w]; a constant map is all dark.
        image: uint8 [H, W, 3]; the map is then laid over it, stretched to its size.
        span: the values that are darkest and lightest, where it is not the map's own: so several maps compare, and
            a map of one value says which.

    Returns:
        uint8 [h, w, 3], with `image` [H, W, 3].

    Raises:
        InputError: a value is not finite.
    """
    scaled = unit_range(values, span)
    if image is None:
        return np.rint(_heat(scaled)).astype(np.uint8)
    height, width = image.shape[:2]
    scaled = Image.fromarray(scaled).resize((width, height), Image.Resampling.BILINEAR)
    scaled = np.asarray(scaled)[..., None]
    grey = np.asarray(image, np.float32).mean(axis=-1, keepdims=True)
    alpha = 0.35 + 0.5 * scaled
    return np.rint((1 - alpha) * grey + alpha * _heat(scaled[..., 0])).astype(np.uint8)


def unit_range(values: np.ndarray, span: tuple[float, float] | None = None) -> np.ndarray:
    """A map shifted and scaled to 0..1, float32; a constant one becomes 0. With `span` that becomes 0..1, cut there."""
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise InputError("non-finite")
    low, high = span or (values.min(initial=np.inf), values.max(initial=-np.inf))
    values = np.clip(values, low, high) if span else values
    return ((values - low) / (high - low) if high > low else np.zeros_like(values)).astype(np.float32)


def _heat(scaled):
    """[h, w] in 0..1 -> float32 [h, w, 3]."""
    position = np.clip(scaled, 0, 1) * (len(_HEAT) - 1)
    lower = np.minimum(position.astype(int), len(_HEAT) - 2)
    part = (position - lower)[..., None]
    return (1 - part) * _HEAT[lower] + part * _HEAT[lower + 1]


def hog_glyphs(
    weights: np.ndarray, side: int = 16, most: float | None = None, offset: float = 0.5
) -> np.ndarray:
    """Draw a histogram of oriented gradients: in each cell a stroke along each edge direction, as bright as its weight.

    Args:
        weights: [h, w, O], of a gradient's orientations: the middle of bin o is (o + offset) 180 / O degrees.
        side: of a cell, pixels.
        most: the weight that is white; None: the 99th percentile.
        offset: 1/2 of Dalal and Triggs' bins, 0 of Felzenszwalb's.

    Returns:
        uint8 [h side, w side, 3].
    """
    weights = np.asarray(weights, np.float32)
    h, w, count = weights.shape
    most = np.percentile(weights, 99) if most is None else most
    v, u = np.mgrid[:side, :side] - (side - 1) / 2
    within = np.hypot(u, v) <= side / 2
    cells = np.zeros([h, w, side, side], np.float32)
    for o in range(count):
        edge = np.pi * ((o + offset) / count + 0.5)  # an edge is at right angles to its gradient
        stroke = np.clip(1.25 - np.abs(u * np.sin(edge) - v * np.cos(edge)), 0, 1) * within
        cells = np.maximum(cells, weights[..., o, None, None] * stroke)
    grey = np.clip(cells.transpose(0, 2, 1, 3).reshape(h * side, w * side) / max(most, 1e-12), 0, 1)
    return np.repeat(np.rint(255 * grey).astype(np.uint8)[..., None], 3, axis=2)


def grid(
    pictures: Sequence[np.ndarray], columns: int | None = None, captions: Sequence[str] | None = None
) -> np.ndarray:
    """Lay pictures out on a white sheet, row by row, each centred in a cell as large as the largest.

    Args:
        pictures: uint8 [H, W, 3] each, of any sizes.
        columns: how many in a row; about as many as rows when None.
        captions: a text under each; cut off at the cell's width.

    Returns:
        uint8 [height, width, 3].
    """
    gap = 4
    columns = columns or max(1, math.ceil(math.sqrt(len(pictures))))
    columns = min(columns, max(1, len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell_w = max((p.shape[1] for p in pictures), default=1)
    cell_h = max((p.shape[0] for p in pictures), default=1)
    font, shown = _font(captions or (), 12)
    text_h = 18 if captions else 0
    size = (gap + columns * (cell_w + gap), gap + rows * (cell_h + text_h + gap))
    sheet = Image.new("RGB", size, "white")
    canvas = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        left = gap + i % columns * (cell_w + gap)
        top = gap + i // columns * (cell_h + text_h + gap)
        offset = ((cell_w - picture.shape[1]) // 2, (cell_h - picture.shape[0]) // 2)
        sheet.paste(Image.fromarray(np.asarray(picture, np.uint8)), (left + offset[0], top + offset[1]))
        if captions:
            text = shown(captions[i])
            while len(text) > 1 and canvas.textlength(text, font=font) > cell_w:
                text = text[:-2] + "…" if len(text) > 2 else text[:1]
            canvas.text((left, top + cell_h + 2), text, font=font, fill="black")
    return np.array(sheet)


@contextlib.contextmanager
def fonts_for(text: str) -> Iterator[Callable[[str], str]]:
    """Matplotlib with fonts that have the letters of a text, for the figures made and drawn inside the context.

    Args:
        text: all that the figures will say in words of the user's.

    Yields:
        A function that gives a text to show: a letter that no installed font has is written as \\uXXXX. Show it with
        parse_math=False, since a dollar sign in a name is no formula.
    """
    import matplotlib
    from matplotlib import font_manager

    plain = font_manager.findfont(font_manager.FontProperties())
    fonts, missing = _fonts_with({ord(letter) for letter in text} - _letters(plain))
    families = [*matplotlib.rcParams["font.family"], *(font.name for font in fonts)]
    with matplotlib.rc_context({"font.family": families}):
        yield functools.partial(_spelled, missing=missing)


def _fonts_with(missing: set[int]) -> tuple[list, set[int]]:
    """Installed fonts that together have the letters, as far as there are such, and the letters that none has."""
    from matplotlib import font_manager

    def unlike(font):
        return font.name != "DejaVu Sans", font.style != "normal", font.weight != 400

    fonts = []
    for font in sorted(font_manager.fontManager.ttflist, key=unlike) if missing else ():
        if "Last Resort" not in font.name:  # that draws every letter as a box with its number
            found = missing & _letters(font.fname)
            if found:
                fonts.append(font)
                missing = missing - found
    return fonts, missing


def _letters(file):
    from matplotlib import font_manager

    return font_manager.get_font(file).get_charmap().keys()


def _spelled(text, missing):
    return "".join(f"\\u{ord(each):04x}" if ord(each) in missing else each for each in text)


def _font(texts: Iterable[str], size: int) -> tuple[ImageFont.FreeTypeFont, Callable[[str], str]]:
    """Pillow's own font where that has all letters, else the installed one that has most of the others."""
    strange = frozenset(ord(letter) for text in texts for letter in text if ord(letter) > 0xFF)
    if not strange:
        return ImageFont.load_default(size), str
    file, missing = _file_with(strange)
    font = ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
    return font, functools.partial(_spelled, missing=missing)


@functools.lru_cache
def _file_with(letters: frozenset[int]) -> tuple[str | None, frozenset[int]]:
    """The installed font with most of the letters and the Latin ones, and the letters that it lacks."""
    latin = set(range(ord("!"), ord("~") + 1))
    fonts = [font for font in _fonts_with(set(letters))[0] if latin <= _letters(font.fname)]
    best = max(fonts, key=lambda font: len(letters & _letters(font.fname)), default=None)
    return (None, letters) if best is None else (best.fname, letters - _letters(best.fname))
