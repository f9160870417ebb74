"""R-CNN in its steps: fine-tune a net on warped proposals, keep their features, train SVMs and boxes, detect."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli
from tfcnn.cards import card_of
from tfcnn.cli import box_files, classes, lists, models, rcnn_settings, training_flags, training_record
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.datasets.example import Dataset
    from tfcnn.datasets.proposals import Proposals
    from tfcnn.predictor import Predictor

GROUP, SUMMARY = "detection", "train R-CNN in its five steps, or detect with it"

STEPS = ("finetune", "features", "svm", "boxes")
STEP = flags.DEFINE_enum(
    "step",
    "detect",
    [*STEPS, "all", "detect"],
    "What to do, also as the first word; each step goes on from what the one before it left in output_dir",
)
PROPOSALS_FILE = flags.DEFINE_string(
    "proposals_file",
    None,
    "results.json of the app propose over the pictures, several by commas, e.g. "
    "--proposals_file=out/train/results.json,out/val/results.json; detect without it makes them itself",
)
PROPOSALS = flags.DEFINE_integer(
    "proposals",
    300,
    "Regions of a picture, at most (the paper: 2000); of detect where it is not given: the model's own number",
    lower_bound=1,
)
FEATURES = flags.DEFINE_enum(
    "features",
    "warp",
    ["warp", "spp"],
    "Regions cut from the picture and put through the net, or cut from its last map of half the stride",
)
SIDE = flags.DEFINE_integer(
    "side", 128, "Side in pixels that a region is brought to (the paper: 227)", lower_bound=32
)
CONTEXT = flags.DEFINE_float(
    "context", 16.0, "Pixels of that side around the region, on each side of it", lower_bound=0.0
)
HEAD = flags.DEFINE_enum(
    "head",
    "average",
    ["average", "dense"],
    "A region's code: the last map's average, or that of a classifier's two dense layers (the paper)",
)
REGIONS = flags.DEFINE_integer(
    "regions",
    32,
    "Of finetune: regions of a picture in a step; --batch_size pictures make a step",
    lower_bound=2,
)
FREEZE_STRIDE = flags.DEFINE_integer(
    "freeze_stride", 0, "Of finetune with spp: layers of the shared map up to this stride stay", lower_bound=0
)
BIAS_RATE = flags.DEFINE_float(
    "bias_rate", 1.0, "Factor of the biases' learning rate (the authors: 2)", lower_bound=0.0
)
RUNTIME = flags.DEFINE_enum(
    "runtime",
    "tf",
    ["tf", "litert", "litert_int8"],
    "Of --features=warp, from the step features on: what computes the net: TensorFlow, LiteRT (faster), or LiteRT "
    "in int8 (faster still, a little less exact); detect finds int8's ranges on the packaged photographs",
)
SVM_C = flags.DEFINE_float("svm_c", 0.001, "C of the SVMs", lower_bound=1e-9)
RIDGE = flags.DEFINE_float("ridge", 1000.0, "Penalty of the box regression", lower_bound=0.0)
NMS_THRESHOLD = flags.DEFINE_float(
    "nms_threshold",
    0.3,
    "IoU above which the lower of two detections of a class goes; of detect where it is not given: the model's own",
    lower_bound=0.0,
    upper_bound=1.0,
)
SCORE = flags.DEFINE_float("score_threshold", 0.1, "Of detect: least score, 0..1", lower_bound=0.0)
DRAW = flags.DEFINE_float(
    "draw_threshold", 0.5, "Of detect: least score of what is drawn, 0..1", lower_bound=0.0
)
VALIDATE_IMAGES = flags.DEFINE_integer(
    "validate_images",
    0,
    "Of boxes: pictures of the validation, evenly spread; 0 takes all, e.g. --validate_images=500",
    lower_bound=0,
)

SHOWN = 12  # pictures of the validation that are drawn


def main(run: cli.Run) -> None:
    if STEP.value == "detect":
        return detect(run)
    if run.flags.images:
        raise InputError(
            f"{STEP.value} takes no pictures, but {run.flags.images[0]} was given: name data by --dataset"
        )
    if run.flags.model:
        raise InputError(f"--model is what the step detect looks with, and this is {STEP.value}")
    if training_flags.INIT.value:
        raise InputError("--init is for other trainers: R-CNN starts from --net and its --weights")
    if not PROPOSALS_FILE.value:
        raise InputError(f"{STEP.value} needs --proposals_file: results.json of the app propose")
    if run.flags.resize != "letterbox":
        raise InputError(f"--resize={run.flags.resize}: {STEP.value} sees pictures by letterbox")
    rcnn_settings.check_features(run)
    run.trainer = True  # --weights has a trainer's default, and an older result does not speak for this run
    training, validation = training_flags.read_data(run)
    validation = training_record.limited(validation, VALIDATE_IMAGES.value or None)
    run.runtime  # noqa: B018  (starts TensorFlow, silently)
    proposals = _proposals(PROPOSALS.value)
    validates = STEP.value in ("boxes", "all")
    for record in [*training.examples, *(validation.examples if validates else ())]:
        proposals.of(record.file)  # a picture without proposals is said before any work
    steps = STEPS if STEP.value == "all" else (STEP.value,)
    if steps[0] == "finetune":
        rcnn_settings.check_finetuning(run, run.output_dir / "finetune", training, proposals)
        finetune(run, training, proposals)
    else:
        rcnn_settings.check_net(run, run.output_dir / "finetune")
    # read back, rounded to float16 as it is kept: each step by itself and all in one see the same net
    model = finetuned(run, training) if len(steps) > 1 or steps[0] != "finetune" else None
    for step in steps:
        if step == "features":
            features(run, model, training, proposals)
        elif step == "svm":
            svm(run, model, training, proposals)
        elif step == "boxes":
            boxes(run, model, training, validation, proposals)


def _proposals(count: int) -> Proposals:
    from tfcnn.datasets.proposals import Proposals

    return Proposals(lists.paths(PROPOSALS_FILE.value), count)


def finetune(run: cli.Run, training: Dataset, proposals: Proposals) -> None:
    """Step 2 of the paper: the classifier of 20 + 1 classes, from the net's weights; step 1 is --weights."""
    from tfcnn import backbones
    from tfcnn.detection import rcnn, rcnn_training
    from tfcnn.detection.fast_rcnn import copy_dense

    config = training_flags.config(rcnn_training.RcnnConfig)
    run.net, weights = run.flags.net, models.weights_of(run)
    with run.runtime.strategy.scope():
        model = rcnn.described_regions(
            backbones.backbone(run.net, weights),
            len(training.classes),
            FEATURES.value,
            SIDE.value,
            CONTEXT.value,
            HEAD.value,
        )
        if HEAD.value == "dense" and weights:
            copied = copy_dense(backbones.classifier(run.net, weights), model)
            run.say(f"{' and '.join(copied) or 'no dense layer'} from {run.net}'s classifier")
    training_flags.say_data(run, training, training, f"{model.count_params():,} weights")
    run.stop.listen()
    with training_flags.told(run) as told:
        told["card"] |= {
            "features": FEATURES.value,
            "side": SIDE.value,
            "context": CONTEXT.value,
            "head": HEAD.value,
        }
        kept = rcnn_settings.kept(run, training, proposals)
        trained = rcnn_training.finetune_rcnn(
            model, training, proposals, config, run.output_dir / "finetune", kept=kept, **told
        )
    training_record.refuse(run, trained.unreadable)
    run.results["finetune"] = {"steps": trained.result.step, "release": "finetune/release"}
    run.table(["step", "trained steps"], [["finetune", trained.result.step]])


