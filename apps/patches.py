"""Find the parts of pictures that excite channels of a layer most."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.cli import layers
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tfcnn.visualization.patches import Patch, TopPatches

GROUP, SUMMARY = "looking inside", "find the parts of pictures that excite channels of a layer most"

LAYER = flags.DEFINE_string(
    "layer", None, "Layer whose channels are asked; none takes the last but one map, e.g. --layer=stage5"
)
CHANNEL = flags.DEFINE_list(
    "channel",
    [],
    "Channels of --layer, an entry each; none takes 12 of them, evenly spread, e.g. --channel=7,12",
)
TOP = flags.DEFINE_integer(
    "top", 9, "Patches of a channel, the strongest first, e.g. --top=16", lower_bound=1
)
OVERLAP = flags.DEFINE_float(
    "overlap",
    0.1,
    "IoU of receptive fields above which the weaker of two patches of one picture goes, e.g. --overlap=0.5",
    lower_bound=0.0,
    upper_bound=1.0,
)

RULE = flags.DEFINE_enum(
    "rule",
    "guided",
    ["guided", "deconvnet", "gradient", "none"],
    "How the unit's signal goes back to the picture, shown beside the patches; where a net has no ReLU the gradient, "
    "e.g. --rule=deconvnet",
)

SPREAD = 12  # channels where none is named
SIDE = 112  # pixels of a patch on the sheet


def main(run: cli.Run) -> None:
    net = run.load_net("any")
    layer = LAYER.value or layers.deep(net.model)
    channels = layers.channels(net.model, layer, CHANNEL.value, SPREAD)
    from tfcnn.backbones import zero_rgb
    from tfcnn.visualization import patches

    signals = back(run, net, layer) if RULE.value != "none" else None
    best = patches.TopPatches(net.model, layer, channels, net.size, top=TOP.value, overlap=OVERLAP.value)

    def prepare(image: np.ndarray) -> np.ndarray:
        return images.resize(image, net.size, run.flags.resize)[0]

    count = 0
    for batch in run.batches(run.flags.batch_size, prepare, listed=False):
        pixels = np.stack([picture.prepared for picture in batch]).astype(np.float32)
        finite = best.add(pixels, [picture.index for picture in batch])
        for picture, fine in zip(batch, finite, strict=True):
            if not fine:
                picture.refuse("non-finite")
        count += int(finite.sum())
    run.results["images_per_second"] = run.rate
    if not count:
        raise InputError("no picture could be read")
    found = {channel: best.best(channel) for channel in channels}
    pieces = cut_out(run, best, found, net.size, zero_rgb(net.model), signals)
    rows = []
    for channel, patches_found in found.items():
        with run.item(f"{layer}, channel {channel}", f"{layer.replace('/', '_')}_{channel}") as item:
            pieces_found = [pieces[channel, rank] for rank in range(len(patches_found))]
            described, *sheets = zip(*pieces_found, strict=True)
            item.entry |= {"layer": layer, "channel": channel, "patches": list(described)}
            captions = [f"{patch.value:.3g}" for patch in patches_found]
            row = columns(len(patches_found))
            grids = [draw.grid(list(sheet), row, captions) for sheet in sheets]
            words = "patches and values" + (f", and what {RULE.value} sends back" if signals else "")
            item.save(np.concatenate(grids, axis=1), "", words, main=True)
            rows.append([item.name, f"{described[0]['value']:.4g}", described[0]["file"]])
    run.metrics |= {"images": count}
    field = best.field
    run.results["receptive_field"] = {"size": field.size, "stride": field.stride, "offset": field.offset}
    run.table(["channel", "strongest", "file"], rows)


def columns(count: int) -> int:
    """Patches in a row of the sheet: 3 x 3 of nine, else at most eight."""
    return 3 if count <= 9 else min(8, count)


def back(run: cli.Run, net: cli.Net, layer: str) -> Callable:
    """A function from pictures [N, H, W, 3], channels [N] and places [N, 2] to the signals [N, H, W, 3] sent back."""
    from tfcnn.visualization.gradients import neuron_gradients

    try:
        signals = neuron_gradients(net.model, layer, RULE.value)
    except InputError as error:
        if RULE.present:
            raise
        run.say(f"{error}: the plain gradient is shown")
        signals = neuron_gradients(net.model, layer)
    return lambda *asked: signals(*asked)[0].numpy()


def cut_out(
    run: cli.Run,
    best: TopPatches,
    found: dict[int, list[Patch]],
    size: int,
    fill: Sequence[float],
    signals: Callable | None,
) -> dict[tuple[int, int], tuple]:
    """Each patch's entry, pixels and signal, by (channel, rank): its pictures are read once more, each once."""
    from tfcnn.visualization.patches import cut
    from tfcnn.visualization.relu_rules import picture

    wanted = collections.defaultdict(list)
    for channel, patches_found in found.items():
        for rank, patch in enumerate(patches_found):
            wanted[patch.picture].append((channel, rank, patch))
    sources, pieces = run.sources(), {}
    with run.progress(len(wanted), "patches cut") as progress:
        for number, its in wanted.items():
            image = images.read(sources[number], run.flags.max_pixels)
            seen, place = images.resize(image, size, run.flags.resize)
            only = [patch for *_, patch in its]
            height, width = image.shape[:2]
            inside = np.clip(place.to_file(best.boxes(only)), 0, [width, height, width, height])
            fields = best.boxes(only, clip=False)
            for (channel, rank, patch), box, field in zip(its, inside, fields, strict=True):
                entry = {"file": sources[number].file, "box": box, "value": patch.value}
                pieces[channel, rank] = [entry, images.resize(cut(seen, field, fill), SIDE)[0]]
                if signals:
                    spot = np.array([[patch.row, patch.column]], np.int32)
                    sent = signals(seen[None].astype(np.float32), np.array([channel], np.int32), spot)[0]
                    shown = np.rint(picture(cut(sent, field, [0, 0, 0]))).astype(np.uint8)
                    pieces[channel, rank].append(images.resize(shown, SIDE)[0])
            progress.advance()
    return pieces


if __name__ == "__main__":
    cli.start(main, batch_size=32)
