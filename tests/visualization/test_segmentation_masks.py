"""Seeds by hand, and a disk cut out of noise."""

import cv2
import numpy as np
import pytest

from tfcnn import images
from tfcnn.errors import InputError
from tfcnn.evaluation.pointing import mask_iou
from tfcnn.visualization import segmentation


def disk(height=120, width=160, centre=(50, 90), radius=30):
    """A red disk on green, both noisy: (picture, mask)."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    colours = np.where(mask[..., None], [190, 60, 50], [60, 150, 70])
    return np.clip(colours + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8), mask


def hill(shape, centre, width):
    """A map that is highest at a place."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * width**2))


def test_seeds_by_the_papers_quantiles():
    labels = segmentation.seeds(np.arange(100.0).reshape(10, 10), "paper").ravel()
    assert (labels[:30] == cv2.GC_BGD).all() and (labels[30:95] == cv2.GC_PR_BGD).all()
    assert (labels[95:] == cv2.GC_FGD).all()
    with pytest.raises(InputError, match="same everywhere"):
        segmentation.seeds(np.ones((4, 4)))
    with pytest.raises(InputError, match="non-finite"):
        segmentation.seeds(np.array([[np.nan, 1.0]]))
    with pytest.raises(InputError, match="'best' is none of otsu"):
        segmentation.seeds(np.eye(4), "best")


def test_seeds_by_the_maps_own_two_groups():
    values = np.concatenate([np.full(40, 0.0), np.full(40, 1.0), np.full(15, 8.0), np.full(5, 10.0)])
    assert 1 < segmentation.otsu(values) < 8
    labels = segmentation.seeds(values[None])[0]
    assert (labels[:40] == cv2.GC_BGD).all() and (labels[40:80] == cv2.GC_PR_BGD).all()
    assert (labels[80:] == cv2.GC_FGD).all()  # all above the middle between the threshold and 10
    ramp = np.concatenate([np.zeros(50), np.linspace(5, 10, 50)])
    labels = segmentation.seeds(ramp[None])[0]
    assert labels[50] == cv2.GC_PR_FGD and labels[-1] == cv2.GC_FGD


def test_a_disk_is_cut_out_by_a_map_that_points_at_it():
    image, mask = disk()
    found = segmentation.segment(
        image, hill((30, 40), (12, 22), 6)
    )  # a map of another size, and not its middle
    assert mask_iou(found.mask, mask) > 0.9
    assert np.abs(np.array(found.box) - [60, 20, 121, 81]).max() <= 3
    assert np.array_equal(segmentation.segment(image, hill((30, 40), (12, 22), 6)).mask, found.mask)
    cut = segmentation.cut_out(image, found.mask)
    x1, y1, x2, y2 = map(int, found.box)
    assert cut.shape == (y2 - y1, x2 - x1, 3) and (cut[0, 0] == 255).all()


def test_a_large_picture_has_a_mask_of_its_own_size():
    image, mask = disk()
    large = cv2.resize(image, (960, 720), interpolation=cv2.INTER_NEAREST)
    found = segmentation.segment(large, hill((30, 40), (12, 22), 6))
    assert found.mask.shape == (720, 960)
    assert mask_iou(cv2.resize(found.mask.astype(np.uint8), (160, 120)) > 0, mask) > 0.9


def test_where_colours_say_nothing_the_map_is_believed():
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    values = hill((60, 80), (30, 20), 6)
    region = values > segmentation.otsu(values)
    assert mask_iou(segmentation.segment(noise, values, blur=0).mask, region) > segmentation.AGREEMENT
    plain = segmentation.grab_cut(noise, segmentation.seeds(values)).mask
    kept = segmentation.segment(noise, values, blur=0).mask
    assert np.array_equal(kept, plain if mask_iou(plain, region) > segmentation.AGREEMENT else region)


def test_a_ring_is_filled():
    image, mask = disk()
    ring = image.copy()
    ring[45:56, 85:96] = (60, 150, 70)  # a hole of the background's colour
    assert segmentation.segment(ring, hill((30, 40), (12, 22), 6)).mask[50, 90]


def test_the_largest_piece_and_its_box():
    mask = np.zeros((6, 8), bool)
    mask[0, 0] = mask[2, 3] = mask[3, 4] = mask[4, 4] = True  # three that touch, corners counted
    piece = segmentation.largest_piece(mask)
    assert piece.sum() == 3 and not piece[0, 0]
    assert segmentation.box_of(piece) == (3, 2, 5, 5)
    assert segmentation.box_of(np.zeros((6, 8), bool)) == (0, 0, 8, 6)


def test_a_map_of_a_crop_lies_where_the_net_saw_the_picture():
    placement = images.Placement(0.5, 0.5, -10, 0)  # half the size, 20 pixels cut off at the left
    values = np.zeros((30, 40), np.float32)
    values[10:12, 5:7] = 1
    found = segmentation.on_the_file(values, placement, (60, 120))
    rows, columns = np.nonzero(found > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 23, 30, 33)
    assert not found[:, :19].any() and not found[:, 101:].any()


def test_a_rectangle_knows_the_middle_only():
    labels = segmentation.centred_rectangle((10, 20), 0.8)
    assert (labels == cv2.GC_PR_FGD).sum() == 8 * 16 and labels[0, 10] == labels[5, 1] == cv2.GC_BGD
    image, mask = disk(centre=(60, 80))
    assert mask_iou(segmentation.grab_cut(image, segmentation.centred_rectangle(mask.shape)).mask, mask) > 0.9
    with pytest.raises(InputError, match="nothing marks"):
        segmentation.grab_cut(image, np.full(mask.shape, cv2.GC_BGD, np.uint8))
