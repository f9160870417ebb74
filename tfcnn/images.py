"""Pictures: read as a person sees them, resized with a way back, written whole or not at all.

A picture is RGB, [H, W, 3], uint8. Pillow and NumPy only, so that importing this costs nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from tfcnn import files
from tfcnn.errors import InputError
from tfcnn.sources import Source, find, packaged

__all__ = [
    "Placement",
    "Source",
    "encode",
    "find",
    "packaged",
    "placed",
    "read",
    "read_with_notes",
    "resize",
    "write",
]

MAX_PIXELS = 100_000_000
MOST_PIXELS = 16_000_000  # of a picture as a net that slides over it sees it
_ANIMATIONS = {"GIF", "PNG", "WEBP", "AVIF"}
_ORIENTATION = 0x0112  # EXIF's tag
# Cameras' and microscopes' bits in files of 16: a picture that would be seen at a sixteenth of its light.
_FEWER_BITS = (8, 10, 12)
_OPENING = threading.Lock()
Readable = str | os.PathLike | Source | bytes | bytearray | memoryview | BinaryIO  # what `read` takes


# ------------------------------------------------------------------------------------------ reading


def read(source: Readable, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture as a person sees it: EXIF rotation applied, alpha over white, the first frame.

    Args:
        source: a path, a Source, bytes, or an open binary file.
        max_pixels: more are refused before decoding.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: not there, truncated, not a picture, or too large.
    """
    return read_with_notes(source, max_pixels)[0]


def read_with_notes(source: Readable, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, list[str]]:
    """`read`, and notes on how it was read ("animated: the first of 12 frames")."""
    if isinstance(source, str | os.PathLike):
        source = Source(os.fspath(source), os.path.basename(source), pathlib.Path(source))
    name, data = "the picture", source
    if isinstance(source, Source):
        name, data = source.file, source.open()
    if isinstance(data, bytes | bytearray | memoryview):
        if not len(data):
            raise InputError(f"{name}: empty file")
        data = io.BytesIO(data)
    try:
        with _open(data) as picture:
            if picture.width * picture.height > max_pixels:
                raise InputError(
                    f"{name}: {picture.width}x{picture.height} pixels are above the limit of {max_pixels:,} "
                    "(max_pixels)"
                )
            notes = _passed_over(picture)
            is_deep_colour = _is_deep_colour(picture)
            picture.load()
            if is_deep_colour:
                picture = _scaled_colour(picture, data, notes)
            with contextlib.suppress(Exception):  # damaged EXIF hides no picture
                picture = ImageOps.exif_transpose(picture)
            return _to_rgb(picture, notes), notes
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not a picture (or of a format that Pillow does not read)") from error
    except Exception as error:  # Pillow's decoders answer a damaged file with nearly any exception
        raise InputError(f"{name}: truncated or damaged ({error})") from error


def _open(file):
    with _OPENING:  # Pillow's own limit is global and not ours: max_pixels stands in its place
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _passed_over(picture):
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format in _ANIMATIONS:
        return [f"animated: the first of {frames} frames"]
    if frames > 1 and picture.format == "TIFF":
        return [f"several pages: the first of {frames}"]
    return []


def _is_deep_colour(picture):
    """Whether it has 16 bits a colour, of which Pillow keeps the upper 8."""
    arguments = str(picture.tile[0][3]) if picture.tile else ""
    return picture.mode in ("RGB", "RGBA") and ";16" in arguments


