"""How right a pose is: PCP of limbs, PDJ and PCK of joints.

N pictures, J joints, in LSP's order where nothing else is said, L limbs (10 of LSP's joints). Left and right are the
person's own. Joints that the annotation does not have count nowhere; a picture without a predicted pose is wrong in all
it has.

Source: DeepPose (Toshev and Szegedy, CVPR 2014), section 4; PCP of Ferrari et al., CVPR 2008.
"""

from collections.abc import Sequence

import numpy as np

from tfcnn.datasets.lsp import JOINTS

# Each end is the middle of the joints named.
LIMBS = {
    "head": (("neck",), ("head_top",)),
    "torso": (("right_shoulder", "left_shoulder"), ("right_hip", "left_hip")),
    "right_upper_arm": (("right_shoulder",), ("right_elbow",)),
    "left_upper_arm": (("left_shoulder",), ("left_elbow",)),
    "right_lower_arm": (("right_elbow",), ("right_wrist",)),
    "left_lower_arm": (("left_elbow",), ("left_wrist",)),
    "right_upper_leg": (("right_hip",), ("right_knee",)),
    "left_upper_leg": (("left_hip",), ("left_knee",)),
    "right_lower_leg": (("right_knee",), ("right_ankle",)),
    "left_lower_leg": (("left_knee",), ("left_ankle",)),
}
TORSO = ("left_shoulder", "right_hip")  # its length is the torso's diameter


def limbs_of(names: Sequence[str]) -> list[str]:
    """Lists the limbs all of whose joints are among these names."""
    return [limb for limb, ends in LIMBS.items() if all(name in names for end in ends for name in end)]


def evaluate(
    truth: np.ndarray, visible: np.ndarray, predicted: np.ndarray, names: Sequence[str] = JOINTS
) -> dict:
    """PCP, PDJ and PCK of predicted poses.

    Args:
        truth: float [N, J, 2], x and y in pixels.
        visible: bool [N, J], joints that the annotation has.
        predicted: float [N, J, 2]; NaN where nothing was predicted.
        names: of the J joints; limbs, torso and head that they do not have are not measured.

    Returns:
        pcp_strict: share of limbs whose two ends are both within half its length of where they belong.
        pcp_relaxed: the same of the mean of the two distances.
        pdj_02: share of joints within 0.2 torso diameters (left shoulder to right hip) of where they belong.
        pck_02: the same: PCK at 0.2 of the torso.
        pckh_05: share of joints within half the head's length.
        per_limb: {limb: {"pcp_strict", "pcp_relaxed", "count"}}.
        per_joint: {joint: {"pdj_02", "pckh_05", "count"}}.
        A distance that just reaches the limit is right. NaN where there is nothing to measure: all limbs, or
        all joints of pictures whose torso (head) is annotated, count alike.
    """
    truth = np.asarray(truth, np.float64)
    predicted = np.asarray(predicted, np.float64)
    visible = np.asarray(visible, bool)
    known, measured = list(names), limbs_of(names)
    strict, relaxed, limbs = _limbs(known, measured, truth, visible, predicted)
    distance = _length(predicted - truth)
    torso, has_torso = _segment(known, truth, visible, *((name,) for name in TORSO))
    head, has_head = _segment(known, truth, visible, *LIMBS["head"])
    by_torso, by_head = visible & has_torso[:, None], visible & has_head[:, None]
    near_torso, near_head = distance <= 0.2 * torso[:, None], distance <= 0.5 * head[:, None]
    pdj = _share(near_torso, by_torso)
    return {
        "pcp_strict": _share(strict, limbs),
        "pcp_relaxed": _share(relaxed, limbs),
        "pdj_02": pdj,
        "pck_02": pdj,
        "pckh_05": _share(near_head, by_head),
        "per_limb": {
            name: {
                "pcp_strict": _share(strict[:, l], limbs[:, l]),
                "pcp_relaxed": _share(relaxed[:, l], limbs[:, l]),
                "count": int(limbs[:, l].sum()),
            }
            for l, name in enumerate(measured)
        },
        "per_joint": {
            name: {
                "pdj_02": _share(near_torso[:, j], by_torso[:, j]),
                "pckh_05": _share(near_head[:, j], by_head[:, j]),
                "count": int(by_torso[:, j].sum()),
            }
            for j, name in enumerate(known)
        },
    }


def _limbs(
    names: list[str], limbs: list[str], truth: np.ndarray, visible: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strictly right, right by the mean, and annotated at all: bool [N, L] each."""
    strict, relaxed, known = np.zeros((3, len(limbs), len(truth)), bool)
    for l, limb in enumerate(limbs):
        ends = LIMBS[limb]
        length, known[l] = _segment(names, truth, visible, *ends)
        off = np.stack([_length(_end(names, predicted, end) - _end(names, truth, end)) for end in ends])
        strict[l] = (off <= 0.5 * length).all(axis=0)
        relaxed[l] = off.mean(axis=0) <= 0.5 * length
    return strict.T, relaxed.T, known.T


def _end(names: list[str], joints: np.ndarray, ends: tuple[str, ...]) -> np.ndarray:
    return joints[:, [names.index(name) for name in ends]].mean(axis=1)


def _segment(
    names: list[str], truth: np.ndarray, visible: np.ndarray, first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The distance of two ends, float64 [N], and whether all its joints are annotated, bool [N]."""
    if not all(name in names for name in (*first, *second)):
        return np.full(len(truth), np.nan), np.zeros(len(truth), bool)
    needed = [names.index(name) for name in (*first, *second)]
    return _length(_end(names, truth, first) - _end(names, truth, second)), visible[:, needed].all(axis=1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(axis=-1))


def _share(right: np.ndarray, counted: np.ndarray) -> float:
    total = np.count_nonzero(counted)
    return np.count_nonzero(right & counted) / total if total else float("nan")
