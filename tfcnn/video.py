"""Frames to a film: VP9 in .mp4, which browsers play, and an animated GIF."""

import os
import pathlib

import cv2
import numpy as np
from PIL import Image

from tfcnn.errors import InputError

GIF_SIDE = 320  # of an animated GIF, pixels


class Film:
    """Writes frames as they come, whole or not at all: beside its place, renamed by `close`.

    Args:
        path: ends in .mp4 or .gif.
        rate: frames a second.
    """

    def __init__(self, path: str | os.PathLike, rate: float = 12.0):
        self.path, self.rate = pathlib.Path(path), rate
        self._part = self.path.with_name(f".{self.path.name}.part{self.path.suffix}")
        self._writer, self._frames = None, []

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 [H, W, 3]; all have the size of the first."""
        if self.path.suffix == ".gif":
            picture = Image.fromarray(frame)
            picture.thumbnail((GIF_SIDE, GIF_SIDE))
            self._frames.append(picture.convert("P", palette=Image.Palette.ADAPTIVE))
            return
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter_fourcc(*"vp09"), self.rate, size)
            if not self._writer.isOpened():
                raise InputError("this OpenCV writes no VP9 in .mp4; pip install opencv-python-headless")
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def close(self) -> None:
        """Finish the file."""
        if self.path.suffix == ".gif":
            first, *others = self._frames
            first.save(self._part, save_all=True, append_images=others, duration=1000 / self.rate, loop=0)
        else:
            self._writer.release()
        os.replace(self._part, self.path)

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `close`."""
        if self._writer is not None:
            self._writer.release()
        self._part.unlink(missing_ok=True)
