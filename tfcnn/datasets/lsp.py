"""Leeds Sports Pose and its extended training set: one person a picture, 14 joints.

Two layouts: the authors' images/ and joints.mat, and SPLIT/images/ with SPLIT/joints.csv (file, width,
height, then x, y, visible of each joint).
Source: Johnson and Everingham, BMVC 2010 and CVPR 2011.
"""

import csv
import io
import pathlib

import numpy as np

from tfcnn.datasets.example import NOTHING, Dataset, Record, Truth, report
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError

JOINTS = (
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow right_shoulder "
    "left_shoulder left_elbow left_wrist neck head_top"
).split()
# The pairs of joints that a skeleton's lines connect.
SKELETON = [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11), (2, 8), (3, 9)]
SKELETON += [(2, 3), (8, 12), (9, 12), (12, 13)]
Row = tuple[str, int, int, np.ndarray]  # a picture's file, width, height, and joints [14, 3]
TRAIN_PICTURES = 1000  # the first half of the original 2000 trains, the second tests


def read(path: str | pathlib.Path, split: str = "train", pictures: bool = True) -> Dataset:
    """Reads a pose set from a folder or a .zip; `joints` [14, 3], and the box round the visible ones.

    Args:
        path: a folder or .zip with joints.mat, or with folders that hold joints.csv, at its top or one
            level down.
        split: "train", "test" or "val" (in the authors' layout the last two are the same; the extended set is
            all for training).
        pictures: False for annotations alone, as evaluation needs them.

    Returns:
        The data set, in LSP's order of joints; a joint that is not visible is (0, 0, 0). joints.mat of the
        original set marks occluded joints, but locates all of them: all count as visible.

    Raises:
        InputError: no such set or split.
    """
    root = find(
        path, lambda r: r.exists("joints.mat") or bool(_csv_splits(r)), "joints.mat or SPLIT/joints.csv"
    )
    broken: list[dict] = []
    rows = _from_mat(root, split) if root.exists("joints.mat") else _from_csv(root, split, broken)
    examples = []
    for file, width, height, joints in rows:
        if pictures and not root.exists(file):
            report(broken, file, "the picture is missing", "picture skipped")
        else:
            examples.append(_record(root, file, width, height, joints, broken))
    return Dataset("lsp", ["person"], [1], examples, broken, list(JOINTS), list(SKELETON))


def _csv_splits(root: Root) -> list[str]:
    return [folder for folder in root.folders() if root.exists(f"{folder}/joints.csv")]


def _from_csv(root: Root, split: str, broken: list[dict]) -> list[Row]:
    file = f"{split}/joints.csv"
    if not root.exists(file):
        raise InputError(f"{root} has no split {split!r}: it has {', '.join(_csv_splits(root))}")
    rows = []
    for line in csv.reader(io.StringIO(root.text(file))):
        try:
            width, height = int(line[1]), int(line[2])
            joints = np.array(line[3:], np.float64).reshape(len(JOINTS), 3)
        except (ValueError, IndexError):
            if line[:1] != ["file"]:
                report(broken, file, f"the line of {line[:1]} has not 14 joints", "picture skipped")
            continue
        rows.append((f"{split}/images/{line[0]}", width, height, joints))
    return rows


def _from_mat(root: Root, split: str) -> list[Row]:
    import scipy.io

    try:
        joints = scipy.io.loadmat(io.BytesIO(root.read("joints.mat")))["joints"].astype(np.float64)
    except InputError:
        raise
    except Exception as error:  # the reader answers a damaged file with nearly any exception
        raise InputError(f"{root}/joints.mat is no file of joints by Matlab ({error})") from None
    files = [f"images/{file}" for file in root.files("images") if file.lower().endswith((".jpg", ".png"))]
    if joints.shape[:2] == (3, len(JOINTS)):  # the original set: x, y, occluded
        joints = joints.transpose(2, 1, 0)
        joints[..., 2] = 1
        part = slice(0, TRAIN_PICTURES) if split == "train" else slice(TRAIN_PICTURES, None)
    elif joints.shape[:2] == (len(JOINTS), 3):  # the extended set: x, y, visible
        joints = joints.transpose(2, 0, 1)
        part = slice(None) if split == "train" else slice(0, 0)
    else:
        raise InputError(
            f"{root}/joints.mat is not Leeds Sports Pose: its joints are of shape {joints.shape}"
        )
    if split not in ("train", "test", "val") or not len(joints[part]):
        raise InputError(f"{root} has no split {split!r}")
    if len(files) < len(joints):
        raise InputError(f"{root}/images holds {len(files)} pictures, joints.mat the joints of {len(joints)}")
    joints[..., :2] -= 1  # Matlab counts from 1
    return [(file, 0, 0, points) for file, points in list(zip(files, joints, strict=False))[part]]


def _record(root: Root, file: str, width: int, height: int, joints: np.ndarray, broken: list[dict]) -> Record:
    nothing = np.zeros(0)
    truth = Truth(np.zeros((0, 4)), nothing, nothing, nothing.astype(np.int32), nothing.astype(bool), joints)
    shown = (joints[:, 2] > 0) & np.isfinite(joints).all(1)
    if width and height:
        outside = shown & ((joints[:, :2] < 0) | (joints[:, :2] > [width, height])).any(1)
        for joint in np.flatnonzero(outside):
            report(
                broken,
                file,
                f"{JOINTS[joint]} lies outside the picture of {width}x{height}",
                "joint left out",
            )
        shown &= ~outside
    joints = np.where(shown[:, None], joints, 0).astype(np.float32)
    joints[:, 2] = shown
    points = joints[shown, :2]
    has_box = len(points) > 0 and (points.max(0) > points.min(0)).all()
    box = np.concatenate([points.min(0), points.max(0)])[None] if has_box else NOTHING
    return Record(
        image_id=file.rsplit("/", 1)[1].rsplit(".", 1)[0],
        file=file,
        width=width,
        height=height,
        source=root.file(file),
        boxes=box,
        joints=joints,
        truth=truth,
    )
