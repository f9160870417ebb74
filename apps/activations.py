"""Show what every channel of a net's layers answers to a picture, on one page to browse, or live from a camera."""

from __future__ import annotations

import itertools
import pathlib
import time
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, files, images, report
from tfcnn.cli import layers, lists
from tfcnn.cli.flags import refuse
from tfcnn.cli.output import RESULTS
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tfcnn import video

GROUP, SUMMARY = "looking inside", "show what every channel of every layer answers, also live"

LAYER = flags.DEFINE_list(
    "layer",
    [],
    "Layers to show; none takes a factory net's endpoints, else at most 12, e.g. --layer=stem,stage5",
)
CHANNEL = flags.DEFINE_list(
    "channel", [], "Compute the gradients of these channels of each layer that has them, e.g. --channel=7,12"
)
GRADIENTS = flags.DEFINE_integer(
    "gradients",
    2,
    "Where no --channel is given: compute the gradients of so many channels of each layer, those with the greatest "
    "mean on the picture, e.g. --gradients=8",
    lower_bound=0,
)
TOP = flags.DEFINE_integer("top", 5, "Classes to name for a picture, best first, e.g. --top=3", lower_bound=1)
UNITS = flags.DEFINE_string(
    "units",
    None,
    "Output folders of patches or class_model --layer of the same net: what they made of a channel is shown beside it, "
    "e.g. --units=out/patches,out/class_model",
)
CAMERA = flags.DEFINE_integer(
    "camera",
    None,
    "A camera's number instead of pictures, live, until Ctrl-C or --limit frames, e.g. --camera=0",
)
VIDEO = flags.DEFINE_string("video", None, "A video file in the camera's place, e.g. --video=street.mp4")
PORT = flags.DEFINE_integer(
    "port",
    8008,
    "Live: of the page, http://127.0.0.1:PORT/; 0 takes a free one",
    lower_bound=0,
    upper_bound=65535,
)

PAGE = "activations.html"
MOST_LAYERS = 12
MOST_SHEETS = 200  # sheets of channels that the page embeds