def _scaled_colour(picture, data, notes):
    """A picture of 16 bits a colour by its real range; the same picture where it uses all of them."""
    import cv2

    data.seek(0)
    colours = cv2.imdecode(np.frombuffer(data.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if colours is None or colours.dtype != np.uint16 or colours.shape[2:] not in ((3,), (4,)):
        return picture
    white = _white(colours[..., :3].max(initial=0), notes)
    if white == 65535:
        return picture
    scaled = np.rint(colours[..., 2::-1] / white * 255)
    if colours.shape[2] == 4:  # transparency has the whole range or that of the colours
        opaque = white if colours[..., 3].max() <= white else 65535
        scaled = np.dstack([scaled, np.rint(colours[..., 3] / opaque * 255)])
    replaced = Image.fromarray(scaled.astype(np.uint8))
    with contextlib.suppress(Exception):
        replaced.getexif()[_ORIENTATION] = picture.getexif()[_ORIENTATION]
    return replaced


def _white(top, notes):
    """The value that is white in a file of 16 bits whose largest value is `top`."""
    bits = next((bits for bits in _FEWER_BITS if top < 2**bits), 16)
    if top and bits < 16:
        notes.append(f"{bits}-bit values in a 16-bit file: {2**bits - 1} is taken for white")
    return 2**bits - 1 if top else 65535


def _to_rgb(picture, notes):
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        return _from_deep(np.asarray(picture), mode.startswith("I;16"), notes)
    if mode == "LAB":
        picture = ImageCms.profileToProfile(
            picture, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    elif mode == "CMYK" and "icc_profile" in picture.info:
        with contextlib.suppress(
            ImageCms.PyCMSError, OSError
        ):  # a damaged profile: the plain conversion below
            profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
            picture = ImageCms.profileToProfile(
                picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
    elif mode in ("La", "RGBa"):
        picture = picture.convert(mode.upper())
    if "A" in picture.mode[1:] or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(picture.convert("RGB"))


def _from_deep(grey, is_16_bit, notes):
    """Grey of 16 bits, of 32 or of floats -> uint8 [H, W, 3]."""
    grey = grey.astype(np.float64)
    if not np.isfinite(grey).all():
        raise ValueError("pixels that are not numbers")
    top = grey.max(initial=0)
    if is_16_bit:
        white = _white(top, notes)
    else:
        white = next((w for w in (1, 255, 65535) if top <= w), 2**32 - 1)
    return np.repeat(np.rint(np.clip(grey / white, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


# ------------------------------------------------------------------------------------------ resizing


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where one frame of a picture lies in another, in continuous pixels: x_there = x * scale_x + offset_x.

    Attributes:
        scale_x, scale_y: below 0 where the axis is mirrored.
        offset_x, offset_y: pixels there.
        swapped: x and y change places first: with a mirrored axis a quarter turn.
    """

    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0
    swapped: bool = False

    def from_file(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [..., 4] (x1, y1, x2, y2) of the file -> of the resized picture."""
        boxes = np.asarray(boxes, np.float32)[..., [1, 0, 3, 2] if self.swapped else slice(None)]
        return (boxes * self._scales() + self._offsets()).astype(np.float32)[..., self._corners()]

    def to_file(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [..., 4] of the resized picture -> of the file (not clipped)."""
        boxes = (np.asarray(boxes, np.float32) - self._offsets()) / self._scales()
        boxes = boxes.astype(np.float32)[..., self._corners()]
        return boxes[..., [1, 0, 3, 2]] if self.swapped else boxes

    def affine(self) -> np.ndarray:
        """float64 [2, 3], the map of points (x, y, 1) of the file to those of the resized picture."""
        scales = np.diag([float(self.scale_x), float(self.scale_y)])
        return np.column_stack([scales[:, ::-1] if self.swapped else scales, [self.offset_x, self.offset_y]])

    def _scales(self):
        return np.array([self.scale_x, self.scale_y] * 2)

    def _offsets(self):
        return np.array([self.offset_x, self.offset_y] * 2)

    def _corners(self):
        """A mirrored axis makes a box's last edge its first."""
        left, top = (2 if self.scale_x < 0 else 0), (3 if self.scale_y < 0 else 1)
        return [left, top, 2 - left, 4 - top]


def fit_size(height: int, width: int, size: int, longest: int | None = None) -> tuple[int, int]:
    """Height and width of a picture whose shorter side becomes `size`, its longer one at most `longest`."""
    scale = size / min(height, width)
    scale = scale if longest is None else min(scale, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def placed(
    shape: Sequence[int], size: int | Sequence[int], mode: str = "stretch", longest: int | None = None
) -> tuple[tuple[int, int], Placement]:
    """Where `resize` puts a picture, told without the picture.

    Args:
        shape: (height, width, ...) of the picture.
        size, mode, longest: of `resize`.

    Returns:
        ((height, width) of the result, the Placement in it).
    """
    height, width = shape[:2]
    if mode == "fit":
        size = fit_size(height, width, size, longest)
    out_h, out_w = (size, size) if np.ndim(size) == 0 else size
    if mode in ("stretch", "fit"):
        return (out_h, out_w), Placement(out_w / width, out_h / height)
    if mode == "crop":
        scale = max(out_w / width, out_h / height) / 0.875
        return (out_h, out_w), Placement(
            scale, scale, (out_w - width * scale) / 2, (out_h - height * scale) / 2
        )
    if mode == "letterbox":
        scale = min(out_w / width, out_h / height)
        inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (out_w - inner_w) // 2, (out_h - inner_h) // 2
        return (out_h, out_w), Placement(inner_w / width, inner_h / height, left, top)
    raise ValueError(f"mode {mode!r} is none of stretch, crop, letterbox, fit")


def resize(
    image: np.ndarray,
    size: int | Sequence[int],
    mode: str = "stretch",
    fill: Sequence[float] = (127, 127, 127),
    longest: int | None = None,
) -> tuple[np.ndarray, Placement]:
    """A picture at another size, bicubic with anti-aliasing, and the way back to the file's pixels.

    Args:
        image: uint8 or float32 [H, W, 3].
        size: side of a square, or (height, width), in pixels.
        mode: "stretch" the whole picture; "crop", ImageNet's evaluation, the middle 87.5 % of the shorter
            side in the ratio of `size`; "letterbox", the whole picture in its own ratio, centred, the rest filled;
            "fit", the whole picture in its own ratio, its shorter side `size` pixels, nothing filled.
        fill: RGB of the letterbox's rest.
        longest: of "fit", pixels that the longer side has at most, whatever becomes of the shorter one (the 600 and
            1000 of Fast and Faster R-CNN); None: no limit.

    Returns:
        The picture [height, width, 3] in the input's dtype, and its Placement.
    """
    (out_h, out_w), at = placed(image.shape, size, mode, longest)
    if mode == "crop":
        x1, y1 = -at.offset_x / at.scale_x, -at.offset_y / at.scale_y
        return _resample(image, out_h, out_w, (x1, y1, x1 + out_w / at.scale_x, y1 + out_h / at.scale_y)), at
    if mode == "letterbox":
        inner_h, inner_w = round(image.shape[0] * at.scale_y), round(image.shape[1] * at.scale_x)
        resized = np.empty((out_h, out_w, 3), image.dtype)
        resized[:] = np.asarray(fill, image.dtype)
        rows, columns = slice(at.offset_y, at.offset_y + inner_h), slice(at.offset_x, at.offset_x + inner_w)
        resized[rows, columns] = _resample(image, inner_h, inner_w)
        return resized, at
    return _resample(image, out_h, out_w), at


def check_pixels(size: tuple[int, int], height: int, width: int) -> None:
    """See that a picture of height x width is not enlarged beyond what memory holds.

    Raises:
        InputError: `size`, at which it is looked at, has more than MOST_PIXELS.
    """
    if size[0] * size[1] > MOST_PIXELS:
        ratio = MOST_PIXELS // min(size) ** 2
        raise InputError(
            f"{width}x{height} becomes {size[1]}x{size[0]} pixels: at this scale sides may differ {ratio} times"
        )


def _resample(image, height, width, box=None):
    image = np.asarray(image)
    if box is None and image.shape[:2] == (height, width):
        return image.copy()
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))
    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., c], np.float32)) for c in range(image.shape[-1])
    ]
    planes = [plane.resize((width, height), Image.Resampling.BICUBIC, box=box) for plane in planes]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


# ------------------------------------------------------------------------------------------ writing


def write(path: str | os.PathLike, image: np.ndarray, quality: int = 95) -> None:
    """Write a picture, whole or not at all; the suffix says the format.

    Args:
        path: ends in .png, .jpg, .webp or another suffix that Pillow writes.
        image: [H, W, 3] or [H, W], uint8, or float 0..255 (rounded and clipped), or bool (0 and 255).
        quality: of JPEG and WebP, 1..95.

    Raises:
        InputError: a value that is not finite, or a suffix without a format.
        OSError: the disk is full, or the folder is gone.
    """
    files.write_bytes(path, encode(image, os.path.splitext(path)[1], quality))


def encode(image: np.ndarray, suffix: str = ".png", quality: int = 95) -> bytes:
    """The bytes of a picture file of this suffix; see `write`."""
    image = np.asarray(image)
    if image.dtype == bool:
        image = image * np.uint8(255)
    elif image.dtype != np.uint8:
        if not np.isfinite(image).all():
            raise InputError("non-finite")
        image = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    kind = Image.registered_extensions().get(suffix.lower())
    if kind not in Image.SAVE:
        raise InputError(f"{suffix!r} is no picture format that can be written; take .png or .jpg")
    options = (
        {"quality": quality} if kind in ("JPEG", "WEBP") else {"compress_level": 4} if kind == "PNG" else {}
    )
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
