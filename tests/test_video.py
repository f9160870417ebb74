"""Videos written and read back."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from tfcnn.errors import InputError
from tfcnn.video import Film, open_video

COLOURS = np.array([(200, 40, 60), (40, 190, 90), (50, 70, 220)], np.uint8)


def filmed(path):
    film = Film(path, rate=10)
    for colour in COLOURS:
        film.add(np.broadcast_to(colour, (66, 90, 3)))
    film.close()
    film.discard()
    assert film.frames == 3
    return film


def test_a_film_plays(tmp_path):
    filmed(tmp_path / "zoom.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["zoom.mp4"]
    capture = cv2.VideoCapture(str(tmp_path / "zoom.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") in (b"vp09", b"VP90")
    with open_video(tmp_path / "zoom.mp4") as video:
        assert (video.rate, video.size, video.count) == (10, (90, 66), 3)
        frames = list(video)
    assert all(frame.shape == (66, 90, 3) and frame.dtype == np.uint8 for frame in frames)
    np.testing.assert_allclose([frame.mean((0, 1)) for frame in frames], COLOURS, atol=12)


def test_an_animation_plays(tmp_path):
    filmed(tmp_path / "zoom.gif")
    with Image.open(tmp_path / "zoom.gif") as picture:
        frames = [np.asarray(picture.convert("RGB")) for i in range(3) if picture.seek(i) is None]
    np.testing.assert_allclose([frame.mean((0, 1)) for frame in frames], COLOURS, atol=12)


def test_a_broken_film_leaves_nothing(tmp_path):
    film = Film(tmp_path / "zoom.mp4")
    film.add(np.zeros((64, 64, 3), np.uint8))
    film.discard()
    Film(tmp_path / "empty.mp4").close()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_codec_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoWriter_fourcc", lambda *code: 0x21212121)  # no codec has this name
    with pytest.raises(InputError, match=r"zoom\.mp4: this OpenCV writes no VP9"):
        Film(tmp_path / "zoom.mp4").add(np.zeros((64, 64, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_video_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(InputError, match=r"notes\.txt cannot be opened"):
        open_video(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="no such file"):
        open_video(tmp_path / "missing.mp4")
    with pytest.raises(InputError, match="camera 77 cannot be opened"):
        open_video(77)


def test_only_we_speak_of_a_video_that_is_none(tmp_path):
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\0\0isomiso2mp41" + bytes(100))
    script = """
import sys
from tfcnn.errors import InputError
from tfcnn.video import open_video
for source in (sys.argv[1], 77):
    try:
        open_video(source)
    except InputError as error:
        print(error)
"""
    command = [sys.executable, "-c", script, tmp_path / "cut.mp4"]  # FFmpeg reads its level once a process
    done = subprocess.run(command, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 2 and done.stderr == ""
