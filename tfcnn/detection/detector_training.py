"""What the training of every detector shares: settings, what is frozen, rates, and validation by mean AP."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection

import keras
import numpy as np
import tensorflow as tf

from tfcnn import draw
from tfcnn.datasets.example import Dataset, evenly
from tfcnn.datasets.pipeline import Batches
from tfcnn.datasets.proposals import Proposals
from tfcnn.detection.endpoints import endpoint_strides
from tfcnn.errors import InputError
from tfcnn.evaluation import segm, voc
from tfcnn.predictor import Method, Predictor
from tfcnn.training import freezing
from tfcnn.training.config import TrainingConfig

SIZE = 320  # pixels of the net's pictures where the config names none


@dataclasses.dataclass(frozen=True)
class DetectorConfig(TrainingConfig):
    """Settings that the training of every detector has.

    Attributes:
        freeze_stride: trained endpoints of the backbone up to this stride stay as they are; 0 trains all.
        bias_rate: factor of the biases' learning rate.
        validate_images: pictures of each validation, evenly spread; 0 takes all.
        test_image_size: side of the pictures that the released net sees; None: image_size.
    """

    epochs: float = 40.0
    freeze_stride: int = 4
    bias_rate: float = 1.0
    validate_images: int = 0
    test_image_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize == "crop":
            raise InputError("resize='crop' would cut objects off; take stretch, letterbox or fit")

    @property
    def train_size(self) -> int:
        """Side of the pictures in training, pixels."""
        return self.image_size or SIZE

    @property
    def test_size(self) -> int:
        """Side of the pictures in validation and of the release, pixels."""
        return self.test_image_size or self.train_size


def freeze(model: keras.Model, config: DetectorConfig, trained: Collection[str]) -> list[str]:
    """Freezes what is named, and where it is trained batch norm and the backbone up to `freeze_stride`.

    Args:
        model: a detector, as its builder gave it.
        config: the settings.
        trained: names of the layers that have been trained before.

    Returns:
        Names of the layers that were frozen and have weights.
    """
    known = endpoint_strides(model)
    early = [name for name, (_, stride) in known.items() if stride <= config.freeze_stride]
    endpoints = {name: layer for name, (layer, _) in known.items()}
    frozen = freezing.freeze_trained(model, early[-1:], endpoints=endpoints, trained=trained)
    return list(dict.fromkeys([*frozen, *freezing.freeze(model, config.freeze, endpoints)]))


def rates(
    model: keras.Model, config: DetectorConfig, trained: Collection[str], own_layers: tuple[str, ...]
) -> Callable[[keras.Variable], float]:
    """Gives the factor of each variable's learning rate: `backbone_rate` where the backbone has been trained before,
    `bias_rate` for biases; arguments as of `freeze`, and how names of layers begin that are the detector's own."""
    slow = {
        id(variable)
        for layer in model.layers
        if layer.name in trained and not layer.name.startswith(own_layers)
        for variable in layer.variables
    }

    def rate(variable: keras.Variable) -> float:
        own = config.backbone_rate if id(variable) in slow else 1.0
        return own * config.bias_rate if variable.path.endswith("/bias") else own

    return rate


def scope(strategy: tf.distribute.Strategy | None) -> contextlib.AbstractContextManager:
    """The strategy's scope, or nothing."""
    return strategy.scope() if strategy else contextlib.nullcontext()


def first_batch(batches: Batches, classes: list[str]) -> np.ndarray:
    """A sheet of the first batch, with its boxes and masks."""
    batch = batches.batch(0)
    pictures = []
    for image, (height, width), boxes, labels in zip(
        *(batch[name][:16] for name in ("image", "size", "boxes", "labels")), strict=True
    ):
        picture = np.clip(image[:height, :width], 0, 255).astype(np.uint8)
        real = labels >= 0
        if "masks" in batch:
            shown = batch["masks"][len(pictures)][real, :height, :width]
            picture = draw.masks(picture, shown, labels[real])
        pictures.append(draw.boxes(picture, boxes[real], labels[real], names=classes))
    return draw.grid(pictures, columns=4)


class Validation:
    """Mean AP on a data set.

    Args:
        method: the model at work.
        dataset: the pictures.
        config: the settings.
        proposals: of Fast R-CNN.

    Attributes:
        predictor: the method with its placement of pictures.
        dataset: the pictures that are looked at.
        refused: {file: why} of pictures that could not be read.
    """

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        config: DetectorConfig,
        proposals: Proposals | None = None,
    ):
        self.predictor = Predictor(
            method,
            names=dataset.classes,
            image_size=config.test_size,
            longest=config.longest,
            resize=config.resize,
            threads=config.threads,
        )
        self.dataset, self.proposals = dataset, proposals
        if config.validate_images:
            kept = evenly(dataset.examples, config.validate_images)
            self.dataset = dataclasses.replace(dataset, examples=kept)
        self.refused: dict[str, str] = {}

    def __call__(self) -> dict[str, float | None]:
        """Mean AP at IoU 0.5 of boxes by both rules of VOC, and of masks by COCO's: {"map_11", "map_area"} and, of a
        detector with masks, {"segm_AP50", "segm_AP"}; None where no picture has an object."""
        found, unreadable = self.predictor.over_records(self.dataset.examples, self.proposals)
        self.refused |= unreadable
        figures = voc.evaluate(self.dataset.examples, found, self.dataset.classes)
        means = {name: figures[name] for name in ("map_11", "map_area")}
        if getattr(self.predictor.method, "has_masks", False):
            measured = segm.evaluate(self.dataset.examples, found, self.dataset.classes)
            own = measured[0] if measured else {"AP50": 0.0, "AP": 0.0}  # nothing is found yet
            means |= {f"segm_{name}": own[name] for name in ("AP50", "AP")}
        return {name: None if math.isnan(mean) else mean for name, mean in means.items()}

    def drawn(self, count: int = 8) -> list[np.ndarray]:
        """Some pictures with what is found in them, evenly spread: uint8 [H, W, 3] each."""
        pictures, given = [], []
        for record in evenly(self.dataset.examples, count):
            with contextlib.suppress(InputError):  # named by the validation
                pictures.append(record.image())
                given.append(self.proposals.of(record.file) if self.proposals else None)
        found = self.predictor(pictures, given if self.proposals else None)
        return [own.top(10).draw(picture) for own, picture in zip(found, pictures, strict=True)]
