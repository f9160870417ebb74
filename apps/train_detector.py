"""Train a Faster R-CNN: from a backbone that knows ImageNet, or from a released detector on data of one's own."""

from __future__ import annotations

import dataclasses

import numpy as np
from absl import flags

from tfcnn import cli, draw
from tfcnn.cli import models, training_flags
from tfcnn.errors import InputError, unknown

GROUP, SUMMARY = "detection", "train a detector on VOC, COCO or your own boxes"

DETECTOR = flags.DEFINE_enum(
    "detector", "faster_rcnn", ["faster_rcnn", "fast_rcnn"], "With proposals of its own, or those of a file"
)
PROPOSALS = flags.DEFINE_string(
    "proposals",
    None,
    "For --detector=fast_rcnn: results.json of the app propose over all pictures, e.g. "
    "--proposals=out/propose/results.json",
)
RECIPE = flags.DEFINE_enum(
    "recipe", "joint", ["joint", "alternating"], "All four losses at once, or the paper's four steps"
)
NECK = flags.DEFINE_enum(
    "neck",
    "top_down",
    ["none", "top_down", "pyramid"],
    "Maps: stride 16 alone (the paper), strides 8 to 32 summed from the top, or a feature pyramid",
)
HEAD = flags.DEFINE_enum(
    "head",
    "position",
    ["position", "light", "dense", "backbone"],
    "Head of the regions: position-sensitive, light convolutions, two dense layers, or the backbone's later layers",
)
POOLING = flags.DEFINE_enum("pooling", "align", ["align", "max"], "RoIAlign, or the paper's RoI max pooling")
CONTEXT = flags.DEFINE_bool("context", False, "Let each region see the whole picture's code, too (He et al.)")
CLASS_AGNOSTIC = flags.DEFINE_bool("class_agnostic", True, "One box a region; false: one a class (the paper)")
SIZES = flags.DEFINE_list(
    "anchor_sizes",
    [],
    "Anchors' sizes in pixels of the net's picture, e.g. --anchor_sizes=32,64,128; none: six, 18 to 280",
)
CONSTANTS = flags.DEFINE_enum(
    "constants",
    "small",
    ["small", "paper"],
    "Sampling: 64 regions and 200 proposals a picture, all anchors; or 128, 2000, inside anchors, background from 0.1",
)
REGIONS = flags.DEFINE_integer(
    "regions", None, "Regions of a picture in a step; none: by --constants", lower_bound=2
)
BACKGROUND_LOW = flags.DEFINE_float(
    "background_low",
    None,
    "Least IoU of a background region, e.g. 0.1; none: by --constants",
    lower_bound=0.0,
)
HARDEST = flags.DEFINE_integer(
    "hardest", 0, "Learn from so many regions of the greatest loss (OHEM); 0: from all", lower_bound=0
)
FREEZE_STRIDE = flags.DEFINE_integer(
    "freeze_stride", 4, "Backbone layers up to this stride stay as they are; 0 trains all", lower_bound=0
)
BACKBONE_RATE = flags.DEFINE_float(
    "backbone_rate", 0.3, "Share of the learning rate for the backbone", lower_bound=0.0
)
VALIDATE_IMAGES = flags.DEFINE_integer(
    "validate_images", 0, "Pictures of each validation, evenly spread; 0 takes all", lower_bound=0
)
TEST_SIZE = flags.DEFINE_integer(
    "test_image_size",
    None,
    "Side in pixels of the square that the released net sees; none: --image_size, e.g. --test_image_size=384",
    lower_bound=32,
)
LICENCE = flags.DEFINE_string("licence", "as the data's", "Terms of the released weights, for their card")

DEFAULT_EPOCHS = 40.0


def main(run: cli.Run) -> None:
    training, validation = training_flags.read_data()
    if not any(len(record.boxes) for record in training.examples):
        raise InputError(
            f"--dataset={training_flags.DATASET.value} has no boxes; train_classifier reads classes"
        )
    if run.flags.resize == "crop":
        raise InputError("--resize=crop would cut objects off; take stretch or letterbox")
    size = run.flags.image_size or 320
    given = read_proposals(validation) if DETECTOR.value == "fast_rcnn" else None
    batches = make_batches(run, training, size, given)
    steps = training_flags.steps_of(batches, DEFAULT_EPOCHS)
    strategy = run.runtime.strategy  # starts TensorFlow, silently
    recipe = make_recipe()
    with strategy.scope():
        model, architecture = make_model(run, len(training.classes))
    run.say(
        f"{len(training)} pictures, {len(training.classes)} classes; {len(validation)} to validate, at {size} px; "
        f"{steps} steps of {run.flags.batch_size * training_flags.ACCUMULATE.value}; {model.count_params():,} weights"
    )
    if given is None:
        say_anchors(run, model, training, size)
    else:
        say_given(run, given, training, size)
    show_batch(run, batches, training.classes)
    check = make_check(run, model, validation, TEST_SIZE.value or size, given)
    if RECIPE.value == "joint":
        result = train_joint(run, model, recipe, check, batches, steps)
    else:
        result = train_alternating(run, model, recipe, check, batches, steps)
    training_flags.refuse(run, check)
    if given is None:
        run.metrics["proposals"] = say_proposals(run, check)
    card = training_flags.release(
        run,
        model,
        f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; validated on "
        f"{training_flags.VAL_SPLIT.value}: {check.pictures} pictures",
        training.classes,
        LICENCE.value,
        kind=DETECTOR.value,
        image_size=TEST_SIZE.value or size,
        resize=run.flags.resize,
        category_ids=training.category_ids,
        architecture=architecture,
    )
    run.table(*table(result, card))


