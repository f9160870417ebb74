"""Training of a pose net, stage by stage, as a function.

Each stage learns the squared distance of its joints to the labelled ones. Stage 1 sees whole persons. A later stage
sees sub-images round simulated estimates of the stage before: the joint, displaced by a draw from the normal
distribution of what that stage's displacements were.

N persons of a batch, J joints, T stages.

Source: Toshev and Szegedy, "DeepPose", CVPR 2014, section 3.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from tfcnn import draw
from tfcnn.datasets import pipeline
from tfcnn.datasets.augment import PRESETS
from tfcnn.datasets.example import Dataset, evenly
from tfcnn.errors import InputError, unknown
from tfcnn.evaluation import pose as figures
from tfcnn.localization import losses, pose
from tfcnn.localization.persons import persons
from tfcnn.localization.pose_estimator import PoseEstimator, result
from tfcnn.ops import draws
from tfcnn.predictor import Predictor
from tfcnn.runtime import Stop
from tfcnn.training import freezing, run
from tfcnn.training.config import TrainingConfig

SHOWN = 16  # pictures on a sheet
LOSSES = ("l2", "smooth_l1")


@dataclasses.dataclass(frozen=True)
class PoseConfig(TrainingConfig):
    """Settings of `train_pose`.

    Attributes:
        epochs, steps: of stage 1.
        stage_epochs, stage_steps: of each later stage; None: as stage 1.
        first_stage: stages before it stay as they are in the model, and are measured only.
        augment: None takes "pose" of `tfcnn.datasets.augment`.
        rotation: degrees by which persons are turned, either way; None: as `augment` says.
        loss: "l2" (the paper's) or "smooth_l1", which minds a wrong label less.
        displacement_persons: training persons on whom a stage's displacements are measured.
        validate_images: persons of each validation, evenly spread; 0 takes all.
    """

    batch_size: int = 32
    resize: str = "letterbox"
    learning_rate: float = 1e-3
    stage_epochs: float | None = None
    stage_steps: int | None = None
    first_stage: int = 1
    rotation: float | None = None
    loss: str = "l2"
    displacement_persons: int = 1000
    validate_images: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        if self.augment is not None and self.augment not in PRESETS:
            raise unknown("augment", self.augment, PRESETS)
        if self.resize != "letterbox":
            raise InputError(
                f"resize={self.resize!r}: a pose net sees a person undistorted, which is letterbox"
            )

    def of_stage(self, stage: int) -> PoseConfig:
        """The settings with the epochs or steps of one stage, 1..T."""
        if stage == 1 or (self.stage_epochs is None and self.stage_steps is None):
            return self
        epochs = self.epochs if self.stage_epochs is None else self.stage_epochs
        return dataclasses.replace(self, epochs=epochs, steps=self.stage_steps)


def train_pose(
    model: keras.Model,
    training: Dataset,
    validation: Dataset,
    config: PoseConfig,
    folder: str | pathlib.Path,
    *,
    card: Mapping | None = None,
    flags: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    stop: Stop | None = None,
    progress: Callable[[int, dict], None] | None = None,
    show: Callable[[np.ndarray, str, str], None] = run.ignore,
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> run.Trained:
    """Trains a pose net on persons with labelled joints, one stage after the other, and writes a release.

    Args:
        model: of `tfcnn.localization.pose_net`, made in the strategy's scope.
        training, validation: data sets with the model's J joints, reduced by `persons`.
        config: the settings.
        folder: takes checkpoints, logs and the release; the same call goes on where it was killed.
        card, flags: as `training.run.release`.
        strategy, stop, progress, say: as `training.run.fit`.
        show: called with pictures of the run (uint8 [H, W, 3]), each with a file's name and a title.

    Returns:
        The model with the released weights, the figures of the last stage, and where the release is.

    Raises:
        InputError: data, settings and net do not fit, or as `training.loop.train`.
    """
    form = pose.form(model)
    if form.joints != len(training.joints) or list(training.joints) != list(validation.joints):
        raise InputError(
            f"The model has {form.joints} joints, {training.name} has {len(training.joints)} to train on and "
            f"{len(validation.joints)} to validate on"
        )
    if not 1 <= config.first_stage <= form.stages:
        raise InputError(f"first_stage={config.first_stage}: the model has stages 1 to {form.stages}")
    if config.image_size not in (None, form.size):
        raise InputError(f"image_size={config.image_size}: the model takes pictures of {form.size} pixels")
    training, validation = persons(training, say), persons(validation, say)
    folder, data = pathlib.Path(folder), run.summary(training, validation)
    places = [*(folder / f"stage{stage}" for stage in range(1, form.stages)), folder]
    first = places[config.first_stage - 1]
    run.check_data(first, data, config)
    trained = run.trained_before(first, data, config, model)
    batches = persons_batches(training, config, form.size)
    slow = {id(v) for layer in model.layers if layer.name in trained for v in layer.variables}
    sheet = _first_batch(batches, training)
    show(sheet, "first_batch", "The first batch as it enters the net, with its joints")
    measures, stages, spread = [], [], None
    for stage, place in enumerate(places, 1):
        if stage > 1:
            count = -(-config.displacement_persons // config.batch_size)
            spread = displacements(model, stage - 1, [batches.batch(step) for step in range(count)])
            off = spread[1].mean()
            say(f"stage {stage}: joints of the stage before are off by {off:.3f} of the picture's side")
        measures.append(Validation(model, validation, config, stage))
        if stage < config.first_stage:
            kept = {"step": 0, **measures[-1]()}
            stages.append({"last": kept, "best": kept})
            continue
        _train_only(model, stage, trained, config)
        outcome = run.fit(
            PoseTrainee(model, stage, config, measures[-1], spread),
            batches,
            config.of_stage(stage),
            place,
            best=measures[-1].best,
            what=f"stage {stage}",
            multiplier=lambda variable: config.backbone_rate if id(variable) in slow else 1.0,
            readers=[batches, *measures],
            strategy=strategy,
            stop=stop,
            progress=progress,
            say=say,
            data=data,
        )
        stages.append(outcome.metrics)
    for sheet, name, title in measures[-1].drawn():
        show(sheet, name, title)
    path, card = run.release(
        model,
        folder,
        outcome,
        config,
        kind="pose",
        training=training,
        validation=measures[-1].dataset,
        card=card,
        flags=flags,
        image_size=form.size,
        joints=list(training.joints),
        skeleton=[list(pair) for pair in training.skeleton],
        stage_metrics=stages,
    )
    return run.Trained(model, outcome, path, card, run.unreadable([batches, *measures]))


def persons_batches(dataset: Dataset, config: PoseConfig, size: int) -> pipeline.Batches:
    """Gives endless, shuffled and augmented batches of a data set of `persons`, `joints` [N, J, 3] among them."""
    how = PRESETS[config.augment or "pose"]
    if how is not None and config.rotation is not None:
        how = dataclasses.replace(how, rotation=config.rotation)
    return pipeline.batches(
        dataset,
        size=size,
        batch_size=config.batch_size,
        augment=how,
        seed=config.seed,
        resize=config.resize,
        max_boxes=1,
        threads=config.threads,
    )


def normalised(joints: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Joints of a batch, N(y; b).

    Args:
        joints: float32 [N, J, 3], x and y in pixels of the net's picture, and above 0 where labelled.
        size: side of the picture, in pixels.

    Returns:
        (float32 [N, J, 2], bool [N, J] labelled).
    """
    return joints[..., :2] / size - 0.5, joints[..., 2] > 0


def displacements(
    model: keras.Model, stage: int, batches: Sequence[Mapping[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Measures how far a stage's joints lie from the labelled ones.

    Args:
        model: of `pose_net`.
        stage: 1..T.
        batches: with `image` and `joints`.

    Returns:
        (middle, spread) of estimate less truth, float32 [J, 2] each, in sides of the person's box: the mean and the
        standard deviation of a normal distribution, measured by the median and by the median distance from it, so that
        few persons taken quite wrongly (a handstand, left for right) do not widen it. A joint that is labelled less
        than twice has the middle 0 and the spread of all joints.

    Source: section 3.2, "the simulated predictions"; there by mean and standard deviation.
    """
    net = keras.Model(model.inputs[0], model.get_layer(f"stage{stage}_joints").output)
    answer = tf.function(lambda image: net(image, training=False), reduce_retracing=True)
    found = []
    for batch in batches:
        truth, labelled = (
            each.numpy() for each in normalised(tf.constant(batch["joints"]), net.input_shape[1])
        )
        off = answer(tf.constant(batch["image"])).numpy() - truth
        found.append(np.where(labelled[..., None], off, np.nan))
    off = np.concatenate(found)
    enough = np.isfinite(off).sum(axis=0) > 1
    if not enough.any():
        raise InputError("No joint is labelled in the persons on whom displacements are measured.")
    width = functools.partial(stats.median_abs_deviation, scale="normal", nan_policy="omit")
    of_all = width(off, axis=None)
    off[:, ~enough] = 0
    middle = np.nanmedian(off, axis=0)
    spread = np.where(enough, width(off, axis=0), of_all)
    return middle.astype(np.float32), spread.astype(np.float32)


class PoseTrainee:
    """A trainee for training.loop: the squared distances of one stage's joints.

    Args:
        model: of `pose_net`.
        stage: 1..T.
        config: the settings.
        validation: measures the model.
        spread: of `displacements` of the stage before; None in stage 1.
    """

    def __init__(
        self,
        model: keras.Model,
        stage: int,
        config: PoseConfig,
        validation: Callable[[], dict[str, float]] = dict,
        spread: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.networks, self.net, self.validate = {"pose": model}, pose.stage_net(model, stage), validation
        self.form, self.loss, self.spread = pose.form(model), losses.LOSSES[config.loss], spread
        self.cut = None if stage == 1 else model.get_layer(f"stage{stage}_parts")

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Gives the loss over labelled joints, summed over the batch.

        Args:
            batch: image float32 [N, P, P, 3], joints float32 [N, J, 3], seed int32 [2] or int64 [N, 2].

        Returns:
            {"joints": scalar}: in squares of the box that a stage sees, the person's or the sub-image's.
        """
        truth, labelled = normalised(batch["joints"], self.form.size)
        if self.cut is None:
            found, target = self.net(batch["image"], training=True), truth
        else:
            mean, spread = self.spread
            before = truth + mean + spread * draws.normal(tf.shape(truth), batch["seed"])
            sides = self.cut.sides(before, labelled)
            parts = self.cut.cut(batch["image"], before, sides)
            found = pose.own(self.net(parts, training=True))
            target = (truth - before) / sides[:, None, None]
        each = self.loss(tf.cast(found, tf.float32), target)  # [N, J]
        return {"joints": tf.reduce_sum(tf.where(labelled, each, 0.0))}


class Validation:
    """PCP, PDJ and the mean error of one stage's joints on a data set of `persons`.

    Args:
        model: of `pose_net`.
        dataset: the persons.
        config: the settings.
        stage: 1..T, whose joints are measured.

    Attributes:
        best: the figure by which the best validation is chosen: strict PCP where there is a limb to measure.
        dataset: the persons that are looked at.
        refused: {file: why} of pictures that could not be read.
    """

    def __init__(self, model: keras.Model, dataset: Dataset, config: PoseConfig, stage: int):
        self.predictor = Predictor(
            PoseEstimator([model]),
            names=dataset.joints,
            image_size=model.input_shape[1],
            resize=config.resize,
            batch_size=config.batch_size,
            threads=config.threads,
            result=result(dataset.skeleton),
        )
        self.dataset, self.stage, self.refused = dataset, stage, {}
        if config.validate_images:
            kept = evenly(dataset.examples, config.validate_images)
            self.dataset = dataclasses.replace(dataset, examples=kept)
        truth = np.stack([record.truth.joints for record in self.dataset.examples])
        self.best = "pcp_strict" if "pcp_strict" in self._shares(truth, truth[..., :2]) else "-error"

    def __call__(self) -> dict[str, float]:
        """Gives `error`, the mean distance of a joint from the labelled one in longer sides of the picture, and the
        shares `pcp_strict` and `pdj_02` where the labelled joints have a limb and a torso.

        Raises:
            InputError: no picture can be read.
        """
        found, unreadable = self.predictor.over_records(self.dataset.examples)
        self.refused |= unreadable
        records = [record for record in self.dataset.examples if record.image_id in found]
        if not records:
            raise InputError("No picture of the validation split can be read: nothing can be measured.")
        truth = np.stack([record.truth.joints for record in records])
        joints = np.stack([found[record.image_id].stages[self.stage - 1] for record in records])
        sides = np.array([max(found[record.image_id].box[2:]) for record in records])
        off = np.linalg.norm(joints - truth[..., :2], axis=-1) / sides[:, None]
        return {"error": float(off[truth[..., 2] > 0].mean())} | self._shares(truth, joints)

    def _shares(self, truth, joints):
        measured = figures.evaluate(truth[..., :2], truth[..., 2] > 0, joints, self.dataset.joints)
        shares = {name: measured[name] for name in ("pcp_strict", "pdj_02")}
        return {name: share for name, share in shares.items() if np.isfinite(share)}

    def drawn(self) -> list[tuple[np.ndarray, str, str]]:
        """Gives sheets of validation pictures, each with a file's name and a title: poses, and one stage by stage."""
        shown, stages = [], []
        for record in evenly(self.dataset.examples, SHOWN):
            with contextlib.suppress(InputError):  # named by the validation
                picture = record.image()
                (found,) = self.predictor([picture])
                shown.append(found.draw(picture))
                if len(stages) < SHOWN:
                    stages += [found.draw(picture, stage) for stage in range(len(found.stages))]
        if not shown:
            return []
        count = len(found.stages)
        sheets = [(draw.grid(shown), "answers", "Pictures of the validation split with the joints found")]
        if count > 1:
            captions = [f"stage {number % count + 1}" for number in range(len(stages))]
            sheet = draw.grid(stages, columns=count * (4 // count or 1), captions=captions)
            sheets.append((sheet, "stages", "Poses refined stage by stage"))
        return sheets


def _train_only(model, stage, trained, config):
    """Leaves one stage trainable; of it, batch norm that was trained before is kept."""
    for layer in model.layers:
        layer.trainable = False
    for layer in pose.stage_layers(model, stage):
        layer.trainable = True
    freezing.freeze_trained(model, trained=trained)
    freezing.freeze(model, config.freeze)


def _first_batch(batches, dataset):
    from tfcnn.localization.pose_estimator import Pose

    batch, shown = batches.batch(0), []
    for image, joints in list(zip(batch["image"], batch["joints"], strict=True))[:SHOWN]:
        points = np.where(joints[:, 2:] > 0, joints[:, :2], np.nan)
        found = Pose(points[None], np.zeros(4), dataset.joints, dataset.skeleton)
        shown.append(found.draw(np.clip(image, 0, 255).astype(np.uint8)))
    return draw.grid(shown, columns=4)