def finetuned(run: cli.Run, training: Dataset) -> keras.Model:
    """What the step finetune left in output_dir."""
    from tfcnn import load_model

    folder = run.output_dir / "finetune" / "release"
    card = card_of(folder)
    if card.get("kind") != "rcnn_finetuned":
        raise InputError(
            f"{folder} holds no fine-tuned net: run the step finetune with the same --output_dir"
        )
    if card["classes"] != list(training.classes):
        raise InputError(f"{folder} has other classes than the data: {', '.join(card['classes'][:3])} ...")
    run.net = card.get("net")
    return load_model(folder)


def features(run: cli.Run, model: keras.Model, training: Dataset, proposals: Proposals) -> None:
    """Step 3: what the net knows of every region, on the disk."""
    from tfcnn.detection import rcnn_features

    with run.progress(len(training), "features") as bar:
        if not run.flags.resume:
            shutil.rmtree(run.output_dir / "features", ignore_errors=True)
        refused = rcnn_features.write(
            run.output_dir / "features",
            model,
            training,
            proposals,
            size=_size(),
            runtime=RUNTIME.value,
            threads=run.threads,
            say=run.say,
            progress=bar.advance,
        )
        rate = bar.rate
    training_record.refuse(run, refused)
    size = sum(path.stat().st_size for path in (run.output_dir / "features").glob("part_*.npz"))
    run.results["features"] = {"bytes": size, "images_per_second": round(rate, 2), "folder": "features"}
    run.table(["step", "MB"], [["features", f"{size / 1e6:.1f}"]])


