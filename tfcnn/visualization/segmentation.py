"""An object cut out by its class' saliency: the map seeds a segmentation by colour.

H W the picture's size.
"""

import dataclasses

import cv2
import numpy as np
from scipy import ndimage

from tfcnn import images
from tfcnn.errors import InputError
from tfcnn.visualization import SEEDS

LONGEST = 400  # pixels of the longer side at which GrabCut works: it is slow, and colours need no more
OBJECT = (cv2.GC_FGD, cv2.GC_PR_FGD)
FOREGROUND, BACKGROUND = 0.95, 0.3  # the paper's quantiles
AGREEMENT = 0.25  # IoU of mask and map below which the map is believed
BLUR = 0.027  # share of the shorter side: 6 of 224 pixels


@dataclasses.dataclass(frozen=True)
class Segment:
    """An object that was cut out.

    Attributes:
        mask: bool [H, W].
        box: (x1, y1, x2, y2) of the mask, in pixels; the whole picture where nothing was found.
    """

    mask: np.ndarray
    box: tuple[float, float, float, float]


def seeds(saliency_map: np.ndarray, rule: str = "otsu") -> np.ndarray:
    """Gives GrabCut's labels of a map: what is surely object, what surely not, and which way the rest leans.

    By "paper" pixels above the map's 95 % quantile are object, those below its 30 % quantile background, and the rest
    leans to the background. These quantiles know nothing of the object's size: by "otsu" the rest is parted where the
    map itself falls in two (Otsu's threshold), and surely object is what lies above the middle between that and the
    maximum.

    Args:
        saliency_map: [H, W], at least 0, smooth.
        rule: one of SEEDS.

    Returns:
        uint8 [H, W] of cv2.GC_FGD, GC_BGD, GC_PR_FGD and GC_PR_BGD.

    Raises:
        InputError: an unknown rule; the map is the same everywhere, or not finite.

    Source: Simonyan, Vedaldi, Zisserman 2013, section 3.2; Otsu 1979.
    """
    if rule not in SEEDS:
        raise InputError(f"The rule {rule!r} is none of {', '.join(SEEDS)}")
    values = np.asarray(saliency_map, np.float64)
    if not np.isfinite(values).all():
        raise InputError("non-finite")
    if values.max() == values.min():
        raise InputError("the map is the same everywhere, so that nothing says where the object is")
    labels = np.full(values.shape, cv2.GC_PR_BGD, np.uint8)
    low, high = np.quantile(values, [BACKGROUND, FOREGROUND])
    if rule == "otsu":
        threshold = otsu(values)
        labels[values > threshold] = cv2.GC_PR_FGD
        high = (threshold + values.max()) / 2
    labels[values <= low] = cv2.GC_BGD
    labels[values >= high] = cv2.GC_FGD
    return labels


