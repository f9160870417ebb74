"""Show what a neuron answers to: its gradient to the picture, by three rules for ReLU, side by side."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import asked, layers
from tfcnn.errors import InputError
from tfcnn.visualization import BEST, RULES

GROUP, SUMMARY = "looking inside", "what of a picture a neuron answers to: gradient, deconvnet, guided"

NEURON = flags.DEFINE_multi_string(
    "neuron",
    [],
    "LAYER:CHANNEL, where that channel answers most, or LAYER:CHANNEL:ROW,COLUMN of its map; LAYER alone takes its "
    "most active channel; may be repeated, e.g. --neuron=stage5:7:3,4",
)
RULE = flags.DEFINE_list(
    "rule",
    list(RULES),
    "What a signal back through a ReLU is multiplied with, one picture each: gradient [f>0], deconvnet [R>0], guided "
    "both, e.g. --rule=guided",
)

ENLARGED = 224  # to which it is enlarged on the sheet


@dataclasses.dataclass(frozen=True)
class Unit:
    """A neuron that a person names, or a class: channel and place may be left to the picture.

    Attributes:
        layer: its layer; "logits" for a class.
        channel: BEST for the most active.
        place: (row, column) of the map; (BEST, BEST) for where the channel answers most.
        is_class: whether it is a class.
    """

    layer: str
    channel: int = BEST
    place: tuple[int, int] = (BEST, BEST)
    is_class: bool = False


def main(run: cli.Run) -> None:
    asked.check_flags()
    units = named_units()
    unknown = [rule for rule in RULE.value if rule not in RULES]
    if unknown or not RULE.value:
        raise InputError(f"--rule={','.join(RULE.value)}: a rule is one of {', '.join(RULES)}")
    net = asked.open_net(run, bool(units))
    if not units:
        units = [Unit("logits", index, is_class=True) for index in run.classes(net) or [BEST]]
        from tfcnn.backbones.heads import with_logits

        with_logits(net.model)  # says it where a model hides what was before its softmax
    from tfcnn.visualization.gradients import neuron_gradients

    for unit in units:
        check(net, unit)
    functions = {
        layer: {rule: neuron_gradients(net.model, layer, rule) for rule in RULE.value}
        for layer in dict.fromkeys(unit.layer for unit in units)
    }
    rows = []

    def prepare(image):
        return images.resize(image, net.size, run.flags.resize)

    for batch in run.batches(run.flags.batch_size, prepare):
        seen = np.stack([picture.prepared[0] for picture in batch]).astype(np.float32)
        answers = [answer(functions[unit.layer], seen, unit) for unit in units]
        for number, picture in enumerate(batch):
            with picture:
                described = []
                for unit, (signals, channels, places, values) in zip(units, answers, strict=True):
                    neuron = describe(net, unit, channels[number], places[number], values[number])
                    shown = {rule: each[number] for rule, each in signals.items()}
                    show(picture, neuron, stem_of(net, neuron), shown)
                    described.append(neuron)
                    rows.append([picture.name, neuron["label"], f"{neuron['value']:.4g}"])
                picture.entry |= {"class": described[0], "method": RULE.value[-1], "rules": RULE.value}
                if len(described) > 1:
                    picture.entry["neurons"] = described
    run.table(["file", "neuron", "value"], rows)


def named_units() -> list[Unit]:
    """The neurons of --neuron, or of --layer and --channel; [] where classes are asked."""
    if NEURON.value and (asked.LAYER.value or asked.CLASS.value):
        raise InputError("--neuron, --layer and --class ask for different things; give one of them")
    if asked.LAYER.value:
        return [Unit(asked.LAYER.value, BEST if asked.CHANNEL.value is None else asked.CHANNEL.value)]
    units = []
    for text in NEURON.value:
        found = re.fullmatch(r"(.+?)(?::(\d+)(?::(\d+),(\d+))?)?", text.strip())
        if found is None or ":" in found[1]:
            raise InputError(
                f"--neuron={text}: write LAYER:CHANNEL or LAYER:CHANNEL:ROW,COLUMN, in whole numbers"
            )
        layer, *numbers = found.groups()
        channel, row, column = (BEST if each is None else int(each) for each in numbers)
        units.append(Unit(layer, channel, (row, column)))
    return units


def check(net: cli.Net, unit: Unit) -> None:
    """Refuse a neuron that is not there."""
    from tfcnn.visualization.gradients import map_shape

    if unit.is_class:
        return
    channels = layers.count(net.model, unit.layer, ranks=(2, 3, 4))
    rows, columns, _ = map_shape(net.model, unit.layer, (net.size, net.size))
    if unit.channel >= channels:
        raise InputError(
            f"channel {unit.channel} is not there: {unit.layer} has channels 0 to {channels - 1}"
        )
    row, column = unit.place
    if row >= rows or column >= columns:
        raise InputError(
            f"row {row}, column {column} lies outside the map: {unit.layer} has {rows} x {columns} locations "
            f"of pictures of {net.size} pixels"
        )


def answer(
    functions: dict[str, Callable], seen: np.ndarray, unit: Unit
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """({rule: signals [N, H, W, 3]}, channels [N], places [N, 2], values [N]) of a unit on N pictures."""
    count, signals = len(seen), {}
    channels, places = np.full(count, unit.channel, np.int32), np.tile(np.int32(unit.place), (count, 1))
    for rule, function in functions.items():
        signal, channels, places, values = (each.numpy() for each in function(seen, channels, places))
        signals[rule] = signal
    return signals, channels, places, values


def describe(net: cli.Net, unit: Unit, channel: int, place: np.ndarray, value: float) -> dict:
    """A neuron (or a class) for results.json, with its value on the picture: a class' is its score before softmax."""
    described = {"layer": unit.layer, "index": int(channel), "value": float(value)}
    if unit.is_class:
        synset, label = net.classes[channel]
        return {**described, "synset": synset, "label": label}
    row, column = (int(each) for each in place)
    return {**described, "place": [row, column], "label": f"{unit.layer}:{channel}:{row},{column}"}


