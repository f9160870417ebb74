"""Let a net dream: what it sees a little of in a picture, it is made to see more of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, images
from tfcnn.cli import canvas, lists
from tfcnn.cli.output import guarded
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.art.deepdream import Dream

GROUP, SUMMARY = "art", "DeepDream pictures and zoom videos"

text = "Layers that see more of what they see, by commas; none takes the net's best, e.g. --layer=block7_expand_conv"
LAYER = flags.DEFINE_string("layer", None, text)
text = "A weight for each of --layer, e.g. --layer_weights=1,0.5; none takes 1 each"
LAYER_WEIGHTS = flags.DEFINE_string("layer_weights", None, text)
text = "Channels of the layers, by commas; none takes all, e.g. --channel=3,17"
CHANNEL = flags.DEFINE_string("channel", None, text)
text = "A picture whose objects are dreamt into the others, e.g. --guide=flowers.jpg"
GUIDE = flags.DEFINE_string("guide", None, text)
STEPS = flags.DEFINE_integer("steps", 10, "Steps of each octave, e.g. --steps=20", lower_bound=1)
text = "Grey levels that a pixel changes by on average in a step"
STEP_SIZE = flags.DEFINE_float("step_size", 1.5, text, lower_bound=0.0)
text = "Sizes that are dreamt at, the smallest first, e.g. --octave_n=6"
OCTAVES = flags.DEFINE_integer("octave_n", 4, text, lower_bound=1, upper_bound=50)
text = "From each size to the next, e.g. --octave_scale=1.3"
SCALE = flags.DEFINE_float("octave_scale", 1.4, text, lower_bound=1.01, upper_bound=10.0)
text = "Pixels by which the picture is rolled at most before each step, e.g. --jitter=16"
JITTER = flags.DEFINE_integer("jitter", 32, text, lower_bound=0)
text = "Keep pixels in 0..255 in each step; false lets them run and shows the 99.98th percentile as white"
CLIP = flags.DEFINE_bool("clip", True, text)
text = "Pictures with a longer side, in pixels, are computed in tiles of this side; 0 never, e.g. --tile_size=512"
TILE = flags.DEFINE_integer("tile_size", 1024, text, lower_bound=0)
text = "Frames of a film that zooms into the dream, .mp4 and .gif; 0 makes none, e.g. --frames=100"
FRAMES = flags.DEFINE_integer("frames", 0, text, lower_bound=0)
text = "Share of the sides that is lost from a frame to the next, e.g. --zoom=0.03"
ZOOM = flags.DEFINE_float("zoom", 0.05, text, lower_bound=0.0, upper_bound=0.9)
canvas.describe("Longer side of the result in pixels; none keeps the picture's own, e.g. --image_size=512")


def main(run: cli.Run) -> None:
    if CHANNEL.value and GUIDE.value:
        raise InputError("--channel and --guide both say what is dreamt of; give one of them")
    guide_image = images.read(GUIDE.value, run.flags.max_pixels) if GUIDE.value else None
    channels = lists.numbers(CHANNEL.value or "", "channel", int)
    layers, taps = chosen(run)
    from tfcnn.art import deepdream

    require_maps(taps, channels)
    if guide_image is None:
        what, guide = deepdream.objective(layers, channels), {}
    else:
        guide = taps(guide_image[None].astype(np.float32))
        what = deepdream.guided_objective(layers, guide)
    problem = deepdream.problem(
        taps,
        what,
        step_size=STEP_SIZE.value,
        jitter=JITTER.value,
        clip=CLIP.value,
        tile=TILE.value,
    )
    how = {
        "steps": STEPS.value,
        "octave_n": OCTAVES.value,
        "octave_scale": SCALE.value,
        "seed": run.flags.seed,
    }
    rows = []
    for picture in run.pictures():
        with picture:
            start = canvas.fitted(picture.image, run.flags.image_size, run.flags.resize)
            with run.progress(OCTAVES.value * STEPS.value, picture.name, "steps") as progress:
                how["callback"] = lambda entry, progress=progress: progress.advance(1, value=entry["value"])
                dream = deepdream.dream(problem, start, **how)
            picture.show(start, "before")
            picture.save(finished(dream.image), "dream", "dream", main=True)
            fields = {"layers": layers, "history": dream.history, "octaves": dream.octaves}
            picture.entry |= fields | {"final": dream.final}
            if guide:
                features = {"before": taps(start[None].astype(np.float32)), "after": taps(dream.image[None])}
                picture.entry["guide_similarity"] = {
                    when: {name: deepdream.guide_similarity(values[name], guide[name]) for name in layers}
                    for when, values in features.items()
                }
            if FRAMES.value:
                film(run, picture, deepdream.zoom(problem, start, FRAMES.value, zoom=ZOOM.value, **how))
            first, last = dream.octaves[-1]["before"], dream.octaves[-1]["after"]
            rows.append([picture.name, f"{first:.4g}", f"{last:.4g}"])
    run.table(["file", "value before", "after (last octave)"], rows)


def chosen(run: cli.Run) -> tuple[dict[str, float], keras.Model]:
    """The layers {name: weight} that the flags name, or the net's best, and the net that puts them out."""
    run.runtime  # noqa: B018  (starts TensorFlow silently)
    from tfcnn.backbones import any_size, tap

    names = [name for name in (LAYER.value or "").split(",") if name]
    if not names:
        if run.flags.model:
            raise InputError("--model needs --layer: which of its layers dreams (--list_layers shows all)")
        from tfcnn.art.deepdream import LAYERS
        from tfcnn.backbones.table import net as row

        deep = [name for name, place in row(run.flags.net).endpoints.items() if place.stride <= 16]
        found = LAYERS.get(run.flags.net, {name: 1.0 for name in deep[-1:]})
        names, weights = list(found), list(found.values())
    else:
        weights = [1.0] * len(names)
    if LAYER_WEIGHTS.value:
        weights = lists.numbers(LAYER_WEIGHTS.value, "layer_weights")
    if len(weights) != len(names):
        raise InputError(f"--layer_weights has {len(weights)} numbers for {len(names)} layers")
    net = run.load_net("backbone", endpoints=None if run.flags.model else names, at_own_size=True)
    taps = any_size(tap(net.model, names, "--list_layers shows all"))
    if taps is None:
        raise InputError(
            f"--layer={','.join(names)} of {net.name} needs one size of pictures; take an earlier one"
        )
    return dict(zip(names, weights, strict=True)), taps


