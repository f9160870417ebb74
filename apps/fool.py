"""Make pictures that show nothing, and of whose class the net is certain: by evolution or by gradient."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images, report
from tfcnn.cli.classes import resolve_class
from tfcnn.cli.output import PAGE
from tfcnn.errors import InputError
from tfcnn.runtime import Interrupted

if TYPE_CHECKING:
    from tfcnn.fooling.evolution import MapElites

GROUP, SUMMARY = "fooling", "make pictures that show nothing and that the net is certain of"
# ImageNet's classes when none is given by gradient: those of the paper's first figure.
SHOWN = (
    "robin,cheetah,armadillo,lesser panda,centipede,peacock,jackfruit,bubble,"
    "king penguin,starfish,baseball,electric guitar,freight car,remote control"
)
CHECKPOINT, GALLERY = "checkpoint.npz", "gallery"
MOST = 100  # pictures of the gallery
SIDE = 128  # pixels at least of a picture there

METHOD = flags.DEFINE_enum(
    "method",
    "cppn",
    ["direct", "cppn", "gradient"],
    "Evolve values (direct) or networks that draw (cppn), an elite for each class; or climb the class's gradient",
)
CLASS = flags.DEFINE_string(
    "class",
    None,
    "Classes by index, synset or name; none takes all (gradient: some), e.g. --class=peacock,n02317335",
)
GENERATIONS = flags.DEFINE_integer(
    "generations", 200, "direct, cppn: how many are bred, e.g. --generations=5000", lower_bound=1
)
CHILDREN = flags.DEFINE_integer(
    "children", 200, "direct, cppn: pictures of a generation, e.g. --children=400", lower_bound=2
)
GREY = flags.DEFINE_bool("grey", False, "direct, cppn: pictures without colour, as of digits")
MUTATION = flags.DEFINE_float(
    "mutation",
    0.1,
    "direct: chance with which a value is mutated, halved every 1000 generations, e.g. --mutation=0.05",
    lower_bound=0.0,
    upper_bound=1.0,
)
STEPS = flags.DEFINE_integer("steps", 300, "gradient: most steps, e.g. --steps=100", lower_bound=1)
RATE = flags.DEFINE_float(
    "rate", 1.0, "gradient: grey levels a step, e.g. --rate=0.5", lower_bound=0.0, upper_bound=255.0
)
DECAY = flags.DEFINE_float(
    "decay",
    0.0,
    "gradient: share of the difference from the net's zero that each step takes back, e.g. --decay=0.01",
    lower_bound=0.0,
    upper_bound=1.0,
)
OF_METHOD = {
    "cppn": (GENERATIONS, CHILDREN, GREY),
    "direct": (GENERATIONS, CHILDREN, GREY, MUTATION),
    "gradient": (STEPS, RATE, DECAY),
}
flags.register_validator(
    CHILDREN, lambda value: value % 2 == 0, "children come in pairs: give an even number"
)


def main(run: cli.Run) -> None:
    check_command()
    run.trains_on({})  # there are no data; a finished run goes no further
    if not run.flags.model and run.flags.weights != "none":
        from tfcnn import backbones

        backbones.locate(run.flags.net, run.flags.weights)  # a net that knows nothing is no one to fool
    # Evolution at --image_size, 64, takes minutes; a model of one's own, and gradient, have the net's own size.
    unsaid = run.flags["image_size"].using_default_value
    net = run.load_net(at_own_size=unsaid and (METHOD.value == "gradient" or bool(run.flags.model)))
    wanted = list(dict.fromkeys(run.classes(net) or classes_of(net)))
    answers = answer_function(net, run.flags.batch_size)
    make = by_gradient if METHOD.value == "gradient" else by_evolution
    made, histories = make(run, net, wanted, answers)
    report_all(run, net, wanted, made, histories, answers)


def check_command() -> None:
    """Refuse flags of another method, which would do nothing."""
    mine = [flag.name for flag in OF_METHOD[METHOD.value]]
    for others in OF_METHOD.values():
        for flag in others:
            if flag.present and flag.name not in mine:
                raise InputError(f"--{flag.name} does nothing with --method={METHOD.value}")


def classes_of(net: cli.Net) -> list[int]:
    """All classes; by gradient the paper's, or the first ten."""
    count = len(net.classes)
    if METHOD.value != "gradient":
        return list(range(count))
    try:
        return resolve_class(SHOWN, net.classes)
    except InputError:
        return list(range(min(10, count)))


