"""Pictures: every mode as a person sees it, each kind of damage refused, and boxes that find their way home."""

import io
import os
import threading
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tfcnn import images
from tfcnn.errors import InputError


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo():
    """uint8 [40, 60, 3]: smooth, so that lossy formats stay close."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_formats_without_loss_are_read_exactly(photo, kind):
    assert (images.read(encoded(Image.fromarray(photo), kind)) == photo).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_formats_with_loss_are_read_closely(photo, kind):
    read = images.read(encoded(Image.fromarray(photo), kind))
    assert read.shape == photo.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - photo).mean() < 6


def test_modes_are_read_as_a_person_sees_them(photo):
    grey = photo[..., 0]
    three = np.repeat(grey[..., None], 3, -1)
    assert (images.read(encoded(Image.fromarray(grey), "PNG")) == three).all()
    bits = grey > 99
    assert (
        images.read(encoded(Image.fromarray(bits), "PNG")) == 255 * np.repeat(bits[..., None], 3, -1)
    ).all()
    few = Image.fromarray(photo).quantize(200)
    assert (images.read(encoded(few, "PNG")) == np.asarray(few.convert("RGB"))).all()

    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert (images.read(encoded(deep, "PNG")) == three).all()
    dark = Image.fromarray(np.full((4, 4), 5000, np.uint16))  # of 65535
    assert images.read(encoded(dark, "PNG")).max() == 19
    floats = Image.fromarray(grey.astype(np.float32) / 255)
    assert (images.read(encoded(floats, "TIFF")) == three).all()

    cmyk = images.read(encoded(Image.fromarray(photo).convert("CMYK"), "TIFF"))
    assert np.abs(cmyk.astype(int) - photo).max() <= 1
    jpeg = images.read(encoded(Image.fromarray(photo).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(jpeg.astype(int) - photo).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("bits", "words"), [(8, "255"), (10, "1023"), (12, "4095"), (16, None)])
def test_fewer_bits_in_a_16_bit_file_are_seen_at_their_range_and_this_is_said(suffix, bits, words):
    values = np.random.default_rng(0).integers(0, 2**bits, (6, 7, 3)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    expected = np.rint(values / (2**bits - 1) * 255)
    for colours in (values, values[..., 0]):
        stored = colours[..., ::-1] if colours.ndim == 3 else colours
        read, notes = images.read_with_notes(cv2.imencode(suffix, np.ascontiguousarray(stored))[1].tobytes())
        wanted = expected if colours.ndim == 3 else np.repeat(expected[..., :1], 3, -1)
        assert np.abs(read - wanted).max() <= 1  # Pillow cuts the lower bits of 16 off
        assert notes == ([f"{bits}-bit values in a 16-bit file: {words} is taken for white"] if words else [])


def test_deep_colours_keep_their_alpha_and_their_rotation():
    values = np.full((2, 3, 4), 4095, np.uint16)
    values[0, 0], values[:, 2, 3] = [0, 0, 4095, 65535], 0  # red (as BGR); clear
    values[1, :2, 3] = 65535
    values[0, 1, 3] = 65535
    read = images.read(cv2.imencode(".png", values)[1].tobytes())
    assert read[0, 0].tolist() == [255, 0, 0] and (read[:, 2] == 255).all() and (read[1, :2] == 255).all()
    black = images.read(cv2.imencode(".png", np.zeros((2, 2, 3), np.uint16))[1].tobytes())
    assert (black == 0).all()


def test_alpha_lies_over_white(photo):
    alpha = np.full(photo.shape[:2] + (1,), 255, np.uint8)
    alpha[:, :30], alpha[:, 30:40] = 0, 128
    read = images.read(encoded(Image.fromarray(np.concatenate([photo, alpha], -1)), "PNG"))
    assert (read[:, :30] == 255).all() and (read[:, 40:] == photo[:, 40:]).all()
    middle = photo[:, 30:40].astype(float) * 128 / 255 + 127
    assert np.abs(read[:, 30:40] - middle).max() <= 1
    few = Image.fromarray(photo).quantize(8)
    clear = images.read(encoded(few, "PNG", transparency=few.getpixel((0, 0))))
    assert (clear[0, 0] == 255).all()
    grey_alpha = Image.fromarray(photo).convert("LA")
    grey_alpha.putalpha(0)
    assert (images.read(encoded(grey_alpha, "PNG")) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0] = 255  # the corner that must come out at the top left
    undo = [None, "I", "FL", "180", "FT", "TP", "270", "TV", "90"][orientation]
    stored = {
        "I": upright,
        "FL": upright[:, ::-1],
        "180": upright[::-1, ::-1],
        "FT": upright[::-1],
        "TP": upright.swapaxes(0, 1),
        "270": np.rot90(upright, 1),
        "TV": np.rot90(upright, 2).swapaxes(0, 1),
        "90": np.rot90(upright, -1),
    }[undo]
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = images.read(encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    assert read.shape == (2, 3, 3) and (read == upright).all()


def test_a_cmyk_profile_is_used_and_a_damaged_one_is_not():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ink = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert (
        images.read(encoded(ink, "TIFF", icc_profile=srgb))[0, 0, 0] > 200
    )  # an RGB profile cannot fit: plain
    assert images.read(encoded(ink, "TIFF", icc_profile=b"nothing"))[0, 0, 0] > 200


def test_the_first_frame_of_several_is_taken_and_said():
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        image, notes = images.read_with_notes(data)
        assert image[0, 0, 0] > 240 and image[0, 0, 1] < 15
        assert len(notes) == 1 and "first of 3" in notes[0]
    assert images.read_with_notes(encoded(frames[0], "PNG"))[1] == []


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files_are_refused(kind, part):
    data = encoded(noise(), kind)
    with pytest.raises(InputError, match="empty|truncated|not a picture"):
        images.read(data[: int(len(data) * part)])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]), st.randoms(use_true_random=False))
def test_damaged_bytes_give_a_picture_or_one_error(kind, random):
    data = bytearray(encoded(noise(), kind))
    for _ in range(random.randrange(1, 30)):
        data[random.randrange(len(data))] = random.randrange(256)
    try:
        image = images.read(bytes(data))
    except InputError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3


def test_the_limit_on_pixels_holds_before_decoding_and_pillows_own_does_not():
    bomb = encoded(Image.new("1", (20000, 20000)), "PNG")
    with pytest.raises(InputError, match="20000x20000.*100,000,000"):
        images.read(bomb)
    before = Image.MAX_IMAGE_PIXELS
    done = []
    threads = [
        threading.Thread(target=lambda: done.append(images.read(encoded(noise(), "PNG")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8 and Image.MAX_IMAGE_PIXELS == before
    with pytest.raises(InputError, match="64x64"):
        images.read(encoded(noise(), "PNG"), max_pixels=64 * 64 - 1)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.png"):
        images.read(tmp_path / "absent.png")
    with pytest.raises(InputError, match="regular"):
        images.read(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="regular"):
        images.read(tmp_path / "pipe.png")


# ------------------------------------------------------------------------------------------ resizing


def test_the_ways_of_resizing_by_hand():
    image = np.zeros((80, 160, 3), np.uint8)
    image[:, 80:] = 200

    stretched, place = images.resize(image, (20, 40))
    assert stretched.shape == (20, 40, 3) and place == images.Placement(0.25, 0.25)
    assert (stretched[:, :18] == 0).all() and (stretched[:, 22:] == 200).all()

    boxed, place = images.resize(image, 40, "letterbox", fill=(1, 2, 3))
    assert place == images.Placement(0.25, 0.25, 0, 10)
    assert (
        (boxed[:10] == (1, 2, 3)).all()
        and (boxed[30:] == (1, 2, 3)).all()
        and (boxed[10:30, 22:] == 200).all()
    )

    cropped, place = images.resize(image, 35, "crop")  # the middle 70 x 70 pixels of 80 x 160, halved
    assert place == images.Placement(0.5, 0.5, -22.5, -2.5)
    assert (cropped[:, :16] == 0).all() and (cropped[:, 20:] == 200).all()
    assert images.resize(image, 35, "crop")[0].dtype == np.uint8
    assert images.resize(image.astype(np.float32), 35, "crop")[0].dtype == np.float32
    with pytest.raises(ValueError, match="squash"):
        images.resize(image, 35, "squash")


def test_fit_keeps_the_ratio_between_a_shorter_and_a_longest_side_by_hand():
    image = np.zeros((80, 160, 3), np.uint8)
    image[:, 80:] = 200
    fitted, place = images.resize(image, 40, "fit")  # 80 x 160, halved
    assert fitted.shape == (40, 80, 3) and place == images.Placement(0.5, 0.5)
    assert (fitted[:, :38] == 0).all() and (fitted[:, 42:] == 200).all()
    assert images.resize(image, 40, "fit", longest=80)[0].shape == (40, 80, 3)
    fitted, place = images.resize(image, 40, "fit", longest=60)  # the longer side's limit wins: 3/8
    assert fitted.shape == (30, 60, 3) and place == images.Placement(0.375, 0.375)
    voc = np.zeros((375, 500, 3), np.float32)
    fitted, place = images.resize(voc, 600, "fit", longest=1000)  # the papers' sizes
    assert fitted.shape == (600, 800, 3) and fitted.dtype == np.float32
    assert images.resize(voc.transpose(1, 0, 2), 600, "fit", longest=1000)[0].shape == (800, 600, 3)
    fitted, place = images.resize(np.zeros((3, 1000, 3), np.uint8), 600, "fit", longest=100)
    assert fitted.shape == (1, 100, 3) and place == images.Placement(0.1, 1 / 3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 50), st.one_of(st.none(), st.integers(1, 80)))
def test_fit_fills_its_size_with_the_whole_picture(height, width, size, longest):
    resized, place = images.resize(np.zeros((height, width, 3), np.uint8), size, "fit", longest=longest)
    out_h, out_w = resized.shape[:2]
    np.testing.assert_allclose(
        place.from_file([[0, 0, width, height]]), [[0, 0, out_w, out_h]], rtol=1e-6, atol=1e-4
    )
    assert min(out_h, out_w) == size or (longest is not None and max(out_h, out_w) == longest)
    assert longest is None or max(out_h, out_w) <= longest


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small, _ = images.resize(stripes, 8)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 3


def test_a_side_of_one_pixel_works_in_every_way():
    for shape in ((1, 1), (1, 500), (500, 1)):
        for mode in ("stretch", "crop", "letterbox"):
            image, _ = images.resize(np.full((*shape, 3), 9, np.uint8), 32, mode)
            assert image.shape == (32, 32, 3)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 50), st.integers(1, 50),
    st.sampled_from(["stretch", "crop", "letterbox"]),
)  # fmt: skip
def test_boxes_go_there_and_home(height, width, out_h, out_w, mode):
    image = np.zeros((height, width, 3), np.uint8)
    resized, place = images.resize(image, (out_h, out_w), mode)
    assert resized.shape == (out_h, out_w, 3)
    box = np.array([[0.25 * width, 0.5 * height, width, height]], np.float32)
    assert np.allclose(place.to_file(place.from_file(box)), box, atol=1e-3)
    corners = place.from_file([[0, 0, width, height]])[0]
    if mode != "crop":
        assert (
            corners[0] >= 0 and corners[1] >= 0 and corners[2] <= out_w + 1e-3 and corners[3] <= out_h + 1e-3
        )


def test_a_marked_pixel_lands_where_the_placement_says():
    for mode in ("stretch", "crop", "letterbox", "fit"):
        image = np.zeros((200, 300, 3), np.float32)
        image[96:104, 166:174] = 255
        resized, place = images.resize(image, 128, mode, fill=(0, 0, 0))
        weight = resized[..., 0]
        ys, xs = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]] + 0.5
        middle = place.from_file([[170, 100, 170, 100]])[0]
        found = np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()
        assert np.abs(found - middle[:2]).max() < 0.1, mode


# ------------------------------------------------------------------------------------------ writing


def test_writing_rounds_clips_and_says_the_format(tmp_path):
    values = np.array([[[-5.0, 0.4, 0.6], [254.6, 255.4, 300.0]]])
    images.write(tmp_path / "x.png", values)
    assert images.read(tmp_path / "x.png").tolist() == [[[0, 0, 1], [255, 255, 255]]]
    images.write(tmp_path / "mask.png", np.array([[True, False]]))
    assert images.read(tmp_path / "mask.png")[0, :, 0].tolist() == [255, 0]
    images.write(tmp_path / "x.jpg", np.zeros((9, 9, 3), np.uint8))
    assert (tmp_path / "x.jpg").read_bytes()[:2] == b"\xff\xd8"
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="non-finite"):
            images.write(tmp_path / "bad.png", np.full((2, 2, 3), bad))
    with pytest.raises(InputError, match="txt"):
        images.write(tmp_path / "x.txt", values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.png", "x.jpg", "x.png"]


# ------------------------------------------------------------------------------------------ finding


def test_files_folders_globs_and_archives_are_found_once_and_in_order(tmp_path):
    (tmp_path / "d" / "deep").mkdir(parents=True)
    (tmp_path / "d" / ".hidden").mkdir()
    for name in (
        "d/b.JPG",
        "d/a.png",
        "d/deep/c.webp",
        "d/readme.md",
        "d/.hidden/x.png",
        "d/._a.png",
        "strange",
    ):
        (tmp_path / name).write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("p/2.png", "p/1.jpg", "p/labels.csv", "__MACOSX/p/._1.jpg"):
            archive.writestr(name, name)

    folder = images.find([tmp_path / "d"])
    assert [s.name for s in folder] == ["a.png", "b.JPG", "deep/c.webp"]
    assert folder[2].file == str(tmp_path / "d/deep/c.webp") and folder[2].open() == b"x"
    assert [s.name for s in images.find([str(tmp_path / "d" / "*")])] == ["a.png", "b.JPG", "deep/c.webp"]
    assert [s.name for s in images.find([str(tmp_path / "**" / "*.png")])] == ["d/a.png"]
    assert [s.name for s in images.find([tmp_path / "strange"])] == ["strange"]
    members = images.find([tmp_path / "z.zip"])
    assert [s.name for s in members] == ["p/1.jpg", "p/2.png"] and members[0].open() == b"p/1.jpg"
    assert members[0].file == f"{tmp_path}/z.zip/p/1.jpg"
    assert len(images.find([tmp_path / "d", tmp_path / "d" / "a.png", tmp_path / "d"])) == 3
    (tmp_path / "[1].png").write_bytes(b"x")
    assert [s.name for s in images.find([tmp_path / "[1].png"])] == ["[1].png"]

    for spec in (tmp_path / "d" / ".hidden" / "..", tmp_path / "none.png"):
        if not spec.exists():
            with pytest.raises(InputError, match="no such file"):
                images.find([spec])
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no picture"):
        images.find([tmp_path / "bare"])
    with pytest.raises(InputError, match="no picture matches"):
        images.find([str(tmp_path / "*.bmp")])


def test_an_archive_is_opened_once_for_its_members_and_again_when_it_has_changed(tmp_path, monkeypatch):
    def write(text):
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            for number in range(20):
                archive.writestr(f"{number}.png", f"{text} {number}")

    write("old")
    members = images.find([tmp_path / "z.zip"])
    opened, plain = [], zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: opened.append(path) or plain(path))
    assert sorted(source.open() for source in members) == sorted(f"old {n}".encode() for n in range(20))
    assert len(opened) == 1, (
        "its list of members is long: read for each, ten thousand would take half an hour"
    )
    monkeypatch.undo()
    write("changed")
    assert members[0].open() == b"changed 0"


def test_archives_that_are_damaged_or_encrypted_are_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(range(256)) * 20)
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[60:80] = b"\xff" * 20
    (tmp_path / "damaged.zip").write_bytes(data)
    (source,) = images.find([tmp_path / "damaged.zip"])
    with pytest.raises(InputError, match=r"damaged\.zip/a\.png"):
        source.open()
    (tmp_path / "cut.zip").write_bytes((tmp_path / "z.zip").read_bytes()[:100])
    with pytest.raises(InputError, match=r"cut\.zip: the archive cannot be read: its end is missing"):
        images.find([tmp_path / "cut.zip"])
    (tmp_path / "text.zip").write_text("no archive")  # a file named by itself
    (source,) = images.find([tmp_path / "text.zip"])
    with pytest.raises(InputError, match="not a picture"):
        images.read(source)


def test_the_packaged_photographs_are_there_the_cat_first():
    sources = images.packaged()
    assert len(sources) >= 6 and sources[0].name == "chelsea.png"
    assert all(min(images.read(source).shape[:2]) >= 300 for source in sources)


def test_a_picture_too_long_for_memory_is_refused():
    images.check_pixels((384, 3840), 100, 1000)
    with pytest.raises(
        InputError, match="1000x1 becomes 388992x384 pixels: at this scale sides may differ 108"
    ):
        images.check_pixels((384, 388992), 1, 1000)
