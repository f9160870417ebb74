"""A detector's scores raised by another's, by hand."""

import numpy as np
import pytest

from tfcnn.detection.rescoring import rescored
from tfcnn.detections import Detections
from tfcnn.errors import InputError

FOUND = Detections(
    [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], [0.9, 0.6, 0.5, 0.4], [0, 0, 1, 1]
)


def test_scores_rise_by_the_others_probability_and_the_overlap():
    other = Detections(
        [
            [60, 0, 70, 8],  # IoU 0.8 with the last
            [60, 0, 70, 10],  # the same box, but p IoU is 0.3 and not 0.8 x 0.5 = 0.4
            [20, 0, 30, 4],  # IoU 0.4: not similar
            [40, 0, 50, 10],  # another class
        ],
        [0.5, 0.3, 0.9, 0.9],
        [1, 1, 0, 0],
    )
    raised = rescored(FOUND, other)
    # 0.4 + 0.6 x 0.4 = 0.64, which now is before 0.6.
    np.testing.assert_allclose(raised.scores, [0.9, 0.64, 0.6, 0.5])
    np.testing.assert_array_equal(raised.boxes[:, 0], [0, 60, 20, 40])
    np.testing.assert_array_equal(raised.labels, [0, 1, 0, 1])


def test_a_sure_detector_makes_sure_and_none_changes_nothing():
    raised = rescored(FOUND, Detections(FOUND.boxes, np.ones(4), FOUND.labels))
    np.testing.assert_allclose(raised.scores, 1)
    for other in (Detections.empty(), Detections([[100, 100, 110, 110]], [1.0], [0])):
        np.testing.assert_array_equal(rescored(FOUND, other).scores, FOUND.scores)
    assert len(rescored(Detections.empty(), FOUND)) == 0


def test_other_classes_are_refused():
    ours, theirs = (Detections([[0, 0, 1, 1]], [0.5], [0], names) for names in (["cat"], ["dog"]))
    with pytest.raises(InputError, match="same classes"):
        rescored(ours, theirs)
