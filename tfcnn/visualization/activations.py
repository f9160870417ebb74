"""What every channel of a layer answers to a picture, as grids of small maps.

N pictures, h w the size of a map, C channels.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import tap
from tfcnn.errors import InputError

SIDE = 56  # pixels at most of a tile of a sheet
_SHOWN = 28  # pixels at least of a tile of a grid


@dataclasses.dataclass(frozen=True)
class Sheet:
    """All channels of a layer for one picture, tiled without gaps; each channel has its own scale.

    Attributes:
        tiles: uint8 [rows * h, columns * w]; of each channel `low` is 0 and `high` 255.
        low, high: float32 [C], a channel's least and greatest value before any reduction of its map.
        columns: tiles in a row.
        height, width: of a tile, pixels.
    """

    tiles: np.ndarray
    low: np.ndarray
    high: np.ndarray
    columns: int
    height: int
    width: int


def answers(model: keras.Model, layers: Sequence[str]) -> Callable:
    """Gives a compiled function from pictures to the answers of layers.

    Args:
        model: a flat functional model.
        layers: its layers, endpoints or outputs.

    Returns:
        f(images [N, H, W, 3] float32 0..255) -> {layer: float32 [N, h, w, C]}, a layer without locations as 1 x 1.

    Raises:
        InputError: there is no such layer, or it has neither locations nor channels alone.
    """
    model = tap(model, layers)
    for name, tensor in model.output.items():
        if len(tensor.shape) not in (2, 4):
            raise InputError(
                f"{name} gives {tensor.shape[1:]}, neither channels at locations nor channels alone"
            )

    @tf.function(reduce_retracing=True)
    def maps(images):
        found = {name: tf.cast(answer, tf.float32) for name, answer in model(images, training=False).items()}
        return {
            name: answer if len(answer.shape) == 4 else answer[:, None, None]
            for name, answer in found.items()
        }

    return maps


def sheet(maps: np.ndarray, side: int = SIDE) -> Sheet:
    """Tiles all channels of a layer, about as many rows as columns.

    Args:
        maps: float32 [h, w, C]; a map above `side` is reduced by the mean of its pixels.
        side: pixels at most of a tile.

    Raises:
        InputError: a value is not finite.
    """
    if not np.isfinite(maps).all():
        raise InputError("non-finite")
    height, width, channels = maps.shape
    low, high = maps.min((0, 1)), maps.max((0, 1))
    scaled = (maps - low) / np.where(high > low, high - low, 1)
    scale = min(1.0, side / max(height, width))
    if scale < 1:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        scaled = tf.image.resize(scaled, [height, width], method="area").numpy()
    columns = math.ceil(math.sqrt(channels * height / width))
    rows = math.ceil(channels / columns)
    filled = np.zeros([rows * columns, height, width], np.uint8)
    filled[:channels] = np.rint(255 * np.moveaxis(scaled, -1, 0))
    tiles = (
        filled.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    )
    return Sheet(tiles, low, high, columns, height, width)


def grid(sheet: Sheet) -> np.ndarray:
    """Shows a sheet as a picture: small tiles enlarged, a line between two.

    Args:
        sheet: of a layer.

    Returns:
        uint8 [height, width, 3]; cells without a channel are as dark as the lines.
    """
    times = max(1, -(-_SHOWN // max(sheet.height, sheet.width)))
    height, width = sheet.height * times, sheet.width * times
    tiles = sheet.tiles.repeat(times, axis=0).repeat(times, axis=1)
    rows, channels = len(tiles) // height, len(sheet.low)
    picture = np.zeros([rows * (height + 1) + 1, sheet.columns * (width + 1) + 1, 3], np.uint8)
    picture[:] = (60, 30, 90)
    for channel in range(channels):
        row, column = divmod(channel, sheet.columns)
        tile = tiles[row * height : (row + 1) * height, column * width : (column + 1) * width]
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        picture[top : top + height, left : left + width] = tile[..., None]
    return picture


def strongest(maps: np.ndarray, count: int) -> list[int]:
    """Gives the channels of a layer [h, w, C] with the greatest mean, the first the strongest."""
    return np.argsort(-maps.mean((0, 1)), kind="stable")[:count].tolist()
