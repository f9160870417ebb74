"""Style and dreams for sound: a melody in the sound of an organ."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, files, images
from tfcnn.cli import lists
from tfcnn.cli.output import guarded
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.imageopt import Result

GROUP, SUMMARY = "art", "style transfer and dreams on sound"

text = "Sounds (.wav, .flac, .ogg, .mp3), by commas; none takes a plucked melody made by code, e.g. --content=song.wav"
CONTENT = flags.DEFINE_string("content", None, text)
text = "The sound whose style is taken, or that guides a dream; none takes an organ made by code, e.g. --style=rain.wav"
STYLE = flags.DEFINE_string("style", None, text)
text = (
    "style: paint the content with the style; dream: raise what is in the content; guided: dream of the style"
)
METHOD = flags.DEFINE_enum("method", "style", ["style", "dream", "guided"], text)
STEPS = flags.DEFINE_integer(
    "steps", 100, "Evaluations, or steps of a dream, e.g. --steps=300", lower_bound=1
)
text = "How much of the content stays; 0 makes a texture of the style alone, e.g. --content_weight=10"
CONTENT_WEIGHT = flags.DEFINE_float("content_weight", 1.0, text, lower_bound=0.0)
STYLE_WEIGHT = flags.DEFINE_float("style_weight", 100.0, "How much of the style comes in", lower_bound=0.0)
text = "By which a dream's spectrogram changes on average in a step, in log(1 + magnitude)"
STEP_SIZE = flags.DEFINE_float("step_size", 0.02, text, lower_bound=0.0)
text = "Random filters of the net, e.g. --filters=4096 for the source's"
FILTERS = flags.DEFINE_integer("filters", 512, text, lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 6.0, "Of each sound's start that is taken", lower_bound=0.5)
text = "Rounds of Griffin and Lim's search for the phase, e.g. --phase_steps=200"
PHASE_STEPS = flags.DEFINE_integer("phase_steps", 60, text, lower_bound=1)


def main(run: cli.Run) -> None:
    if METHOD.value == "style" and not (CONTENT_WEIGHT.value or STYLE_WEIGHT.value):
        raise InputError("--content_weight and --style_weight are both 0: nothing is left to do")
    run.runtime  # noqa: B018  (starts TensorFlow silently)
    from tfcnn.art import audio, sounds

    guided = METHOD.value != "dream"
    style = style_name = None
    if guided:
        style_name = STYLE.value or "organ"
        samples = audio.read(STYLE.value, SECONDS.value) if STYLE.value else sounds.organ(SECONDS.value)
        style = audio.spectrogram(samples)
    net = audio.random_net(FILTERS.value, seed=run.flags.seed)
    run.net = net.name
    contents = lists.paths(CONTENT.value or "") or [None]
    for name in contents:
        if name is not None and not pathlib.Path(name).is_file():
            raise InputError(f"--content={name} is not there")
    rows = []
    for index, name in enumerate(contents[: run.flags.limit]):
        stem = pathlib.PurePath(name or "melody").stem
        stem = (
            f"{stem}_{index}" if stem in [pathlib.PurePath(n or "").stem for n in contents[:index]] else stem
        )
        with run.item(name or "melody", stem, file=name or "melody", style=style_name) as item:
            heard = audio.read(name, SECONDS.value) if name else sounds.plucked_melody(SECONDS.value)
            content = audio.spectrogram(heard)
            with run.progress(STEPS.value, item.name, "steps") as progress:
                result = work(
                    run, net, content, style, lambda m, bar=progress: bar.advance(1, value=m.value[0])
                )
            samples = audio.sound(result.image, heard, PHASE_STEPS.value)
            item.entry |= {"method": METHOD.value, "seconds": len(samples) / audio.RATE, "rate": audio.RATE}
            item.entry |= {"history": result.history(), "final": result.final_entry()}
            kind = {"style": "styled", "dream": "dream", "guided": "dream"}[METHOD.value]
            item.show(seen(content), f"content: {item.name}")
            if style is not None:
                item.show(seen(style), f"style: {style_name}")
            item.save(seen(result.image), kind, "result", main=True)
            item.entry["sound"] = keep(run, item, f"{stem}_{kind}.wav", audio.encode(samples))
            if name is None:
                keep(run, item, "melody.wav", audio.encode(heard))
            if guided and not STYLE.value:
                keep(run, item, "organ.wav", audio.encode(sounds.organ(SECONDS.value)))
            values = [f"{each['value']:.4g}" for each in (item.entry["history"][0], item.entry["final"])]
            rows.append([item.name, f"{item.entry['seconds']:.1f} s", *values])
    run.table(["sound", "length", "value at first", "at last"], rows)


def work(
    run: cli.Run, net: keras.Model, content: np.ndarray, style: np.ndarray | None, callback: Callable
) -> Result:
    """The spectrogram that the flags ask for, and its history."""
    from tfcnn.art import audio

    if METHOD.value == "style":
        return audio.transfer(
            net,
            content,
            style,
            STEPS.value,
            content_weight=CONTENT_WEIGHT.value,
            style_weight=STYLE_WEIGHT.value,
            callback=callback,
        )
    return audio.dream(
        net, content, style, STEPS.value, step_size=STEP_SIZE.value, seed=run.flags.seed, callback=callback
    )


def seen(spectrogram: np.ndarray) -> np.ndarray:
    """A spectrogram as a picture: time to the right, 0 to 8 kHz upwards; uint8 [H, W, 3]."""
    values = np.asarray(spectrogram)[0, 0, :, :744].T[::-1]
    picture = draw.heat_map(values)
    return images.resize(picture, (372, max(1, 2 * picture.shape[1])))[0]


def keep(run: cli.Run, item: cli.Item, name: str, data: bytes) -> str:
    """Write a sound of this item; its name relative to output_dir."""
    with guarded(run.output_dir):
        files.write_bytes(run.place(name), data)
    item.entry.setdefault("files", []).append(name)
    return name


if __name__ == "__main__":
    cli.start(main, pictures=False, without=cli.NO_NET)