def otsu(values: np.ndarray) -> float:
    """Gives the threshold that parts values into two groups of least variance, to one part in 256.

    Source: Otsu 1979, A Threshold Selection Method from Gray-Level Histograms.
    """
    low, high = float(values.min()), float(values.max())
    levels = np.rint((values - low) / (high - low) * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return low + (threshold + 0.5) / 255 * (high - low)


def segment(
    image: np.ndarray,
    saliency_map: np.ndarray,
    *,
    rule: str = "otsu",
    blur: float = BLUR,
    iterations: int = 5,
    seed: int = 0,
) -> Segment:
    """Cuts out the object that a map points at.

    Where object and background share their colours, GrabCut takes most of the picture or hardly anything. By "otsu" a
    mask that has so little to do with the map is given up for the part of the map above the threshold.

    Args:
        image: uint8 [H, W, 3], RGB.
        saliency_map: [h, w], at least 0, of the whole picture at any size.
        rule: of `seeds`.
        blur: deviation of the Gaussian that smooths the map first, as a share of its shorter side: single pixels
            of a gradient say little.
        iterations, seed: of `grab_cut`.

    Returns:
        The object's mask at the picture's size, one piece, and its box.

    Raises:
        InputError: the map is not finite, or the same everywhere; or the picture is too small.

    Source: Simonyan, Vedaldi, Zisserman 2013, section 3.2.
    """
    height, width = image.shape[:2]
    smooth = ndimage.gaussian_filter(np.asarray(saliency_map, np.float32), blur * min(saliency_map.shape))
    values = cv2.resize(smooth, _working_size(height, width), interpolation=cv2.INTER_LINEAR)
    found = grab_cut(image, seeds(values, rule), iterations, seed)
    if rule == "paper":
        return found
    region = cv2.resize(largest_piece(values > otsu(values)).astype(np.float32), (width, height)) > 0.5
    overlap = (found.mask & region).sum() / max(1, (found.mask | region).sum())
    return found if overlap > AGREEMENT else Segment(region, box_of(region))


def grab_cut(image: np.ndarray, labels: np.ndarray, iterations: int = 5, seed: int = 0) -> Segment:
    """Cuts out the object that labels mark: colour models and graph cuts, then the largest piece, without holes.

    The paper's is a graph cut with the colour models fixed; GrabCut fits them anew after each cut.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: uint8 [h, w] of cv2.GC_*, of the whole picture at any size.
        iterations: cuts.
        seed: of the first clusters of colours.

    Returns:
        The largest connected piece, at the picture's size.

    Raises:
        InputError: the labels leave no object, or no background.

    Source: Rother, Kolmogorov, Blake 2004, GrabCut; OpenCV's grabCut.
    """
    height, width = image.shape[:2]
    size = _working_size(height, width)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    marks = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    is_object = np.isin(marks, OBJECT)
    if is_object.all() or not is_object.any():
        raise InputError(
            "nothing marks an object apart from a background: the picture is too small, or too even"
        )
    cv2.setRNGSeed(seed)
    models = np.zeros((2, 1, 65))
    cv2.grabCut(
        np.ascontiguousarray(small[..., ::-1]), marks, None, *models, iterations, cv2.GC_INIT_WITH_MASK
    )
    found = ndimage.binary_fill_holes(largest_piece(np.isin(marks, OBJECT))).astype(np.float32)
    mask = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return Segment(mask, box_of(mask))


def _working_size(height, width):
    """(width, height) at which GrabCut works."""
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def on_the_file(saliency_map: np.ndarray, placement: images.Placement, shape: tuple[int, int]) -> np.ndarray:
    """Brings a map from the net's picture to the file's pixels.

    Args:
        saliency_map: [h, w].
        placement: from the file to the net's picture, as `images.resize` gives it.
        shape: height and width of the file's picture.

    Returns:
        float32 [H, W]; 0 where the net saw nothing.
    """
    there = placement.affine()
    there[:, 2] += there[:, :2] @ [0.5, 0.5] - 0.5  # from the middle of a pixel to the middle of a pixel
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = np.asarray(saliency_map, np.float32)
    return cv2.warpAffine(values, there, shape[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT)


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Gives the largest connected part of a mask, bool [H, W]; pixels that touch at a corner are connected."""
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    if count < 2:
        return mask
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Gives the box (x1, y1, x2, y2) of a mask bool [H, W] in pixels; that of the picture where the mask is empty."""
    if not mask.any():
        return (0.0, 0.0, float(mask.shape[1]), float(mask.shape[0]))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gives an object on white, cropped to its box.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W].

    Returns:
        uint8 [h, w, 3].
    """
    x1, y1, x2, y2 = (int(each) for each in box_of(mask))
    return np.where(mask[..., None], image, np.uint8(255))[y1:y2, x1:x2]


def centred_rectangle(shape: tuple[int, int], share: float = 0.8) -> np.ndarray:
    """Gives GrabCut's labels of one who knows nothing: the object may be in the middle, and is not at the border.

    Args:
        shape: height and width.
        share: of each side.
    """
    labels = np.full(shape, cv2.GC_BGD, np.uint8)
    top, left = (round((1 - share) / 2 * side) for side in shape)
    labels[top : shape[0] - top, left : shape[1] - left] = cv2.GC_PR_FGD
    return labels