def _features(run, model, training, proposals):
    from tfcnn.detection import rcnn_features

    return rcnn_features.Features(
        run.output_dir / "features", model, training, proposals, _size(), RUNTIME.value
    )


def _config():
    from tfcnn.detection.rcnn_svm import SvmConfig

    return SvmConfig(svm_c=SVM_C.value, ridge=RIDGE.value)


def svm(run: cli.Run, model: keras.Model, training: Dataset, proposals: Proposals) -> None:
    """Step 4: a linear SVM a class."""
    from tfcnn.detection import rcnn_svm

    found = _features(run, model, training, proposals)
    with run.progress(2 * len(training), "svm") as bar:
        weights, biases, empty = rcnn_svm.train_svms(
            found, training.classes, _config(), run.flags.seed, say=run.say, progress=bar.advance
        )
    run.save_bytes(rcnn_svm.svm_file(weights, biases, found.fingerprint, SVM_C.value), "svm.npz")
    run.results |= {"svm": "svm.npz", "classes_without_objects": empty}
    run.table(["step", "classes"], [["svm", len(training.classes) - len(empty)]])


def boxes(
    run: cli.Run, model: keras.Model, training: Dataset, validation: Dataset, proposals: Proposals
) -> None:
    """Step 5: box regression; then the whole detector is released, and measured on the validation pictures."""
    from tfcnn.detection import rcnn, rcnn_svm

    found = _features(run, model, training, proposals)
    wanted = SVM_C.value if SVM_C.present else None
    svms = rcnn_svm.read_svms(run.output_dir / "svm.npz", found.fingerprint, wanted)
    if svms[1].shape != (len(training.classes),):
        raise InputError(f"{run.output_dir / 'svm.npz'} is of other classes: run the step svm again")
    with run.progress(len(training), "boxes") as bar:
        regressor = rcnn_svm.train_regressor(found, len(training.classes), _config(), progress=bar.advance)
    whole = rcnn.rcnn(model, svms, regressor, NMS_THRESHOLD.value)
    metrics, rows = measured(run, whole, training, validation, proposals)
    release(run, whole, training, validation, metrics)
    run.metrics |= {"last": metrics, "best": metrics}
    run.results["release"] = "release"
    run.table(["class", "AP, 11 points"], rows)


def measured(
    run: cli.Run, model: keras.Model, training: Dataset, validation: Dataset, proposals: Proposals
) -> tuple[dict, list]:
    """Mean AP on the validation pictures: (figures for the card, a table's rows)."""
    from tfcnn.datasets.example import evenly
    from tfcnn.detection.options import DetectorOptions
    from tfcnn.detection.rcnn import Rcnn
    from tfcnn.detection.rcnn_features import calibration
    from tfcnn.evaluation import voc
    from tfcnn.predictor import Predictor

    seen = calibration(training) if RUNTIME.value == "litert_int8" else ()
    options = DetectorOptions(runtime=RUNTIME.value, threads=run.threads, calibration=seen)
    predictor = Predictor(
        Rcnn([model], options),
        names=training.classes,
        image_size=_size(),
        resize="letterbox",
        threads=run.threads,
    )
    with run.progress(len(validation), "validate") as bar:
        found, refused = predictor.over_records(validation.examples, proposals, bar.advance)
        rate = bar.rate
    training_record.refuse(run, refused)
    figures = voc.evaluate(validation.examples, found, validation.classes)
    clean = {name: None if np.isnan(figures[name]) else figures[name] for name in ("map_11", "map_area")}
    for record in evenly(validation.examples, SHOWN):
        if record.image_id in found:
            shown = found[record.image_id]
            shown = shown.top(int((shown.scores >= DRAW.value).sum()))
            run.sheet(shown.draw(record.image()), f"found_{record.image_id}", "found in a validation picture")
    rows = [["mean", training_record.percent(clean["map_11"])]]
    rows += [[name, training_record.percent(own["ap_11"])] for name, own in figures["per_class"].items()]
    return clean | {
        "images": len(validation),
        "seconds_per_image": round(1 / rate, 3) if rate else None,
    }, rows


