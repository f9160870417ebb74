"""A detector at work: pictures of any size in, Detections in the pixels of their files out."""

import concurrent.futures
import dataclasses
import itertools

import numpy as np
import tensorflow as tf

from tfcnn import images
from tfcnn.detection import test_time
from tfcnn.detection.stages import LiteStages, Stages
from tfcnn.detections import Detections
from tfcnn.errors import InputError


class Detector:
    """One or several Faster R-CNN or Fast R-CNN models with everything that is done at test time.

    Args:
        models: keras.Model of `faster_rcnn`, or several of the same classes: an ensemble.
        sizes: side in pixels of the square that each picture becomes; several: testing on several scales. The first one
            makes the picture in which boxes are counted.
        resize: "stretch" or "letterbox", as `images.resize`.
        flip: look at each picture mirrored, too.
        refine, box_voting: of `refine.find`.
        score_threshold, nms_threshold, max_detections: None takes the first model's own.
        runtime: "tf", or "litert" for the networks' convolutions (one picture after the other).
        threads: of LiteRT.

    Raises:
        InputError: a model is no Faster R-CNN, or the models have different classes.
    """

    def __init__(
        self,
        models,
        sizes=(320,),
        resize="stretch",
        *,
        flip=False,
        refine=0,
        box_voting=False,
        score_threshold=None,
        nms_threshold=None,
        max_detections=None,
        runtime="tf",
        threads=1,
    ):
        all_stages = [Stages(model) for model in models]
        if len({stages.classes for stages in all_stages}) > 1:
            counts = ", ".join(str(stages.classes) for stages in all_stages)
            raise InputError(f"The models of an ensemble need the same classes, but have {counts} of them.")
        output = all_stages[0].output
        self.sizes, self.resize, self.classes = list(sizes), resize, all_stages[0].classes
        options = {
            "refine": refine,
            "box_voting": box_voting,
            "proposals": all_stages[0].proposals.count if all_stages[0].proposals else 0,
            "score_threshold": output.score_threshold if score_threshold is None else score_threshold,
            "nms_threshold": output.nms_threshold if nms_threshold is None else nms_threshold,
            "max_detections": output.max_detections if max_detections is None else max_detections,
        }
        views = []
        for stages, (index, size) in itertools.product(all_stages, enumerate(self.sizes)):
            if runtime == "litert":
                stages = LiteStages(stages, size, threads)
            views += [test_time.View(stages, index, False)] + [test_time.View(stages, index, True)] * flip
        self._find = tf.function(
            lambda pictures, given: test_time.find(views, pictures, given, **options), reduce_retracing=True
        )
        first, self.proposal_count = views[0].stages, options["proposals"]
        self._propose = tf.function(
            lambda picture: first.propose(first.first(picture), picture, options["proposals"])[0],
            reduce_retracing=True,
        )

    def prepare(self, image):
        """A picture at every size, and the way back: (list of float32 [h, w, 3], images.Placement)."""
        resized = [images.resize(image, size, self.resize) for size in self.sizes]
        return [picture.astype(np.float32) for picture, _ in resized], resized[0][1]

    def detect(self, prepared, shapes, proposals=None):
        """Detections of a batch of prepared pictures.

        Args:
            prepared: what `prepare` gave for each picture.
            shapes: (height, width) of each file.
            proposals: for Fast R-CNN, [R, 4] in pixels of each file.

        Returns:
            list of Detections in the pixels of each file, cut at its edges.
        """
        pictures = [np.stack(group) for group in zip(*(pictures for pictures, _ in prepared), strict=True)]
        given = None
        if proposals is not None:
            given = np.zeros((len(prepared), max([1, *map(len, proposals)]), 4), np.float32)
            for row, ((_, placement), boxes) in enumerate(zip(prepared, proposals, strict=True)):
                given[row, : len(boxes)] = placement.from_file(boxes)
        output = {name: value.numpy() for name, value in self._find(pictures, given).items()}
        found = []
        for i, ((_, placement), (height, width)) in enumerate(zip(prepared, shapes, strict=True)):
            count = output["count"][i]
            boxes = np.clip(placement.to_file(output["boxes"][i, :count]), 0, [width, height, width, height])
            found.append(Detections(boxes, output["scores"][i, :count], output["labels"][i, :count]))
        return found

    def over_records(self, records, batch_size=8, threads=2, progress=lambda count: None, proposals=None):
        """Detections of a data set's pictures, read ahead in threads.

        Args:
            records: of a tfcnn.datasets Dataset.
            batch_size: pictures computed at once.
            threads: for reading.
            progress: called with the number of pictures done since the last call.
            proposals: for Fast R-CNN, a `given.Proposals`.

        Returns:
            ({image_id: Detections}, {file: why} of pictures that could not be read).
        """
        found, refused = {}, {}
        for batch in self._read(records, batch_size, threads):
            ready = [item for item in batch if not item.why]
            if ready:
                given = [proposals.of(item.record.file) for item in ready] if proposals else None
                answers = self.detect(
                    [item.prepared for item in ready], [item.shape for item in ready], given
                )
                found |= {item.record.image_id: d for item, d in zip(ready, answers, strict=True)}
            refused |= {item.record.file: item.why for item in batch if item.why}
            progress(len(batch))
        return found, refused

    def proposals(self, records, batch_size=8, threads=2):
        """The first network's proposals.

        Args:
            records, batch_size, threads: as `over_records`.

        Yields:
            for each record float32 [R, 4] in pixels of its square picture; [0, 4] where it cannot be read.
        """
        for batch in self._read(records, batch_size, threads):
            ready = [item for item in batch if not item.why]
            boxes = iter(
                self._propose(np.stack([item.prepared[0][0] for item in ready])).numpy() if ready else ()
            )
            for item in batch:
                yield np.zeros((0, 4), np.float32) if item.why else next(boxes)

    def _read(self, records, batch_size, threads):
        """Lists of up to `batch_size` records, prepared ahead in threads."""
        records = iter(records)
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(self._load, r) for r in itertools.islice(records, 2 * batch_size)]
            while waiting:
                batch, waiting = waiting[:batch_size], waiting[batch_size:]
                waiting += [pool.submit(self._load, r) for r in itertools.islice(records, len(batch))]
                yield [item.result() for item in batch]

    def _load(self, record):
        try:
            image = record.image()
        except InputError as error:
            return _Loaded(record, why=str(error))
        return _Loaded(record, self.prepare(image), image.shape[:2])


@dataclasses.dataclass
class _Loaded:
    """A record as `Detector.prepare` gives it, or why it could not be read."""

    record: object
    prepared: tuple | None = None
    shape: tuple | None = None
    why: str = ""
