"""Run an app with cameras that are not there: `python fake_camera.py apps.detect --camera=0`.

Camera 0 gives three frames of the packaged cat, the second one black, and ends; camera 1 gives them and then Ctrl-C is
pressed; camera 2 opens and gives nothing; no other one opens.
"""

import runpy
import sys

import cv2

from tfcnn import images


class Camera:
    """What OpenCV's capture says of a camera."""

    def __init__(self, number):
        self.number, self.frames = number, []
        if number in (0, 1):
            cat = images.read(images.packaged()[0].path)[..., ::-1].copy()  # OpenCV's order of colours
            self.frames = [cat, 0 * cat, cat]

    def isOpened(self):  # noqa: N802  (OpenCV's names)
        return self.number in (0, 1, 2)

    def get(self, what):
        return {cv2.CAP_PROP_FRAME_WIDTH: 451.0, cv2.CAP_PROP_FRAME_HEIGHT: 300.0}.get(what, 0.0)

    def read(self):
        if not self.frames and self.number == 1:
            raise KeyboardInterrupt
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self):
        print(f"camera {self.number} released")


if __name__ == "__main__":
    cv2.VideoCapture = Camera
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