def stem_of(net: cli.Net, neuron: dict) -> str:
    """What a neuron's files are called: its label, with its index where another class of the net has that label."""

    def letters(label):
        return re.sub(r"\W+", "_", label)

    stem = letters(neuron["label"])
    if "synset" in neuron and sum(letters(label) == stem for _, label in net.classes) > 1:
        stem += f"_{neuron['index']}"
    return stem


def show(picture: cli.Picture, neuron: dict, stem: str, signals: dict[str, np.ndarray]) -> None:
    """Write a picture a rule, and the sheet: the picture, the part that the neuron depends on, and the rules."""
    from tfcnn.visualization import relu_rules

    seen, placement = picture.prepared
    x1, y1, x2, y2 = box = relu_rules.field(list(signals.values()))
    neuron["box"] = [float(each) for each in placement.to_file([box])[0]]
    whole = (x2 - x1, y2 - y1) == seen.shape[1::-1]
    cells = [seen if whole else draw.boxes(seen, [box])]
    captions = [f"{neuron['label']} = {neuron['value']:.4g}"]
    if not whole:
        cells.append(enlarged(seen[y1:y2, x1:x2]))
        captions.append("what it depends on")
    for rule, signal in signals.items():
        if not np.isfinite(signal).all():
            raise InputError("non-finite")
        made = np.rint(relu_rules.picture(signal[y1:y2, x1:x2])).astype(np.uint8)
        picture.save(made, f"{stem}_{rule}", rule)
        cells.append(enlarged(made))
        captions.append(rule if signal.any() else f"{rule}: nothing comes back")
    kind = f"{stem}_rules"
    picture.save(
        draw.grid(cells, len(cells), captions), kind, neuron["label"], main="picture" not in picture.entry
    )


def enlarged(image: np.ndarray) -> np.ndarray:
    """A small part as large as the others on the sheet."""
    scale = ENLARGED / max(image.shape[:2])
    if scale <= 1:
        return image
    return images.resize(image, [max(1, round(side * scale)) for side in image.shape[:2]])[0]


if __name__ == "__main__":
    cli.start(main, batch_size=4, resize="crop")
