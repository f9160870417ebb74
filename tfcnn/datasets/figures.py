"""Drawn stick figures with exact joints, so that a pose net can be trained with no download.

Each picture is a function of (seed, split, index) alone and is drawn when it is asked for. A figure faces the viewer:
its right hand is on the left of the picture.
"""

from collections.abc import Callable

import numpy as np

from tfcnn.datasets.example import Dataset, Record, Truth
from tfcnn.datasets.lsp import JOINTS, SKELETON
from tfcnn.datasets.shapes import texture
from tfcnn.errors import InputError

SPLITS = {"train": 0, "val": 1, "test": 2}
HIP, LEG, ARM = (
    0.09,
    0.24,
    0.17,
)  # half the hips' width, a part of a leg and of an arm, in heights of the figure
LEFT, RIGHT = (60, 120, 235), (235, 120, 50)  # a net can tell the sides by their colours
SWING = 0.9  # radians by which a limb's part swings, either way


def read(
    path: None = None, split: str = "train", count: int = 300, side: int = 128, seed: int = 0
) -> Dataset:
    """Stick figures, no file needed; joints and their order are those of Leeds Sports Pose.

    Args:
        path: not needed.
        split: "train", "val" or "test": other pictures each.
        count: pictures.
        side: of a picture, in pixels.
        seed: of everything.

    Returns:
        A data set of one person a picture, all joints labelled and inside the picture.

    Raises:
        InputError: another split.
    """
    if split not in SPLITS:
        raise InputError(f"figures has no split {split!r}: it has {', '.join(SPLITS)}")
    examples = []
    for index in range(count):
        key = [seed, SPLITS[split], index]
        points = _placed(_figure(np.random.default_rng(key)), side, np.random.default_rng([*key, 2]))
        joints = np.column_stack([points, np.ones(len(points))])
        nothing = np.zeros(0)
        truth = Truth(
            np.zeros((0, 4)), nothing, nothing, nothing.astype(np.int32), nothing.astype(bool), joints
        )
        examples.append(
            Record(
                image_id=f"{split}-{index:05d}",
                file=f"{split}-{index:05d}",
                width=side,
                height=side,
                source=_source(points, side, key),
                boxes=np.concatenate([points.min(0), points.max(0)])[None].astype(np.float32),
                joints=joints.astype(np.float32),
                truth=truth,
            )
        )
    return Dataset("figures", ["person"], [1], examples, joints=list(JOINTS), skeleton=list(SKELETON))


def _figure(rng: np.random.Generator) -> np.ndarray:
    """Joints [14, 2] of an upright figure of height 1, its neck in (0, 0), y down."""

    def step(start, length, angle):  # an angle of 0 points down
        return start + length * np.array([np.sin(angle), np.cos(angle)])

    lean = rng.uniform(-0.3, 0.3)
    down, across = np.array([np.sin(lean), np.cos(lean)]), np.array([np.cos(lean), -np.sin(lean)])
    points = {"neck": np.zeros(2), "head_top": -0.2 * down}
    for name, sign in (("right", -1), ("left", 1)):
        shoulder, hip = sign * 0.12 * across, 0.34 * down + sign * HIP * across
        elbow = step(shoulder, ARM, sign * 0.6 + rng.uniform(-SWING, SWING))
        knee = step(hip, LEG, sign * 0.2 + rng.uniform(-SWING, SWING) / 2)
        points |= {f"{name}_shoulder": shoulder, f"{name}_elbow": elbow, f"{name}_hip": hip}
        points |= {
            f"{name}_knee": knee,
            f"{name}_wrist": step(elbow, ARM, rng.uniform(-2 * SWING, 2 * SWING)),
        }
        points[f"{name}_ankle"] = step(knee, LEG, rng.uniform(-SWING, SWING) / 2)
    return np.array([points[name] for name in JOINTS])


def _placed(points: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """The figure at a size and a location at which all of it lies in the picture, pixels."""
    low, high = points.min(0), points.max(0)
    scale = rng.uniform(0.6, 0.85) * side / (high - low).max()
    room = side - scale * (high - low)
    return (points - low) * scale + rng.uniform(0.07, 0.93, 2) * room


def _source(points: np.ndarray, side: int, key: list[int]) -> Callable[[], np.ndarray]:
    def draw() -> np.ndarray:
        import cv2

        rng = np.random.default_rng([*key, 1])
        image = np.ascontiguousarray(texture(rng, side, contrast=35))
        width = max(1, side // 22)
        fixed = np.round((points - 0.5) * 16).astype(int)
        for a, b in SKELETON:
            names = {JOINTS[a].partition("_")[0], JOINTS[b].partition("_")[0]}
            colour = LEFT if names == {"left"} else RIGHT if names == {"right"} else (235, 215, 60)
            cv2.line(image, fixed[a].tolist(), fixed[b].tolist(), colour, width, cv2.LINE_AA, 4)
        neck, top = (fixed[JOINTS.index(name)] for name in ("neck", "head_top"))
        radius = round(0.4 * float(np.hypot(*(top - neck))))
        cv2.circle(
            image, (0.4 * neck + 0.6 * top).astype(int).tolist(), radius, (235, 215, 60), -1, cv2.LINE_AA, 4
        )
        return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)

    return draw