def read_proposals(validation):
    """The proposals of --proposals."""
    from tfcnn.datasets.proposals import Proposals

    if RECIPE.value == "alternating":
        raise InputError(
            "--recipe=alternating trains proposals too; --detector=fast_rcnn takes those of a file"
        )
    if not PROPOSALS.value:
        raise InputError("--detector=fast_rcnn needs --proposals: results.json of the app propose")
    given = Proposals(PROPOSALS.value)
    for record in validation.examples:
        given.of(record.file)
    return given


def make_batches(run, training, size, proposals):
    """Batches of the training split."""
    from tfcnn.datasets import augment, pipeline

    name = training_flags.AUGMENT.value or "detection"
    if name not in augment.PRESETS:
        raise unknown("--augment", name, list(augment.PRESETS))
    return pipeline.batches(
        training,
        size=size,
        batch_size=run.flags.batch_size,
        augment=name,
        seed=run.flags.seed,
        resize=run.flags.resize,
        proposals=proposals,
        threads=run.threads,
    )


def make_recipe():
    """The constants of sampling that the flags name."""
    from tfcnn.detection import faster_rcnn_training

    recipe = faster_rcnn_training.PAPER if CONSTANTS.value == "paper" else faster_rcnn_training.Recipe()
    given = {"hardest": HARDEST.value}
    if REGIONS.value is not None:
        given["regions"] = REGIONS.value
    if BACKGROUND_LOW.value is not None:
        given["background"] = (BACKGROUND_LOW.value, recipe.background[1])
    recipe = dataclasses.replace(recipe, **given)
    if recipe.hardest > recipe.regions:
        raise InputError(f"--hardest={recipe.hardest} is more than the {recipe.regions} regions of a picture")
    return recipe


def make_model(run, classes):
    """The network, with frozen layers frozen, and what rebuilds it: (model, architecture for the card)."""
    from tfcnn import backbones, loading
    from tfcnn.detection.faster_rcnn import copy_weights, faster_rcnn

    init = training_flags.init_file()
    if init is None:
        weights = models.weights_of(run)
        architecture = {"net": run.flags.net, **architecture_of_flags()}
        body = backbones.backbone(run.flags.net, weights)
    else:
        architecture = models.card_of(training_flags.INIT.value).get("architecture")
        if architecture is None:
            raise InputError(
                f"--init={training_flags.INIT.value} has no card.json with its architecture beside it"
            )
        body = backbones.backbone(architecture["net"], None)
    run.net = architecture["net"]
    freeze(body)
    options = {name: value for name, value in architecture.items() if name != "net"}
    model = faster_rcnn(body, classes, **options)
    architecture |= sizes_of(model)
    if init is not None:
        fresh = copy_weights(loading.load_model(init), model)
        run.say(f"starts from {training_flags.INIT.value}" + (f"; new: {', '.join(fresh)}" if fresh else ""))
    return model, architecture


def sizes_of(model) -> dict:
    """The anchors' sizes that a model was built with: a later default builds another."""
    from tfcnn.detection.stages import Stages

    proposals = Stages(model).proposals
    if proposals is None:
        return {}
    sizes = [list(map(float, sizes)) for sizes in proposals.grid.sizes]
    return {"sizes": sizes[0] if len(sizes) == 1 else sizes}


def architecture_of_flags() -> dict:
    """The keyword arguments of `faster_rcnn` that the flags give."""
    try:
        sizes = [float(size) for size in SIZES.value]
    except ValueError as error:
        raise InputError(f"--anchor_sizes={','.join(SIZES.value)}: sizes are numbers of pixels") from error
    if sizes and NECK.value == "pyramid":
        if len(sizes) % 3:
            raise InputError("--anchor_sizes: a pyramid has three maps, so name three, six or nine sizes")
        each = len(sizes) // 3
        sizes = [sizes[i * each : (i + 1) * each] for i in range(3)]
    return {
        "neck": NECK.value,
        "head": HEAD.value,
        "pooling": POOLING.value,
        "context": CONTEXT.value,
        "class_agnostic": CLASS_AGNOSTIC.value,
        "sizes": sizes or None,
        "proposals": 0 if DETECTOR.value == "fast_rcnn" else 300,
    }


def freeze(body) -> None:
    """Freezes batch norm, the layers up to --freeze_stride, and what --freeze names."""
    from tfcnn.detection.faster_rcnn import strides
    from tfcnn.training import freezing

    freezing.freeze_batch_norm(body)
    early = [name for name, stride in strides(body).items() if stride <= FREEZE_STRIDE.value]
    freezing.freeze(body, early[-1:] + list(training_flags.FREEZE.value))


