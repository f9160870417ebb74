"""Videos: read frame by frame, and written as VP9 in .mp4, which browsers play, or as an animated GIF."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from tfcnn import files
from tfcnn.errors import InputError

# FFmpeg's and OpenCV's complaints of a file say no more than ours. FFmpeg reads this at its first use.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

GIF_SIDE = 320  # of an animated GIF, pixels


class Film:
    """Writes frames as they come, whole or not at all: beside its place, renamed by `close`.

    Args:
        path: ends in .mp4 or .gif.
        rate: frames a second.
    """

    def __init__(self, path: str | os.PathLike, rate: float = 12.0):
        self.path, self.rate = pathlib.Path(path), rate
        self.frames = 0
        self._beside = files.beside(self.path)
        self._writer, self._gif = None, []

    def add(self, frame: np.ndarray) -> None:
        """Add a frame.

        Args:
            frame: uint8 [H, W, 3]; all have the size of the first.

        Raises:
            InputError: this OpenCV has no VP9, or the file cannot be made.
        """
        if self.path.suffix == ".gif":
            picture = Image.fromarray(frame)
            picture.thumbnail((GIF_SIDE, GIF_SIDE))
            self._gif.append(picture.convert("P", palette=Image.Palette.ADAPTIVE))
        else:
            if self._writer is None:
                self._writer = self._opened(frame.shape[1], frame.shape[0])
            self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self.frames += 1

    def _opened(self, width, height):
        code = cv2.VideoWriter_fourcc(*"vp09")
        writer = cv2.VideoWriter(str(self._beside), code, self.rate, (width, height))
        if not writer.isOpened():
            self.discard()
            raise InputError(
                f"{self.path}: this OpenCV writes no VP9 in .mp4; pip install opencv-python-headless"
            )
        return writer

    def close(self) -> None:
        """Finish the file; without a frame there is none."""
        if self._gif:
            first, *others = self._gif
            first.save(self._beside, save_all=True, append_images=others, duration=1000 / self.rate, loop=0)
        if self._writer is not None:
            self._writer.release()
        if self.frames:
            os.replace(self._beside, self.path)

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `close`."""
        if self._writer is not None:
            self._writer.release()
        self._beside.unlink(missing_ok=True)


class Video:
    """A video or a camera; iterating gives its frames, uint8 [H, W, 3], RGB.

    Attributes:
        name: the file as it was given, or cameraN.
        rate: frames a second, as the file says; 25 where it does not.
        size: (width, height) in pixels.
        count: frames, as the file says; None where it does not.
    """

    def __init__(self, name: str, capture: cv2.VideoCapture):
        self.name, self._capture = name, capture
        self.rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.size = tuple(int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None

    def __iter__(self) -> Iterator[np.ndarray]:
        while (answer := self._capture.read())[0]:
            yield np.ascontiguousarray(answer[1][..., ::-1])

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Let the file or the camera go."""
        self._capture.release()


def open_video(source: str | os.PathLike | int) -> Video:
    """Open a video file, or a camera by its number.

    Raises:
        InputError: there is no such file or camera, or OpenCV cannot read it.
    """
    if isinstance(source, int):
        name = f"camera{source}"
        said = f"camera {source} cannot be opened: it is not there (they count from 0), or another program has it"
    else:
        source = name = os.fspath(source)
        if not os.path.isfile(name):
            raise InputError(f"{name}: no such file")
        said = f"{name} cannot be opened as a video"
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # OpenCV prints a line for each way that it tries
    try:
        capture = cv2.VideoCapture(source)
    finally:
        logging.setLogLevel(level)
    if not capture.isOpened():
        raise InputError(said)
    return Video(name, capture)
