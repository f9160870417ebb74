"""Pixels of an encoded picture: `images.read`'s, with JPEG by OpenCV where that gives the same pixels
faster."""

import io

import numpy as np

from tfcnn import images
from tfcnn.errors import InputError


def picture(data: bytes, file: str) -> np.ndarray:
    """Decodes a picture as `tfcnn.images.read` does.

    A whole JPEG of one or three components goes through OpenCV, which decodes it with the same library and
    applies the EXIF rotation; everything else, and whatever OpenCV refuses, through `images.read`, which
    knows why it refuses.

    Args:
        data: the file's bytes.
        file: its name, for the message.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: not a whole picture.
    """
    if _plain_jpeg(data):
        import cv2

        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    try:
        return images.read(io.BytesIO(data))
    except InputError as error:
        raise InputError(f"{file}: {str(error).removeprefix('the picture: ')}") from None


def _plain_jpeg(data: bytes) -> bool:
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return False
    width, height, components = jpeg_header(data)
    return components in (1, 3) and width * height <= images.MAX_PIXELS


def jpeg_header(data: bytes) -> tuple[int, int, int]:
    """What the frame header of a JPEG says.

    Args:
        data: the encoded picture.

    Returns:
        (width, height, number of components); zeros where there is none.
    """
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (
                int.from_bytes(data[at + 5 : at + 7]),
                int.from_bytes(data[at + 7 : at + 9]),
            )
            return width, height, data[at + 9]
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0, 0, 0


def indices(data: bytes, file: str) -> np.ndarray:
    """The numbers of a palette or grey PNG, as VOC's segmentations keep them.

    Args:
        data: the encoded picture.
        file: its name, for the message.

    Returns:
        uint8 [H, W].

    Raises:
        InputError: not such a picture.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in ("P", "L", "1"):
                raise InputError(f"{file} holds colours, not numbers of objects")
            return np.asarray(image if image.mode != "1" else image.convert("L"))
    except InputError:
        raise
    except Exception as error:  # Pillow's errors for damaged files have no base
        raise InputError(f"{file} is not a readable picture ({error})") from None


def size(data: bytes, file: str) -> tuple[int, int]:
    """The size of a picture as a person sees it; decodes only what is not a plain, whole JPEG.

    Args:
        data: the encoded picture.
        file: its name, for the message.

    Returns:
        (width, height) in pixels.

    Raises:
        InputError: not a whole picture.
    """
    if _plain_jpeg(data) and b"Exif\x00" not in data[:4096]:
        return jpeg_header(data)[:2]
    height, width = picture(data, file).shape[:2]
    return width, height


def orientation(data: bytes) -> int:
    """EXIF's orientation of a picture.

    Args:
        data: the encoded picture.

    Returns:
        1 (upright) to 8; 1 where EXIF says none.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF turns nothing, as in images.read
        return 1
