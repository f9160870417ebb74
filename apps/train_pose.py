"""Train a pose net: a cascade of regressors that finds the joints of a person, refined stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from tfcnn import cli
from tfcnn.cards import card_of
from tfcnn.cli import data_flags, models, training_flags, training_record
from tfcnn.datasets.example import Dataset
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

GROUP, SUMMARY = "localization", "train a net that finds the joints of a person, in stages (DeepPose)"

STAGES = flags.DEFINE_integer(
    "stages",
    3,
    "Stages: the first sees the person, each later one a sub-image round each joint",
    lower_bound=1,
)
SIGMA = flags.DEFINE_float(
    "sigma",
    2.0,
    "Side of a sub-image in torso diameters (the paper: 1.0 on FLIC, 2.0 on LSP)",
    lower_bound=0.1,
)
PART_SIZE = flags.DEFINE_integer(
    "part_size", 64, "Pixels of a sub-image's side as the net sees it", lower_bound=8
)
ENDPOINTS = flags.DEFINE_list(
    "endpoints",
    [],
    "The net's layers that are read in stage 1 and in later stages; none takes the last before a wide head, and the "
    "first of stride 16, e.g. --endpoints=stage7,stage4",
)
CONVOLUTIONS = flags.DEFINE_list(
    "convolutions",
    [],
    "Channels of separable 3x3 convolutions on each stage's map, e.g. --convolutions=256,256",
)
CHANNELS = flags.DEFINE_integer(
    "channels",
    64,
    "Channels of a 1x1 convolution before the dense layers; 0: none (the paper)",
    lower_bound=0,
)
HIDDEN = flags.DEFINE_list(
    "hidden",
    ["512"],
    "Units of each stage's hidden layers, e.g. --hidden=4096,4096 (the paper); --hidden= has none",
)
DROPOUT = flags.DEFINE_float(
    "dropout",
    0.0,
    "Share of hidden units dropped in training (the paper: 0.6)",
    lower_bound=0.0,
    upper_bound=0.95,
)
LOSS = flags.DEFINE_enum(
    "loss", "l2", ["l2", "smooth_l1"], "Of the joints; smooth_l1 minds a wrong label less than the paper's l2"
)
ROTATION = flags.DEFINE_float(
    "rotation",
    None,
    "Degrees by which persons are turned, either way; none: as --augment says, e.g. --rotation=60",
    lower_bound=0.0,
    upper_bound=180.0,
)
STAGE_EPOCHS = flags.DEFINE_float(
    "stage_epochs",
    None,
    "Epochs of each later stage; none takes --epochs, e.g. --stage_epochs=10",
    lower_bound=0.0,
)
STAGE_STEPS = flags.DEFINE_integer(
    "stage_steps", None, "Instead: steps of each later stage, e.g. --stage_steps=500", lower_bound=1
)
FIRST_STAGE = flags.DEFINE_integer(
    "first_stage",
    1,
    "Train from this stage on; the stages before it are --init's, e.g. --init=pose_lsp --first_stage=2",
    lower_bound=1,
)
DISPLACEMENTS = flags.DEFINE_integer(
    "displacement_persons",
    1000,
    "Training persons on whom a stage's displacements are measured",
    lower_bound=1,
)
VALIDATE_IMAGES = flags.DEFINE_integer(
    "validate_images", 0, "Persons of each validation, evenly spread; 0 takes all", lower_bound=0
)


# Flags that a cascade is built by and that no recipe repeats for --init's own.
CASCADE = (SIGMA, ENDPOINTS, CHANNELS, HIDDEN, DROPOUT)


def main(run: cli.Run) -> None:
    if run.flags["resize"].present and run.flags.resize != "letterbox":
        raise InputError(f"--resize={run.flags.resize}: a pose net sees a person undistorted, by letterbox")
    training, validation = training_flags.read_data(run, open_split)
    for part in (training, validation):
        if not part.joints:
            raise InputError(
                f"--dataset={data_flags.DATASET.value} has no joints: take lsp, figures, or coco with keypoints"
            )
    layers = {
        "convolutions": training_record.whole_numbers(CONVOLUTIONS),
        "hidden": training_record.whole_numbers(HIDDEN),
    }
    strategy = run.runtime.strategy  # starts TensorFlow, silently
    from tfcnn import localization

    config = training_flags.config(localization.PoseConfig, resume=run.resume, resize="letterbox")
    with strategy.scope():
        model, start = make_model(run, training, layers)
    run.say(
        f"{len(training.joints)} joints, {model.output['stages'].shape[1]} stages at {model.input_shape[1]} px; "
        f"{model.count_params():,} weights"
    )
    data_flags.say_broken(run, training, validation)
    with training_flags.told(run) as told:
        told["card"] |= {
            "data": f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; validated on "
            f"{training_flags.VAL_SPLIT.value}: {len(validation)} pictures",
            "start": start,
        }
        trained = localization.train_pose(model, training, validation, config, run.output_dir, **told)
    training_flags.record(run, trained)
    run.results["stages"] = trained.card["stage_metrics"]
    run.table(*table(trained.card))


def open_split(split: str) -> Dataset:
    """A part of the data; COCO's keypoints lie in a file beside the instances'."""
    if data_flags.kind() != "coco":
        return data_flags.open_split(split)
    from tfcnn.datasets.root import Root

    file = f"annotations/person_keypoints_{split.partition('[')[0]}.json"
    path = data_flags.DATA.value
    if path is not None:
        root = Root(path)
        if any(place.exists(file) for place in [root, *(root.at(name) for name in root.folders())]):
            return data_flags.open_split(split, file)
    return data_flags.open_split(split)


def make_model(run: cli.Run, data: Dataset, layers: dict[str, tuple[int, ...]]) -> tuple[keras.Model, str]:
    """The net, and what it starts from in words."""
    from tfcnn import backbones, load_model, localization
    from tfcnn.localization.pose import stage_net

    init, first_stage = training_flags.init_file(), FIRST_STAGE.value
    if first_stage > 1 and init is None:
        raise InputError(f"--first_stage={first_stage}: --init gives the stages before it")
    if first_stage > STAGES.value:
        raise InputError(f"--first_stage={first_stage}: --stages={STAGES.value} has no such stage")
    if init is not None and first_stage == 1:
        start = str(training_flags.INIT.value)
        model, run.net = load_model(init), card_of(start).get("net", start)
        refuse_another(run, model, layers["convolutions"])
        return model, start
    run.net, weights = run.flags.net, models.weights_of(run)
    row = backbones.NETS.get(run.flags.net)
    names = ENDPOINTS.value or ([] if row is None else default_endpoints(row.endpoints))
    if row is not None and len(names) not in (1, 2):
        raise InputError(f"--endpoints={','.join(names)}: one layer for stage 1, and one for later stages")
    first, later = (names * 2)[:2] if names else (None, None)
    stages = [
        backbones.backbone(run.flags.net, weights, [later if stage else first])
        for stage in range(STAGES.value)
    ]
    model = localization.pose_net(
        stages,
        data.joints,
        size=run.flags.image_size or backbones.NETS[run.flags.net].size,
        part_size=PART_SIZE.value,
        sigma=SIGMA.value,
        channels=CHANNELS.value,
        **layers,
        dropout=DROPOUT.value,
    )
    if first_stage == 1:
        return model, weights or "random"
    source = load_model(init)
    for stage in range(1, first_stage):
        missing = backbones.copy_weights(source, stage_net(model, stage))
        if missing:
            raise InputError(
                f"--init={training_flags.INIT.value} has no stage {stage} like the one that the flags build, which "
                f"needs {', '.join(missing[:3])}: give the flags that it was trained with"
            )
    return model, str(training_flags.INIT.value)


def refuse_another(run: cli.Run, model: keras.Model, convolutions: tuple[int, ...]) -> None:
    """Refuse flags of another cascade than that of --init, which is trained on as it is."""
    stages, size = model.output["stages"].shape[1], model.input_shape[1]
    separable = tuple(layer.filters for layer in model.layers if layer.name.startswith("stage1_separable"))
    own = [
        (run.flags["net"], run.flags.net, run.net),
        (run.flags["image_size"], run.flags.image_size, size),
        (STAGES, STAGES.value, stages),
        (CONVOLUTIONS, convolutions, separable),
        *((flag, flag.value, None) for flag in (*CASCADE, run.flags["weights"])),
    ]
    if stages > 1:  # a net of one stage has no sub-images
        own.append((PART_SIZE, PART_SIZE.value, model.get_layer("stage2_parts").size))
    for flag, value, known in own:
        if flag.present and value != known:
            raise InputError(
                f"--{flag.name}: --init={training_flags.INIT.value} is a {run.net} of {stages} stages at {size} px, "
                "trained on as it is"
            )


def default_endpoints(endpoints: dict) -> list[str]:
    """The last endpoint but the wide head before the classes, and the first of stride 16."""
    first = [name for name in endpoints if name != "head"][-1]
    return [first, next((name for name, each in endpoints.items() if each.stride >= 16), first)]


def table(card: dict) -> tuple[list[str], list[list]]:
    """Columns and rows for the end: what each stage reaches."""
    rows = []
    for number, metrics in enumerate(card["stage_metrics"], 1):
        figures = metrics["best"] or metrics["last"]
        if not figures:  # a worker that is not the chief has validated nothing
            continue
        shares = [training_record.percent(figures.get(name)) for name in ("pcp_strict", "pdj_02")]
        rows.append([f"stage {number}", figures["step"], *shares, f"{figures['error']:.3f}"])
    rows.append(["release", f"{card['bytes'] / 1e6:.2f} MB", f"{card['parameters']} weights", "", ""])
    return ["validation", "step", "strict PCP", "PDJ at 0.2", "mean error"], rows


if __name__ == "__main__":
    cli.start(main, pictures=False, trainer=True, batch_size=32)
