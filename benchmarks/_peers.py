"""Detectors of other projects for benchmarks/yolo.py, in a process of their own: PyTorch and TensorFlow in one crash.

    python benchmarks/_peers.py NAME SIDE

makes the net with random weights for pictures of SIDE pixels, prints a line "ready", or "absent: WHY", and for each
line that it reads runs one picture and prints the seconds of processor time that this took.
"""

import contextlib
import importlib.util
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

NEEDED = {"ultralytics": ("ultralytics", "onnx", "onnxruntime"), "torchvision": ("torch", "torchvision")}


def ultralytics(side):
    """YOLO11 nano by onnxruntime, without suppression."""
    import onnxruntime
    import ultralytics

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        file = ultralytics.YOLO("yolo11n.yaml").export(format="onnx", imgsz=side)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count()
        session = onnxruntime.InferenceSession(pathlib.Path(file).read_bytes(), options)
    x = np.random.default_rng(0).uniform(0, 1, (1, 3, side, side)).astype("f4")
    return lambda: session.run(None, {session.get_inputs()[0].name: x})


def torchvision(side):
    """Faster R-CNN on MobileNetV3, which brings the picture to 320 pixels itself."""
    import torch
    import torchvision

    make = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    net = make(weights=None, weights_backbone=None, num_classes=21).eval()
    image = [torch.rand(3, side, side)]

    def forward():
        with torch.no_grad():
            return net(image)

    return forward


def main(name, side):
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the packages print goes to standard error
    missing = [package for package in NEEDED[name] if importlib.util.find_spec(package) is None]
    if missing:
        print(f"absent: not installed: {', '.join(missing)}", file=out, flush=True)
        return
    forward = globals()[name](int(side))
    print("ready", file=out, flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        forward()
        print(time.process_time() - began, file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
