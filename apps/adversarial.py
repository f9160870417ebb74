"""Change a picture too little to see, so that the net calls it something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli.classes import resolve_class
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.cli.items import Picture
    from tfcnn.fooling import Attack, Attacked

GROUP, SUMMARY = "fooling", "change pictures too little to see, so that the net is wrong"

METHOD = flags.DEFINE_enum(
    "method",
    "pgd",
    ["fgsm", "bim", "least_likely", "pgd", "momentum", "deepfool", "lbfgs", "cw"],
    "Within --eps: fgsm, bim, least_likely, pgd, momentum; the smallest change: deepfool, lbfgs, cw",
)
EPS = flags.DEFINE_float(
    "eps",
    None,
    "Largest change, in grey levels of 0..255: of a value (linf), or the Euclidean length over all values (l2); none "
    "takes 4, and in l2 a root mean square of 1, e.g. --eps=8",
    lower_bound=0.0,
)
NORM = flags.DEFINE_enum(
    "norm", None, ["linf", "l2"], "How --eps measures; none takes linf; deepfool, lbfgs and cw have l2"
)
TARGET = flags.DEFINE_string(
    "target",
    None,
    "The class to be seen instead, by index, synset or name; none takes any other, e.g. --target=goldfish",
)
RESTARTS = flags.DEFINE_integer("restarts", 1, "Random starts of pgd, e.g. --restarts=5", lower_bound=1)
STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Gradients for each start (cw, lbfgs: each c); none takes the method's own, e.g. --steps=40",
    1,
)
CONFIDENCE = flags.DEFINE_float(
    "confidence", 0.0, "Logits by which the wrong class shall lead, e.g. --confidence=5", lower_bound=0.0
)
TRUTH = flags.DEFINE_string(
    "truth",
    None,
    "CSV with the columns file and class_index; none takes the net's own answers as labels, e.g. --truth=labels.csv",
)


def main(run: cli.Run) -> None:
    net = run.load_net()
    truth = cli.read_truth(TRUTH.value, run.sources(), net.classes) if TRUTH.value else {}
    target = the_target(run, net)
    from tfcnn.fooling import Attack

    attack = Attack(
        net.model,
        METHOD.value,
        EPS.value,
        norm=NORM.value,
        steps=STEPS.value,
        restarts=RESTARTS.value,
        confidence=CONFIDENCE.value,
        seed=run.flags.seed,
    )
    if EPS.value is not None and EPS.value < 1 and attack.norm == "linf":
        run.say(f"--eps={EPS.value:g}: below one grey level nothing is left in pictures of 8 bits")

    def prepare(image: np.ndarray) -> np.ndarray:
        return images.resize(image, net.size, run.flags.resize)[0]

    rows, done = [], []
    for batch in run.batches(run.flags.batch_size, prepare):
        known, clean = labelled(attack, batch, truth, target)
        if not known:
            continue
        pictures, labels = list(known), np.array(list(known.values()), np.int32)
        seen = np.stack([picture.prepared for picture in pictures])
        steps = attack.run(seen.shape[1:]).evaluations
        with run.progress(steps, f"{METHOD.value} of {len(pictures)}", "steps") as progress:
            result = attack(seen, labels, target, progress.advance)
        made = np.stack(
            [saved(run, picture, image) for picture, image in zip(pictures, result.images, strict=True)]
        )
        result = attack.measured(seen, made, labels, result.targets, result.history, clean)
        noisy = noise_answers(attack, result, seen)
        for place, picture in enumerate(pictures):
            with picture:
                describe(picture, net, result, place, seen[place], int(noisy[place]))
                rows.append(row_of(picture))
                done.append((picture.source in truth, picture.entry))
    run.table(["file", "before", "after", "success", "linf", "l2"], rows)
    run.metrics |= summary(done)
    if TRUTH.value:
        run.say(
            f"clean top-1 {run.metrics['clean_top1'] or 0:.1%}; {run.metrics['wrong_before']} pictures that were wrong "
            "before are not attacked"
        )


def the_target(run: cli.Run, net: cli.Net) -> int | None:
    """The class of --target."""
    if TARGET.value is None:
        return None
    if METHOD.value in ("deepfool", "least_likely"):
        raise InputError(f"--target does not go with --method={METHOD.value}, which chooses the class itself")
    found = resolve_class(TARGET.value, net.classes, run.say)
    if len(found) != 1:
        raise InputError(f"--target={TARGET.value} names {len(found)} classes; give one")
    return found[0]


def labelled(
    attack: Attack, batch: list[Picture], truth: dict, target: int | None
) -> tuple[dict[Picture, int], tuple[np.ndarray, np.ndarray]]:
    """The label of each picture that can be attacked, and logits and scores of these; the others are refused."""
    logits, scores = attack.net.outputs(np.stack([picture.prepared for picture in batch]))
    known, rows = {}, []
    for row, (picture, answer) in enumerate(zip(batch, logits, strict=True)):
        with picture:
            if not np.isfinite(answer).all():
                raise InputError("non-finite")
            label = truth.get(picture.source, int(answer.argmax()))
            if label == target:
                raise InputError(f"its label is the class of --target={TARGET.value} already")
            known[picture] = label
            rows.append(row)
    return known, (logits[rows], scores[rows])


def saved(run: cli.Run, picture: Picture, image: np.ndarray) -> np.ndarray:
    """Write the attacked picture as PNG, since JPEG would undo it, and read it back as anyone would."""
    path = picture.save(image, "adversarial.png", "adversarial", main=True)
    return images.read(run.output_dir / path) if path else image


def noise_answers(attack: Attack, result: Attacked, seen: np.ndarray) -> np.ndarray:
    """What the net says of the pictures with noise of the same size: [N]."""
    from tfcnn.fooling.attacks import noise_like

    return attack.net.logits(noise_like(result, seen, attack.norm, attack.seed)).argmax(axis=1)


def describe(
    picture: Picture, net: cli.Net, result: Attacked, place: int, seen: np.ndarray, noisy: int
) -> None:
    """Fill the entry, and show the sum that everyone knows: picture + change = picture."""
    before, after = int(result.before[place]), int(result.after[place])
    label, attacked = int(result.labels[place]), bool(result.attacked[place])
    picture.entry |= {
        "method": METHOD.value,
        "label": net.classes[label][1],
        "label_before": net.classes[before][1],
        "index_before": before,
        "score_before": float(result.score_before[place]),
        "label_after": net.classes[after][1],
        "index_after": after,
        "score_after": float(result.score_after[place]),
        "wrong_before": not attacked,
        "success": bool(result.success[place]),
        "linf": float(result.linf[place]),
        "l2": float(result.l2[place]),
        "label_noise": net.classes[noisy][1],
        "noise_success": attacked and noisy != before,
        "history": result.history[place],
        "final": result.final[place],
    }
    if result.targets is not None:
        picture.entry["target"] = net.classes[int(result.targets[place])][1]
    entry, made = picture.entry, result.images[place]
    difference = made.astype(np.float32) - np.asarray(seen, np.float32)
    factor = max(1, int(127 // max(entry["linf"], 1)))
    amplified = np.rint(np.clip(127.5 + factor * difference, 0, 255)).astype(np.uint8)
    picture.save(amplified, "difference", f"change x {factor}")
    captions = [
        f"{entry['label_before']} {entry['score_before']:.1%}",
        f"+ change, here x {factor}",
        f"= {entry['label_after']} {entry['score_after']:.1%}",
    ]
    sheet = draw.grid([np.asarray(seen, np.uint8), amplified, made], 3, captions)
    picture.save(sheet, "sum", "picture + change = picture")


def row_of(picture: Picture) -> list[str]:
    """What a person reads of a picture."""
    entry = picture.entry
    outcome = "wrong before" if entry["wrong_before"] else "yes" if entry["success"] else "no"
    return [
        picture.name,
        f"{entry['label_before']} {entry['score_before']:.1%}",
        f"{entry['label_after']} {entry['score_after']:.1%}",
        outcome,
        f"{entry['linf']:.0f}",
        f"{entry['l2']:.0f}",
    ]


def summary(done: list[tuple[bool, dict]]) -> dict:
    """The metrics: clean_top1 over the pictures whose truth is known, the rest over those that were attacked."""
    true = [not entry["wrong_before"] for known, entry in done if known]
    attacked = [entry for _, entry in done if not entry["wrong_before"]]

    def mean(values: list) -> float | None:
        return float(np.mean(values)) if values else None

    return {
        "clean_top1": mean(true),
        "success": mean([entry["success"] for entry in attacked]),
        "mean_linf": mean([entry["linf"] for entry in attacked]),
        "mean_l2": mean([entry["l2"] for entry in attacked]),
        "noise_success": mean([entry["noise_success"] for entry in attacked]),
        "images": len(done),
        "wrong_before": len(done) - len(attacked),
    }


if __name__ == "__main__":
    cli.start(main, batch_size=8, resize="crop")
