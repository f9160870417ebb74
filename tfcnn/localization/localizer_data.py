"""What the training of a localizer reads: features of what is frozen, computed once, or pictures.

N pictures, K boxes of a picture.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from tfcnn.datasets import pipeline
from tfcnn.datasets.example import Dataset
from tfcnn.localization import heads
from tfcnn.localization.targets import unit_boxes
from tfcnn.ops import boxes as ops
from tfcnn.training import features, last_layer, run
from tfcnn.training.team import Team, explained

if TYPE_CHECKING:
    from tfcnn.localization.localizer_training import LocalizerConfig

MIRRORED = (None, "flip")  # what the features of pictures and of their mirror images can stand for


# A net, its training batches, and a call that gives the validation's once through.
Readings = tuple[keras.Model, run.Batches, Callable[[], Iterable[Mapping]]]


class Source:
    """What a stage of the training reads: features of what is frozen, computed once, or pictures.

    Args:
        model: of `localization.with_box_head`.
        untrained: names of the classifier's layers that are random.
        training, validation: data sets of `largest_objects`.
        config: the settings.
        folder: of the run.
        told: stop, progress and say, as `training.run.fit`.
        team: the processes that train: the chief computes the features, and all of them read those.

    Attributes:
        readers: what has read pictures, as `training.run.Reads`.
    """

    def __init__(
        self,
        model: keras.Model,
        untrained: set[str],
        training: Dataset,
        validation: Dataset,
        config: LocalizerConfig,
        folder: pathlib.Path,
        told: Mapping,
        team: Team,
    ):
        self.model, self.config, self.parts = model, config, (training, validation)
        self.team = team
        self.body, self.head = heads.split(model, untrained)
        self.folder, self._own = folder / "features", config.cache_features is None
        if not self._own:
            self.folder = pathlib.Path(config.cache_features)
        self.told, self.readers = told, []

    def of(
        self, layers: set[str], validates: bool = True
    ) -> tuple[keras.Model, run.Batches, Callable[[], Iterable[Mapping]]]:
        """Gives what trains these layers.

        Args:
            layers: names.
            validates: whether the validation's features are asked for.

        Returns:
            (net, batches, once): a net from `features` or `image`, its training batches, and a call that gives
            the validation's once through.
        """
        above = {layer.name for layer in self.head.layers}
        if self.config.augment in MIRRORED and layers <= above:
            return self._cached(validates)
        return self.live()

    def live(self) -> Readings:
        """Gives the same from pictures."""
        batches, once = self.pictures(), self.pictures(once=True)
        self.readers += [batches, once]
        return self.model, UnitBoxes(batches), UnitBoxes(once)

    def pictures(self, once: bool = False) -> pipeline.Batches:
        """Gives the batches of pictures: endless, shuffled and augmented, or the validation's once through."""
        config = self.config
        return pipeline.batches(
            self.parts[once],
            size=self.model.input_shape[1],
            batch_size=config.batch_size,
            augment=None if once else config.augment or "flip",
            seed=config.seed,
            resize=config.resize,
            max_boxes=heads.form(self.model).objects,
            shuffle=not once,
            repeat=not once,
            threads=config.threads,
        )

    def clear(self) -> None:
        """Deletes the features, unless they are kept for other runs."""
        if self._own and self.team.chief:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _cached(self, validates):
        config, size, objects = self.config, self.model.input_shape[1], heads.form(self.model).objects
        caches, columns = [], []
        for part, name in list(zip(self.parts, ("train", "val"), strict=True))[: 1 + validates]:
            place = self.folder / name
            mirrored = name == "train"
            how = {"writes": self.team.chief, **self.told}
            with explained(self.team, self.folder.parent), self.team.chief_first():
                cache = last_layer.cache(self.body, part, place, config, size, mirrored, **how)
            caches.append(cache)
            self.readers.append(last_layer.Lacking(part, cache, place))
            there = np.array(cache.image_ids) != ""
            labels = np.array([record.label for record in part.examples], np.int32)
            columns.append(np.where(there, labels, -1))
        boxes = unit_boxes(self.parts[0], size, config.resize, objects)  # [N, K, 4]
        views = np.stack([boxes, _mirrored(boxes)], axis=1)

        def once():
            for first in range(0, len(columns[1]), config.batch_size):
                rows = slice(first, first + config.batch_size)
                found = caches[1].arrays["features"][rows, 0].astype(np.float32)
                yield {"features": found, "label": columns[1][rows]}

        batches = features.Batches(
            caches[0], {"label": columns[0]}, config.batch_size, config.seed, views={"unit_boxes": views}
        )
        return self.head, batches, once


@dataclasses.dataclass
class UnitBoxes:
    """Batches of pictures with `unit_boxes` [N, K, 4] in the place of boxes in pixels."""

    batches: pipeline.Batches

    @property
    def steps_per_epoch(self) -> int:
        """As the batches have it."""
        return self.batches.steps_per_epoch

    def __call__(self, start: int = 0, shard: int = 0, of: int = 1) -> tf.data.Dataset:
        """Gives the batches from number `start` on."""
        height, width = self.batches.size

        def unit(batch):
            return {
                **{name: batch[name] for name in ("image", "image_id", "label", "position")},
                "unit_boxes": ops.to_unit(batch["boxes"], height, width),
            }

        return self.batches(start, shard, of).map(unit)


def _mirrored(boxes):
    """unit_boxes of the mirror images; padding stays zeros."""
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    there = (x2 > x1)[..., None]
    return np.where(there, np.stack([1 - x2, y1, 1 - x1, y2], axis=-1), 0).astype(np.float32)