class Looker:
    """The net, compiled once, and what its layers answer."""

    def __init__(self, net: cli.Net, names: list[str], resize: str):
        from tfcnn.visualization import activations

        self.net, self.names, self.resize = net, names, resize
        scores = ["scores"] if net.classes else []
        self._answers = activations.answers(net.model, [*names, *scores])
        self._gradients: dict[str, Callable] = {}

    def see(self, image: np.ndarray) -> np.ndarray:
        """A picture as the net sees it."""
        return images.resize(image, self.net.size, self.resize)[0]

    def answers(self, seen: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Of each picture [N, H, W, 3] the maps [h, w, C] of all layers, and the scores where it has classes."""
        found = {name: maps.numpy() for name, maps in self._answers(seen.astype(np.float32)).items()}
        return [{name: maps[place] for name, maps in found.items()} for place in range(len(seen))]

    def top(self, answers: dict[str, np.ndarray]) -> list[dict]:
        """The best classes, for results.json."""
        if not self.net.classes:
            return []
        scores = answers["scores"].ravel()
        if not np.isfinite(scores).all():
            raise InputError("non-finite")
        order = np.argsort(-scores, kind="stable")[: TOP.value].tolist()
        named = [(index, *self.net.classes[index]) for index in order]
        return [{"index": i, "synset": s, "label": label, "score": float(scores[i])} for i, s, label in named]

    def gradients(self, layer: str, channels: list[int], seen: np.ndarray) -> dict[int, np.ndarray]:
        """Pictures of the gradients of channels' means to a picture [H, W, 3]."""
        from tfcnn.visualization import gradients, relu_rules

        if layer not in self._gradients:
            self._gradients[layer] = gradients.channel_gradients(self.net.model, layer)
        pixels = seen[None].astype(np.float32)
        found = {}
        for channel in channels:
            gradient = self._gradients[layer](pixels, np.array([channel], np.int32))[0]
            found[channel] = np.rint(relu_rules.picture(gradient[0].numpy())).astype(np.uint8)
        return found


def main(run: cli.Run) -> None:
    moving = CAMERA.value is not None or VIDEO.value is not None
    if CAMERA.value is not None and VIDEO.value is not None:
        raise InputError("--video and --camera are two inputs; give one of them")
    if moving and run.flags.images:
        raise InputError("--images and a camera or video are two inputs; give one of them")
    if moving:
        refuse(["channel"], "is for pictures: of a video, the channel that is looked at has its gradient")
    else:
        refuse(["port"], "is for --camera and --video: the page of pictures is a file")
    if CHANNEL.value:
        refuse(["gradients"], "is for no --channel: of those that are given each has its gradient")
    film = open_video() if moving else None
    net = run.load_net("any")
    names = LAYER.value or spread(list(layers.maps(net.model)))
    counts = {name: layers.count(net.model, name) for name in names}
    for channel in CHANNEL.value:
        if not channel.strip().isdecimal() or int(channel) >= max(counts.values()):
            raise InputError(f"--channel={channel}: the layers have channels 0 to {max(counts.values()) - 1}")
    units = units_of(net.name, lists.paths(UNITS.value or ""), names)
    looker = Looker(net, names, run.flags.resize)
    if moving:
        of_video(run, looker, film, units)
    else:
        of_pictures(run, looker, counts, units)


def spread(names: list[str]) -> list[str]:
    """At most MOST_LAYERS of them, evenly spread, the first and the last among them."""
    if len(names) <= MOST_LAYERS:
        return names
    places = np.linspace(0, len(names) - 1, MOST_LAYERS).round().astype(int)
    return [names[place] for place in places]


def of_pictures(run: cli.Run, looker: Looker, counts: dict[str, int], units: dict) -> None:
    """Write the grids of every picture, and the page."""
    from tfcnn.visualization import activation_page, activations

    described: dict[str, dict] = {}
    shown, rows, most = [], [], max(1, MOST_SHEETS // len(looker.names))
    for batch in run.batches(run.flags.batch_size, looker.see):
        found = looker.answers(np.stack([picture.prepared for picture in batch]))
        for picture, answers in zip(batch, found, strict=True):
            with picture:
                top = looker.top(answers)
                best = f"{top[0]['label']} {top[0]['score']:.1%}" if top else ""
                picture.show(picture.prepared, best or "what the net sees")
                entries, strongest = [], []
                for name in looker.names:
                    sheet = activations.sheet(answers[name])
                    described.setdefault(name, activation_page.layer_entry(name, answers[name], sheet))
                    first = name == looker.names[0]
                    grid = activations.grid(sheet)
                    picture.save(grid, name.replace("/", "_"), f"{name}: {counts[name]} channels", main=first)
                    channels = activations.strongest(answers[name], max(1, GRADIENTS.value))
                    strongest.append({"layer": name, "channels": counts[name], "strongest": channels})
                    if len(shown) < most:
                        wanted = asked(counts[name], channels)
                        pictures = looker.gradients(name, wanted, picture.prepared)
                        entries.append(activation_page.answer_entry(sheet, pictures))
                picture.entry |= {"predictions": top, "layers": strongest, "page": PAGE}
                if entries:
                    picture.card.link = f"{PAGE}#{len(shown)}"
                    classes = [(each["label"], each["score"]) for each in top]
                    shown.append(
                        activation_page.picture_entry(picture.name, picture.prepared, classes, entries)
                    )
                shown_channels = ", ".join(map(str, strongest[-1]["strongest"][: TOP.value]))
                rows.append([picture.name, best if looker.net.classes else shown_channels])
    if shown:
        title = f"activations of {looker.net.name}"
        page = activation_page.page(title, [described[name] for name in looker.names], shown, units)
        run.results |= {"page": run.save_bytes(page, PAGE), "pictures_on_page": len(shown)}
        if len(rows) > len(shown):
            run.say(f"{PAGE} shows the first {len(shown)} of {len(rows)} pictures")
    column = "best class" if looker.net.classes else f"strongest channels of {looker.names[-1]}"
    run.table(["file", column], rows)


def asked(count: int, strongest: list[int]) -> list[int]:
    """The channels of a layer whose gradients are computed."""
    if CHANNEL.value:
        return [int(channel) for channel in CHANNEL.value if int(channel) < count]
    return strongest[: GRADIENTS.value]


def of_video(run: cli.Run, looker: Looker, source: video.Video, units: dict) -> None:
    """Serve the page while frames come; write a film of the frames beside the first layer's channels."""
    from tfcnn.video import Film
    from tfcnn.visualization import activation_page, activations
    from tfcnn.visualization.live import Server

    def describe(frame: tuple, layer: int, channel: int) -> dict:
        seen, answers = frame
        name = looker.names[layer]
        channel = max(0, min(channel, answers[name].shape[-1] - 1))
        wanted = [channel] if GRADIENTS.value else []
        answer = activation_page.answer_entry(
            activations.sheet(answers[name]), looker.gradients(name, wanted, seen)
        )
        top = [(each["label"], each["score"]) for each in looker.top(answers)]
        return {**activation_page.picture_entry(source.name, seen, top, []), "answer": answer}

    blank = looker.see(np.zeros([source.size[1], source.size[0], 3], np.uint8))
    (answers,) = looker.answers(blank[None])
    sheets = {name: activations.sheet(answers[name]) for name in looker.names}
    described = [activation_page.layer_entry(name, answers[name], sheets[name]) for name in looker.names]
    start = activation_page.picture_entry(source.name, blank, [], [])
    title = f"activations of {looker.net.name}, {source.name}"
    page = activation_page.page(title, described, [start], units, live=True)

    entry = {"file": source.name, "width": source.size[0], "height": source.size[1], "frames": 0}
    total = min(filter(None, (source.count, run.flags.limit)), default=None)
    began, frames, film = time.perf_counter(), 0, None
    try:
        with (
            source,
            Server(page, describe, PORT.value) as server,
            run.progress(total, "activations", "frames") as bar,
        ):
            run.say(f"the page is {server.address}; Ctrl-C ends it")
            if run.flags.save_images:
                stem = pathlib.PurePath(source.name).stem
                film = Film(run.place(f"{stem}_activations.mp4"), source.rate)
            for frame in itertools.islice(source, run.flags.limit):
                seen = looker.see(frame)
                (answers,) = looker.answers(seen[None])
                server.publish((seen, answers))
                if film:
                    film.add(beside(seen, activations.grid(activations.sheet(answers[looker.names[0]]))))
                frames += 1
                bar.advance()
                if VIDEO.value is not None:  # a file comes no faster than a camera's frames would
                    time.sleep(max(0.0, began + frames / source.rate - time.perf_counter()))
    finally:  # what was written stays playable, whatever ended the loop
        if film:
            film.close()
            if film.frames:
                entry["picture"], entry["files"] = film.path.name, [film.path.name]
        entry |= {"frames": frames, "frames_per_second": round(frames / (time.perf_counter() - began), 2)}
        if frames:
            run.add(entry)
    if not frames:
        run.refuse(source.name, "not one frame of it could be read")
    run.table(["input", "frames", "frames/s"], [[source.name, frames, entry["frames_per_second"]]])


def open_video() -> video.Video:
    from tfcnn.video import open_video

    return open_video(CAMERA.value if VIDEO.value is None else VIDEO.value)


def beside(seen: np.ndarray, grid: np.ndarray, side: int = 448) -> np.ndarray:
    """A frame and a grid of channels, each as a square."""
    return np.concatenate([images.resize(each, side)[0] for each in (seen, grid)], axis=1)


def units_of(net: str, folders: list[str], names: list[str]) -> dict[str, dict[int, list[dict]]]:
    """The pictures of channels that earlier runs made: {layer: {channel: what the page shows}}."""
    from tfcnn.visualization import activation_page

    found: dict[str, dict[int, list[dict]]] = {}
    for folder in map(pathlib.Path, folders):
        try:
            results = files.from_json((folder / RESULTS).read_bytes(), RESULTS)
            app, other, entries = results["app"], results["net"], results["images"]
        except (OSError, InputError, KeyError, TypeError) as error:
            raise InputError(f"--units={folder}: it holds no {RESULTS} of a run") from error
        if other != net:
            raise InputError(f"--units={folder} is of the net {other}, not of {net}")
        for entry in entries:
            layer, unit = entry.get("layer"), entry.get("class")
            channel = entry.get("channel", unit.get("index") if isinstance(unit, dict) else None)
            if layer in names and isinstance(channel, int) and entry.get("picture"):
                image = images.read(folder / entry["picture"])
                shown = {
                    "caption": app.replace("_", " "),
                    "image": activation_page.embedded(report.reduced(image)),
                }
                found.setdefault(layer, {}).setdefault(channel, []).append(shown)
    if folders and not found:
        raise InputError(
            f"--units={','.join(map(str, folders))}: no picture of a channel of {', '.join(names)}"
        )
    return found


if __name__ == "__main__":
    cli.start(main)
