"""How right a pose is: PCP of limbs, PDJ and PCK of joints.

N pictures, J joints in LSP's order, L = 10 limbs. Joints that the annotation does not have count nowhere; a
picture without a predicted pose is wrong in all it has.

Source: DeepPose (Toshev and Szegedy, CVPR 2014), section 4; PCP of Ferrari et al., CVPR 2008.
"""

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


def evaluate(truth: np.ndarray, visible: np.ndarray, predicted: np.ndarray) -> dict:
    """PCP, PDJ and PCK of predicted poses.

    Args:
        truth: float [N, J, 2], x and y in pixels.
        visible: bool [N, J], joints that the annotation has.
        predicted: float [N, J, 2]; NaN where nothing was predicted.

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
    strict, relaxed, limbs = _limbs(truth, visible, predicted)
    distance = _length(predicted - truth)
    torso, has_torso = _segment(truth, visible, *((name,) for name in TORSO))
    head, has_head = _segment(truth, visible, *LIMBS["head"])
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
            for l, name in enumerate(LIMBS)
        },
        "per_joint": {
            name: {
                "pdj_02": _share(near_torso[:, j], by_torso[:, j]),
                "pckh_05": _share(near_head[:, j], by_head[:, j]),
                "count": int(by_torso[:, j].sum()),
            }
            for j, name in enumerate(JOINTS)
        },
    }


def _limbs(
    truth: np.ndarray, visible: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strictly right, right by the mean, and annotated at all: bool [N, L] each."""
    strict, relaxed, known = [], [], []
    for ends in LIMBS.values():
        length, has = _segment(truth, visible, *ends)
        off = np.stack([_length(_end(predicted, end) - _end(truth, end)) for end in ends])
        strict.append((off <= 0.5 * length).all(axis=0))
        relaxed.append(off.mean(axis=0) <= 0.5 * length)
        known.append(has)
    return np.stack(strict, 1), np.stack(relaxed, 1), np.stack(known, 1)


def _end(joints: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    return joints[:, [JOINTS.index(name) for name in names]].mean(axis=1)


def _segment(
    truth: np.ndarray, visible: np.ndarray, first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The distance of two ends, float64 [N], and whether all its joints are annotated, bool [N]."""
    needed = [JOINTS.index(name) for name in (*first, *second)]
    return _length(_end(truth, first) - _end(truth, second)), visible[:, needed].all(axis=1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(axis=-1))


def _share(right: np.ndarray, counted: np.ndarray) -> float:
    total = np.count_nonzero(counted)
    return np.count_nonzero(right & counted) / total if total else float("nan")
