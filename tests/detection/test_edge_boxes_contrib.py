"""opencv-contrib's search of Edge Boxes on our edges: its conventions, and that it finds what our own finds."""

import cv2
import numpy as np
import pytest

from tfcnn import datasets, images
from tfcnn.detection import proposals
from tfcnn.detection.proposals import edge_boxes, edges
from tfcnn.evaluation.proposal_recall import Recall, ground_truth, pairwise_iou

pytestmark = pytest.mark.extras
ximgproc = getattr(cv2, "ximgproc", None)
if not hasattr(ximgproc, "createEdgeBoxes"):
    pytest.skip("the extra contrib is not installed", allow_module_level=True)

# Of a forest that has no trees: computeOrientation looks at the options alone.
OPTIONS = {
    "stride": 2,
    "shrinkNumber": 2,
    "patchSize": 32,
    "patchInnerSize": 16,
    "numberOfGradientOrientations": 4,
    "gradientSmoothingRadius": 0,
    "regFeatureSmoothingRadius": 2,
    "ssFeatureSmoothingRadius": 8,
    "gradientNormalizationRadius": 4,
    "selfsimilarityGridSize": 5,
    "numberOfTrees": 1,
    "numberOfTreesToEvaluate": 1,
}
TREES = ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")


@pytest.fixture(scope="module")
def photographs():
    """Three packaged photographs, longer side 160 pixels."""
    return [images.resize(images.read(each), 160, "fit", longest=160)[0] for each in images.packaged()[:3]]


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 110, 135, 160])
def test_the_orientation_is_that_of_opencv(degrees, tmp_path):
    """A step whose normal points to `degrees`. OpenCV takes the tangent's square for the tangent: within 15 degrees."""
    path = tmp_path / "forest.yml"
    lines = [f"   {name}: {value}" for name, value in OPTIONS.items()]
    path.write_text(
        "\n".join(["%YAML:1.0", "---", "options:", *lines, *(f"{name}:\n   - [ 0 ]" for name in TREES), ""])
    )
    y, x = np.mgrid[-40:41, -40:41].astype(np.float32)
    away = x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))
    step = np.repeat(np.where(away > 0, 200, 40).astype(np.uint8)[..., None], 3, axis=2)
    magnitude, orientation = edges.edge_map(step)
    line = np.exp(-(away**2) / 4).astype(np.float32)
    theirs = ximgproc.createStructuredEdgeDetection(str(path)).computeOrientation(line)
    near = np.hypot(x, y) < 25
    ours = _mean(edge_boxes.normals(orientation)[near & (magnitude > 0.5)])
    turn = abs(ours - _mean(theirs[near & (line > 0.8)]))
    assert min(turn, 180 - turn) < 15


def _mean(angles):
    """Of angles modulo pi, in degrees."""
    return np.rad2deg(np.angle(np.exp(2j * angles).mean()) / 2) % 180


def test_boxes_lie_in_the_picture_and_come_best_first(photographs):
    for image in photographs:
        found = proposals.proposer("edge_boxes", count=300, search="contrib")(image)
        assert len(found) == 300 and np.isfinite(found).all() and (np.diff(found[:, 4]) <= 0).all()
        boxes, _ = edge_boxes.contrib_search(*edges.edge_map(image), 2000)  # as they come, not clipped
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= image.shape[1::-1]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 3).all() and boxes[:, :2].min() == 0
        overlap = pairwise_iou(found[:, :4], found[:, :4]) - np.eye(300)
        assert overlap.max() <= edge_boxes.BETA + 1e-6


def test_a_box_scores_about_what_our_own_search_gives_it(photographs):
    """Contours that leave a box count as little as ours: with the orientation along the edge it was 1.4 times."""
    for image in photographs:
        magnitude, orientation = edges.edge_map(image)
        boxes, scores = edge_boxes.contrib_search(magnitude, orientation, 1000)
        ours = edge_boxes.box_scores(edges.grouped(magnitude, orientation), boxes + [0, 0, 1, 1])
        assert 0.6 < np.median(scores / np.maximum(ours, 1e-3)) < 1.1
        assert np.corrcoef(scores, ours)[0, 1] > 0.6


def test_it_finds_what_our_own_search_finds(photographs):
    for image in photographs:
        own, contrib = (
            proposals.proposer("edge_boxes", count, search=search)(image)
            for count, search in ((50, "own"), (1000, "contrib"))
        )
        assert (pairwise_iou(contrib[:, :4], own[:, :4]).max(axis=0) > 0.5).mean() > 0.8


def test_its_recall_of_drawn_shapes_is_that_of_our_own_search():
    shares = {}
    for search in edge_boxes.SEARCHES:
        recall = Recall((100,))
        for record in datasets.open("shapes", split="val").examples[:10]:
            image = record.image()
            found = proposals.proposer("edge_boxes", 100, search=search)(image)
            recall.add(found[:, :4], ground_truth(record, record.placement(image.shape)))
        shares[search] = recall.figures()["100"]["recall"]["0.5"]
    assert shares["contrib"] > 0.6 and abs(shares["contrib"] - shares["own"]) < 0.15, shares


def test_a_picture_of_any_size_and_no_picture_remembers_another():
    random = np.random.default_rng(0)
    shapes = ((1, 1), (2, 2), (1, 40), (3, 3), (5, 5), (40, 3), (9, 12), (30, 44))
    noise = [random.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]
    propose = proposals.proposer("edge_boxes", 50, search="contrib")
    first = [propose(image) for image in noise]
    for image, found in zip(noise[::-1], first[::-1], strict=True):
        np.testing.assert_array_equal(propose(image), found)
        assert found.shape[1:] == (5,) and np.isfinite(found).all() and len(found) <= 50
    assert len(first[-1]) and not len(propose(np.zeros((30, 44, 3), np.uint8)))
