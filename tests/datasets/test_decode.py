"""OpenCV's way to the pixels gives what images.read gives."""

import dataset_layouts as layouts
import numpy as np
import pytest
from PIL import Image

from tfcnn import images
from tfcnn.datasets import decode
from tfcnn.errors import InputError

COLOURS = layouts.picture(33, 21)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("image", [COLOURS, COLOURS[..., 0]], ids=["colour", "grey"])
def test_jpeg_equals_images_read(image, options):
    data = layouts.encoded(image, **options)
    assert decode._plain_jpeg(data)
    np.testing.assert_array_equal(decode.picture(data, "a.jpg"), images.read(data))
    assert decode.jpeg_header(data) == (33, 21, 3 if image.ndim == 3 else 1)
    assert decode.size(data, "a.jpg") == (33, 21)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation):
    data = layouts.encoded(COLOURS, exif=exif(orientation))
    image = decode.picture(data, "a.jpg")
    np.testing.assert_array_equal(image, images.read(data))
    assert image.shape[:2] == ((21, 33) if orientation < 5 else (33, 21))
    assert decode.size(data, "a.jpg") == image.shape[1::-1]


def test_what_opencv_is_not_asked_for(tmp_path):
    cmyk = tmp_path / "cmyk.jpg"
    Image.fromarray(COLOURS).convert("CMYK").save(cmyk)
    for data in (cmyk.read_bytes(), layouts.encoded(COLOURS, "PNG")):
        assert not decode._plain_jpeg(data)
        np.testing.assert_array_equal(decode.picture(data, "a"), images.read(data))


@pytest.mark.parametrize("cut", [0, 1, 20, 300, -1, -2, -50])
def test_truncated_is_refused_by_name(cut):
    data = layouts.encoded(COLOURS)[:cut]
    with pytest.raises(InputError, match="^bad.jpg: "):
        decode.picture(data, "bad.jpg")


def test_a_bomb_is_refused_before_decoding():
    data = bytearray(layouts.encoded(COLOURS))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = (20000).to_bytes(2, "big") * 2
    assert not decode._plain_jpeg(bytes(data))
    with pytest.raises(InputError, match="above the limit"):
        decode.picture(bytes(data), "bomb.jpg")


def test_numbers_of_objects():
    palette = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8), "P")
    palette.putpalette(list(range(256)) * 3)
    import io

    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    np.testing.assert_array_equal(decode.indices(buffer.getvalue(), "m.png"), [[0, 1], [2, 255]])
    with pytest.raises(InputError, match="colours, not numbers"):
        decode.indices(layouts.encoded(COLOURS, "PNG"), "m.png")
    with pytest.raises(InputError, match="not a readable picture"):
        decode.indices(b"nothing", "m.png")


def test_a_damaged_mask_is_refused_by_name():
    data = layouts.encoded(COLOURS[..., 0], "PNG")
    at = data.index(b"IDAT") - 4
    length = int.from_bytes(data[at : at + 4])
    damaged = data[:at] + (length - 20).to_bytes(4) + data[at + 4 :]  # what Pillow answers by SyntaxError
    with pytest.raises(InputError, match="m.png is not a readable picture"):
        decode.indices(damaged, "m.png")