def require_maps(taps: keras.Model, channels: Sequence[int]) -> None:
    """See that the layers are maps and have the channels.

    Raises:
        InputError: one is not, or has not.
    """
    for name, tensor in taps.output.items():
        if len(tensor.shape) != 4:
            raise InputError(f"--layer={name} is no map [height, width, channels]; take an earlier layer")
        if channels and max(channels) >= tensor.shape[-1]:
            raise InputError(f"--channel={max(channels)}: {name} has channels 0 to {tensor.shape[-1] - 1}")


def finished(image: np.ndarray) -> np.ndarray:
    """The dream as a picture file holds it."""
    from tfcnn.art import deepdream

    if not np.isfinite(image).all():
        raise InputError("non-finite")
    return np.rint(np.clip(image if CLIP.value else deepdream.shown(image), 0, 255)).astype(np.uint8)


def film(run: cli.Run, picture: cli.Picture, dreams: Iterable[Dream]) -> None:
    """Write the frames as .mp4 and .gif, and the last one as a picture."""
    from tfcnn.video import Film

    if not run.flags.save_images:
        return
    names = [f"{picture.stem}_zoom{suffix}" for suffix in (".mp4", ".gif")]
    films = [Film(run.place(name)) for name in names]
    try:
        with (
            guarded(run.output_dir),
            run.progress(FRAMES.value, f"{picture.name}: film", "frames") as progress,
        ):
            for dream in dreams:
                frame = finished(dream.image)
                for each in films:
                    each.add(frame)
                progress.advance()
            for each in films:
                each.close()
    finally:
        for each in films:
            each.discard()
    picture.entry["files"] += names
    picture.entry["frames"] = FRAMES.value
    picture.save(frame, "last_frame", f"after {FRAMES.value} frames")


if __name__ == "__main__":
    cli.start(main, resize=None)
