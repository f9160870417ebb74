"""Train a localizer: a classifier gets a box head, and that head alone is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cards import card_of
from tfcnn.cli import models, training_flags, training_record
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

GROUP, SUMMARY = "localization", "train a box head on a classifier"

ATTACH = flags.DEFINE_enum(
    "attach",
    "conv",
    ["conv", "fc", "rpn"],
    "Where the box head begins: after the last convolution (OverFeat, VGG), or after the last hidden dense layer "
    "(DeepPose, R-CNN); a net without one is given one. Or a region proposal network a class (ResNet) instead",
)
PER_CLASS = flags.DEFINE_bool("per_class", False, "A box for each class (C x 4 numbers); false: one box")
OBJECTS = flags.DEFINE_integer(
    "objects",
    1,
    "Boxes of a picture (K x 4 numbers), for its K largest objects, e.g. --objects=2",
    lower_bound=1,
)
ORDER = flags.DEFINE_enum(
    "order",
    "fixed",
    ["fixed", "matched"],
    "Which of several boxes answers for which object: the first for the largest, or by the best assignment",
)
EXACTLY = flags.DEFINE_bool(
    "exactly",
    False,
    "Train on and validate only pictures with exactly --objects objects, not with fewer or more",
)
LOSS = flags.DEFINE_enum(
    "loss", "l2", ["l2", "smooth_l1", "iou", "giou"], "Of the boxes, as fractions of the picture's sides"
)
PER_PLACE = flags.DEFINE_bool(
    "per_place",
    False,
    "The head's dense layers read each place of the last map by itself, and the box is the weighted mean of the "
    "places' boxes; false: they read the whole map",
)
FINER = flags.DEFINE_bool(
    "finer",
    False,
    "The box head reads a map of twice the last one's side: the last one enlarged, joined with the last of that side",
)
CONVOLUTIONS = flags.DEFINE_list(
    "convolutions",
    [],
    "Channels of separable 3x3 convolutions that the box head begins with, e.g. --convolutions=256,256,128; with "
    "--attach=conv",
)
HIDDEN = flags.DEFINE_list(
    "hidden",
    ["128"],
    "Units of the box head's hidden layers, e.g. --hidden=4096,1024 (OverFeat); --hidden= has none",
)
DROPOUT = flags.DEFINE_float(
    "dropout",
    0.0,
    "Share of the numbers dropped in training before each of the box head's hidden layers",
    lower_bound=0.0,
    upper_bound=0.95,
)
FC_UNITS = flags.DEFINE_integer(
    "fc_units", 512, "Units of the hidden dense layer that --attach=fc gives a net without one", lower_bound=1
)
FINE_TUNE = flags.DEFINE_bool("fine_tune", False, "Train the backbone too, on boxes and classes together")
CLASSIFIER_EPOCHS = flags.DEFINE_float(
    "classifier_epochs",
    10.0,
    "Epochs in which layers of the classifier that are random learn the classes first",
    lower_bound=0.0,
)
CLASSIFIER_RATE = flags.DEFINE_float(
    "classifier_rate", 1e-3, "Highest learning rate (of AdamW) in these epochs", lower_bound=0.0
)
VALIDATE_IMAGES = flags.DEFINE_integer(
    "validate_images", 0, "Pictures of each validation, evenly spread; 0 takes all", lower_bound=0
)
CACHE = flags.DEFINE_string(
    "cache_features",
    None,
    "Folder that keeps the frozen net's features for other runs, e.g. --cache_features=out/features; none: inside "
    "output_dir until the run's end",
)
# The flags that a box head is made by.
BOX_HEAD = (OBJECTS, PER_CLASS, PER_PLACE, FINER, CONVOLUTIONS, HIDDEN, DROPOUT, FC_UNITS)


def main(run: cli.Run) -> None:
    check()
    training, validation = training_flags.read_data(run)
    layers = {
        "convolutions": training_record.whole_numbers(CONVOLUTIONS),
        "hidden": training_record.whole_numbers(HIDDEN),
    }
    strategy = run.runtime.strategy  # starts TensorFlow, silently
    from tfcnn import localization

    config = training_flags.config(localization.LocalizerConfig, resume=run.resume)
    with strategy.scope():
        model, start = make_model(run, len(training.classes), layers)
    size = f"at {model.input_shape[1]} px; {model.count_params():,} weights"
    training_flags.say_data(run, training, validation, size)
    with training_flags.told(run) as told:
        told["card"] |= {
            "data": f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; validated on "
            f"{training_flags.VAL_SPLIT.value}: {VALIDATE_IMAGES.value or len(validation)} pictures",
            "start": start,
        }
        trained = localization.train_localizer(model, training, validation, config, run.output_dir, **told)
    training_flags.record(run, trained)
    run.table(*table(trained.metrics, trained.card))


def check() -> None:
    """Refuse flags that the head does not use, before anything is opened."""
    if ATTACH.value == "rpn":
        for flag in (*BOX_HEAD, LOSS, ORDER):
            if flag.present:
                raise InputError(f"--{flag.name} belongs to a box head, which --attach=rpn does without")
    if ORDER.value == "matched" and OBJECTS.value == 1 and (OBJECTS.present or not training_flags.INIT.value):
        raise InputError("--order=matched is for several boxes: give --objects=2 or more")


def make_model(run: cli.Run, classes: int, layers: dict[str, tuple[int, ...]]) -> tuple[keras.Model, str]:
    """The net with its box head, and what it starts from in words."""
    from tfcnn import backbones, load_model, localization

    init = training_flags.init_file()
    if init is None:
        run.net, weights = run.flags.net, models.weights_of(run)
        classifier = backbones.classifier(run.net, weights, classes=classes, size=run.flags.image_size)
        start = weights or "random"
    else:
        classifier, start = load_model(init), str(training_flags.INIT.value)
        run.net = card_of(training_flags.INIT.value).get("net", start)
        if run.flags["net"].present and run.flags.net != run.net:
            raise InputError(f"--net={run.flags.net}: --init={start} is a {run.net}")
        if run.flags["weights"].present:
            raise InputError(f"--weights: those of --init={start} are taken; give one of them")
        own, size = classifier.input_shape[1], run.flags.image_size
        if "boxes" in (classifier.output if isinstance(classifier.output, dict) else {}):
            if not any(flag.present for flag in (ATTACH, *BOX_HEAD)):  # it is trained on with its own head
                if size not in (None, own):
                    raise InputError(
                        f"--image_size={size}: the box head of --init={init} reads pictures of {own} pixels; flags of "
                        "a head, e.g. --attach=conv, give it a new one"
                    )
                return classifier, start
            classifier = backbones.tap(classifier, ["logits", "scores"])
        if size:
            classifier = backbones.of_size(classifier, size, size)
            if classifier is None:
                raise InputError(
                    f"--image_size={size}: a layer of --init={init} reads pictures of {own} pixels only"
                )
    if ATTACH.value == "rpn":
        return localization.with_class_rpn(classifier), start
    model = localization.with_box_head(
        classifier,
        attach=ATTACH.value,
        per_class=PER_CLASS.value,
        objects=OBJECTS.value,
        per_place=PER_PLACE.value,
        finer=FINER.value,
        **layers,
        dropout=DROPOUT.value,
        fc_units=FC_UNITS.value,
    )
    return model, start


def table(metrics: dict, card: dict) -> tuple[list[str], list[list]]:
    """Columns and rows for the end."""
    rows = []
    for name in ("best", "last"):
        if figures := metrics[name]:
            errors = [training_record.percent(figures[rule]) for rule in ("top1_loc", "top5_loc", "top5_cls")]
            rows.append([name, figures["step"], *errors, f"{figures['mean_iou']:.3f}"])
    rows.append(["release", f"{card['bytes'] / 1e6:.2f} MB", f"{card['parameters']} weights", "", "", ""])
    return ["validation", "step", "top-1 error", "top-5 error", "of classes", "mean IoU"], rows


if __name__ == "__main__":
    cli.start(
        main,
        pictures=False,
        trainer=True,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.003,
        weight_decay=1e-5,
    )