def train_joint(run, model, recipe, check, batches, steps):
    """Approximate joint training: the four losses at once; the two of the regions in Fast R-CNN."""
    from tfcnn.detection.faster_rcnn_training import FasterRCNNTrainee

    with run.runtime.strategy.scope():
        trainee = FasterRCNNTrainee(model, recipe, check=check)
    return training_flags.train(run, trainee, batches, steps=steps, best="map_11", multiplier=rates(model))


def train_alternating(run, model, recipe, check, batches, steps):
    """The paper's four steps, a quarter of the steps each; each has a folder of its own and resumes there."""
    from tfcnn.detection.faster_rcnn import copy_weights
    from tfcnn.detection.faster_rcnn_training import alternation

    with run.runtime.strategy.scope():
        proposer, _ = make_model(run, check.classes)
        copy_weights(model, proposer)
    for number, trainee in enumerate(alternation(proposer, model, recipe, check), 1):
        run.say(f"step {number} of 4: {trainee.what}")
        result = training_flags.train(
            run,
            trainee,
            batches,
            steps=-(-steps // 4),
            best="map_11" if number == 4 else None,
            multiplier=rates(trainee.networks["detector"]),
            folder=run.output_dir / f"step{number}",
        )
    return result


def rates(model):
    """The factor of each weight's learning rate: the backbone's layers have names that the detector's own lack."""
    from tfcnn.detection.faster_rcnn import OWN_LAYERS

    return lambda v: 1.0 if v.path.startswith(OWN_LAYERS) else BACKBONE_RATE.value


def make_check(run, model, validation, size, given):
    """What validation calls."""
    from tfcnn.detection.faster_rcnn_training import Check

    examples = validation.examples
    if VALIDATE_IMAGES.value:
        examples = examples[:: max(1, len(examples) // VALIDATE_IMAGES.value)][: VALIDATE_IMAGES.value]
    chosen = dataclasses.replace(validation, examples=examples)
    return Check(model, chosen, size, run.flags.resize, threads=run.threads, proposals=given)


def say_anchors(run, model, training, size) -> None:
    """Prints how many true boxes the anchors cover."""
    from tfcnn.detection.stages import Stages
    from tfcnn.evaluation import proposals as coverage

    stages = Stages(model)
    anchors = stages.anchors_at(size)
    truth = coverage.truth_at(training.examples, size)
    shares = coverage.table(coverage.best([anchors] * len(truth), truth), truth)
    run.say(f"{len(anchors)} anchors; true boxes with one of IoU 0.5 (0.7): {in_words(shares)}")
    run.results["anchors"] = shares


def say_given(run, given, training, size) -> None:
    """Prints how many true boxes the file's proposals cover."""
    from tfcnn.evaluation import proposals as coverage

    truth = coverage.truth_at(training.examples, size)
    reached = [given.of(r.file) * coverage.scale(r, size) for r in training.examples]
    shares = coverage.table(coverage.best(reached, truth), truth)
    run.say(f"true boxes with a proposal of IoU 0.5 (0.7): {in_words(shares)}")
    run.results["proposals"] = shares


def say_proposals(run, check) -> dict:
    """Prints how many of the validation's true boxes the proposals cover."""
    from tfcnn.detection.detector import proposals_of
    from tfcnn.evaluation import proposals as coverage

    predictor, records = check.predictor, check.validation.examples
    truth = coverage.truth_at(records, predictor.image_size)
    shares = coverage.table(coverage.best(proposals_of(predictor, records), truth), truth)
    count = predictor.method.proposal_count
    run.say(
        f"true boxes of {training_flags.VAL_SPLIT.value} with one of {count} proposals: {in_words(shares)}"
    )
    return {"count": count, **shares}


def in_words(shares: dict) -> str:
    """A line of `coverage.table`."""
    return ", ".join(
        f"{name} {row['0.5']:.1%} ({row['0.7']:.1%}) of {row['boxes']}"
        for name, row in shares.items()
        if row["boxes"]
    )


def show_batch(run, batches, classes) -> None:
    """Shows on the run's page the first batch as it enters the net, with its boxes."""
    batch = batches.batch(0)
    pictures = []
    for image, boxes, labels in zip(batch["image"], batch["boxes"], batch["labels"], strict=True):
        real = labels >= 0
        picture = np.clip(image, 0, 255).astype(np.uint8)
        pictures.append(draw.boxes(picture, boxes[real], labels[real], names=classes))
    run.sheet(draw.grid(pictures[:16], columns=4), "first_batch", "The first batch as it enters the net")


def table(result, card):
    """Columns and rows for the end."""
    rows = []
    for name, figures in (("best", result.best), ("last", result.last)):
        if figures:
            rows.append([name, figures["step"], f"{figures['map_11']:.1%}", f"{figures['map_area']:.1%}"])
    rows.append(["release", f"{card['bytes'] / 1e6:.2f} MB", f"{card['parameters']} weights", ""])
    return ["validation", "step", "mAP 11-point", "mAP area"], rows


if __name__ == "__main__":
    cli.start(main, pictures=False, trainer=True, batch_size=16)