def answer_function(net: cli.Net, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pictures, uint8 [N, H, W, 3], to probabilities [N, K]."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, net.size, net.size, 3], tf.uint8)])
    def scores(pictures):
        return net.model(tf.cast(pictures, tf.float32), training=False)["scores"]

    def answers(pictures):
        parts = range(0, len(pictures), batch_size)
        return np.concatenate([scores(pictures[begin : begin + batch_size]).numpy() for begin in parts])

    return answers


def by_gradient(
    run: cli.Run, net: cli.Net, wanted: list[int], answers: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[np.ndarray], list[list[dict]]]:
    """A picture for each class and its history; a signal ends the run after a batch."""
    from tfcnn.backbones import zero_rgb
    from tfcnn.fooling.ascent import Ascent

    ascent = Ascent(net.model, net.size, zero_rgb(net.model), STEPS.value, RATE.value, DECAY.value)
    made, histories = [], []
    with run.progress(len(wanted), "gradient", "classes") as progress:
        for begin in range(0, len(wanted), run.flags.batch_size):
            batch = wanted[begin : begin + run.flags.batch_size]
            result = ascent.run(batch, run.flags.seed, lambda moment: bool(run.stop))
            made += list(np.rint(result.image).astype(np.uint8))
            histories += [result.history(place) for place in range(len(batch))]
            progress.advance(len(batch), value=float(result.value[-1].mean()))
            if run.stop:
                raise Interrupted("stopped by a signal; gradient begins anew with the same command")
    return made, histories


def by_evolution(
    run: cli.Run, net: cli.Net, wanted: list[int], answers: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[np.ndarray], list[list[dict]]]:
    """Each class's elite and its history; the same command goes on from the last checkpoint."""
    from tfcnn.fooling.cppn import CPPN
    from tfcnn.fooling.evolution import Direct, MapElites

    if METHOD.value == "cppn":
        encoding = CPPN(net.size, net.size, GREY.value)
    else:
        encoding = Direct(net.size, net.size, GREY.value, MUTATION.value)
    columns = np.array(wanted)
    elites = MapElites(
        encoding,
        lambda pictures: answers(pictures)[:, columns],
        len(wanted),
        CHILDREN.value,
        run.flags.seed,
    )
    checkpoint = run.output_dir / CHECKPOINT
    if run.resume and checkpoint.exists():
        elites.restore(checkpoint.read_bytes())
        run.say(f"goes on after generation {elites.generation}")
    saved = time.monotonic()
    try:
        with run.progress(GENERATIONS.value, METHOD.value, "generations") as progress:
            progress.skip(min(elites.generation, GENERATIONS.value))
            while elites.generation < GENERATIONS.value:
                elites.step()
                progress.advance(
                    1, **{"median": float(np.median(elites.scores)), "above 0.99": above(elites.scores)}
                )
                if run.stop:
                    raise Interrupted(f"stopped by a signal after generation {elites.generation}")
                if time.monotonic() - saved > 60 * run.flags.checkpoint_minutes:
                    keep(run, net, wanted, elites)
                    saved = time.monotonic()
    except (Interrupted, KeyboardInterrupt):
        if elites.generation:
            sheet = keep(run, net, wanted, elites)
            run.sheet(sheet, GALLERY, f"after generation {elites.generation}")
        raise
    keep(run, net, wanted, elites)
    run.metrics |= {
        "generations": elites.generation,
        "evaluations": elites.generation * CHILDREN.value,
    }
    return [elites.picture(place) for place in range(len(wanted))], elites.history


def above(scores: Sequence[float] | np.ndarray, score: float = 0.99) -> int:
    """How many scores are above a number."""
    return int((np.asarray(scores) > score).sum())


def keep(run: cli.Run, net: cli.Net, wanted: list[int], elites: MapElites) -> np.ndarray:
    """Write the checkpoint and the gallery so far, which is given back."""
    run.save_bytes(elites.state(), CHECKPOINT)
    sheet = gallery(net, wanted, elites.picture, elites.scores)
    run.save_picture(sheet, GALLERY)
    title = f"after generation {elites.generation}: {above(elites.scores)} classes above 99 %"
    shown = report.Shown(title, report.reduced(sheet, report.SHEET_SIDE))
    run.save_bytes(report.gallery(f"tfcnn {run.app}", [report.Entry("", [shown], sheet=True)]), PAGE)
    return sheet


def gallery(
    net: cli.Net,
    wanted: list[int],
    picture: Callable[[int], np.ndarray],
    scores: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """The surest pictures on a sheet, each with its class and score."""
    best = np.argsort(-np.asarray(scores), kind="stable")[:MOST]
    captions = [f"{scores[place]:.1%} {net.classes[wanted[place]][1]}" for place in best]
    return draw.grid([enlarged(picture(place)) for place in best], captions=captions)


def enlarged(image: np.ndarray) -> np.ndarray:
    """A small picture with each of its pixels as a square."""
    times = -(-SIDE // len(image))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def report_all(
    run: cli.Run,
    net: cli.Net,
    wanted: list[int],
    made: list[np.ndarray],
    histories: list[list[dict]],
    answers: Callable[[np.ndarray], np.ndarray],
) -> None:
    """An entry a class, its score that of the PNG read back."""
    read, paths = [], []
    for index, image in zip(wanted, made, strict=True):
        stem = f"{index:03d}_{''.join(c if c.isalnum() else '_' for c in net.classes[index][1])}"
        paths.append(run.save_picture(image, f"{stem}.png"))
        read.append(images.read(run.output_dir / paths[-1]) if paths[-1] else image)
    probabilities = answers(np.stack(read))
    scores = probabilities[np.arange(len(wanted)), wanted].astype(np.float64)
    values = -np.log(np.maximum(scores, 1e-30)) if METHOD.value == "gradient" else scores
    for place, index in enumerate(wanted):
        synset, label = net.classes[index]
        with run.item(label, f"{index:03d}") as item:
            item.show(enlarged(read[place]), f"{scores[place]:.2%}")
            item.entry |= {
                "class": {"index": index, "synset": synset, "label": label},
                "method": METHOD.value,
                "score": float(scores[place]),
                "success": bool(probabilities[place].argmax() == index),
                "history": histories[place],
                "final": {"value": float(values[place])},
            }
            if paths[place]:
                item.entry |= {"picture": paths[place], "files": [paths[place]]}
    run.sheet(gallery(net, wanted, read.__getitem__, scores), GALLERY, f"the surest, by {METHOD.value}")
    run.metrics |= {
        "classes": len(wanted),
        "above_99": above(scores),
        "median_score": float(np.median(scores)),
        "taken_for_their_class": float((probabilities.argmax(axis=1) == wanted).mean()),
    }
    run.say(
        f"{above(scores)} of {len(wanted)} classes above 99 %, median {np.median(scores):.2%}, of the PNG files"
    )
    order = np.argsort(-scores, kind="stable")
    rows = [[net.classes[wanted[place]][1], f"{scores[place]:.3%}", len(histories[place])] for place in order]
    run.table(["class", "score", "steps" if METHOD.value == "gradient" else "elites"], rows)


if __name__ == "__main__":
    cli.start(main, pictures=False, trainer=True, image_size=64, batch_size=50)