def release(run: cli.Run, model: keras.Model, training: Dataset, validation: Dataset, metrics: dict) -> None:
    """Write the detector as output_dir/release, which detect and evaluate read."""
    from tfcnn.training import releases

    card = training_record.card(run) | {
        "kind": "rcnn",
        "data": f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; measured on "
        f"{training_flags.VAL_SPLIT.value}: {len(validation)} pictures",
        "classes": list(training.classes),
        "category_ids": training.category_ids,
        "seed": run.flags.seed,
        "metrics": {"last": metrics},
        "licence": training_flags.LICENCE.value,
        "image_size": _size(),
        "resize": "letterbox",
        "features": FEATURES.value,
        "proposals": PROPOSALS.value,
    }
    lines = "".join(f"{line}\n" for line in training_record.flag_lines(run))
    releases.save(model, run.output_dir / "release", card, flags=lines)


def _size() -> int:
    return flags.FLAGS.image_size or 320


def detect(run: cli.Run) -> None:
    """Find objects in the input pictures, with proposals of a file or of selective search."""
    if not run.flags.model:
        raise InputError("--model is missing: an R-CNN's release, e.g. --model=out/rcnn/release")
    card = card_of(run.flags.model)
    if card.get("kind") != "rcnn":
        raise InputError(f"--model={run.flags.model} is no R-CNN: the app detect takes other detectors")
    if run.flags.resize == "crop":
        raise InputError("--resize=crop would cut objects off; take stretch or letterbox")
    labels = classes.labels_for(run.flags.labels, run.flags.model)
    own = {name: run.flags[name].using_default_value for name in ("proposals", "nms_threshold", "resize")}
    count = (own["proposals"] and card.get("proposals")) or PROPOSALS.value
    given = _proposals(count) if PROPOSALS_FILE.value else None
    for source in run.sources() if given else ():
        given.of(source.file)
    run.runtime  # noqa: B018
    from tfcnn import detector
    from tfcnn.detection import proposals

    predictor: Predictor = detector(
        run.flags.model,
        image_size=run.flags.image_size,
        resize=None if own["resize"] else run.flags.resize,
        labels=labels,
        score_threshold=SCORE.value,
        nms_threshold=None if own["nms_threshold"] else NMS_THRESHOLD.value,
        runtime=RUNTIME.value,
        threads=run.threads,
        batch_size=1,
        allow_custom_objects=run.flags.allow_custom_objects,
    )
    run.net = run.flags.model
    propose = None if given else proposals.proposer("selective_search", count, run.flags.seed)
    found, rows = [], []

    def prepare(image):
        return predictor.prepare(image), propose(image)[:, :4] if propose else None, image

    for (picture,) in run.batches(1, prepare):
        with picture:
            prepared, regions, image = picture.prepared
            regions = given.of(picture.name) if given else regions
            (answer,) = predictor.predict([prepared], [regions])
            picture.entry["detections"] = box_files.entries(answer)
            found += answer.to_coco(picture.stem, predictor.category_ids)
            best = answer.top(int((answer.scores >= DRAW.value).sum()))
            if run.flags.save_images:
                picture.save(best.draw(image), "detected", main=True)
            rows.append(
                [picture.name, len(regions), ", ".join(best.names[n] for n in best.labels[:3]) or "nothing"]
            )
    box_files.save(run, found, predictor.names, predictor.category_ids)
    run.table(["input", "regions", "best"], rows)


if __name__ == "__main__":
    cli.start(main, words="step", resume=True, checkpoint_minutes=1.0, batch_size=4, resize="letterbox")
