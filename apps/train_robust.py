"""Train a classifier on adversarial pictures too, so that small changes fool it less."""

from __future__ import annotations

from absl import flags

from tfcnn import cli
from tfcnn.cli import training_flags, training_record
from tfcnn.errors import InputError

GROUP, SUMMARY = "fooling", "train a classifier that small changes fool less"

ATTACK = flags.DEFINE_enum(
    "attack", "fgsm", ["fgsm", "pgd"], "How each batch is attacked: one step of --eps, or several within it"
)
EPS = flags.DEFINE_float(
    "eps", 8.0, "Largest change of a value in grey levels of 0..255, e.g. --eps=64 (MNIST's 0.25)"
)
ATTACK_STEPS = flags.DEFINE_integer("attack_steps", 7, "Of --attack=pgd, e.g. --attack_steps=10")
CLEAN_SHARE = flags.DEFINE_float(
    "clean_share", 0.5, "Weight of the loss of the pictures as they are, e.g. --clean_share=0"
)
FREEZE_BATCH_NORM = flags.DEFINE_bool(
    "freeze_batch_norm", None, "Keep batch norm's statistics; none: where they have been trained"
)


def main(run: cli.Run) -> None:
    if ATTACK_STEPS.present and ATTACK.value != "pgd":
        raise InputError(f"--attack_steps belongs to --attack=pgd, not to {ATTACK.value}")
    training, validation = training_flags.read_data(run)
    run.net = run.flags.net
    from tfcnn.backbones import table

    row = table.net(run.flags.net)
    strategy = run.runtime.strategy  # starts TensorFlow, silently
    from tfcnn import backbones
    from tfcnn.fooling import defence

    size = run.flags.image_size or row.size
    config = training_flags.config(defence.RobustConfig, image_size=size, resume=run.resume)
    weights = training_flags.classifier_start(run)
    with strategy.scope():
        model = backbones.classifier(run.flags.net, weights, classes=len(training.classes), size=size)
    attack = f"{config.attack}, eps {config.eps:g} of 255"
    training_flags.say_data(run, training, validation, f"at {size} px; each batch is attacked by {attack}")
    with training_flags.told(run) as told:
        told["card"] |= {
            "data": f"{training.name}, {training_flags.TRAIN_SPLIT.value}: {len(training)} pictures; validated on "
            f"{training_flags.VAL_SPLIT.value}: {len(validation)}",
            "start": "random" if weights is None else str(training_flags.INIT.value or weights),
            "attack": attack,
        }
        endpoints = {name: place.layer or name for name, place in row.endpoints.items()}
        trained = defence.train_robust(
            model, training, validation, config, run.output_dir, endpoints=endpoints, **told
        )
    training_flags.record(run, trained)
    run.table(*table_of(trained.metrics, trained.card))


def table_of(metrics: dict, card: dict) -> tuple[list[str], list[list]]:
    """Columns and rows for the end."""
    rows = []
    for name in ("best", "last"):
        if figures := metrics[name]:
            shown = [training_record.percent(figures[figure]) for figure in ("top1", "robust_top1")]
            rows.append([name, figures["step"], *shown, f"{figures['loss']:.3f}"])
    rows.append(["release", f"{card['bytes'] / 1e6:.2f} MB", f"{card['parameters']} weights", "", ""])
    return ["validation", "step", "top-1", "attacked", "loss"], rows


if __name__ == "__main__":
    cli.start(main, pictures=False, trainer=True, net="tiny", batch_size=32, dataset="digits")
