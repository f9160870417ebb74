"""An app's work on a video: each frame answered, drawn and written, however the loop ends."""

from __future__ import annotations

import itertools
import pathlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tfcnn import video
    from tfcnn.cli.run import Run


def over_frames(
    run: Run,
    source: video.Video,
    what: str,
    field: str,
    suffix: str,
    answer: Callable[[str, np.ndarray], tuple[object, Callable[[], np.ndarray]]],
) -> None:
    """Works through a video, --limit frames of it; adds its entry to the results, and the run's table.

    Ctrl-C, which is how a camera ends, leaves both as they are then.

    Args:
        run: the app's run.
        source: the video; it is closed.
        what: the work's name for the progress bar.
        field: of the entry that lists what each frame was answered with.
        suffix: of the film, STEM_SUFFIX.mp4.
        answer: called with a frame's name and its picture (uint8 [H, W, 3]); gives what the entry lists, and a call
            that draws it.
    """
    from tfcnn.video import Film

    stem = pathlib.PurePath(source.name).stem
    film = Film(run.place(f"{stem}_{suffix}.mp4"), source.rate) if run.flags.save_images else None
    width, height = source.size
    entry = {"file": source.name, "width": width, "height": height, "frames": 0, field: []}
    total = min(filter(None, (source.count, run.flags.limit)), default=None)
    began, frames = time.perf_counter(), 0
    try:
        with source, run.progress(total, what, "frames") as progress:
            for frame in itertools.islice(source, run.flags.limit):
                found, draw = answer(f"{stem}_{frames:06d}", frame)
                entry[field].append(found)
                if film:
                    film.add(draw())
                frames += 1
                progress.advance()
    finally:  # what was written stays playable, whatever ended the loop
        if film:
            film.close()
            if film.frames:
                entry["picture"], entry["files"] = film.path.name, [film.path.name]
        entry |= {"frames": frames, "frames_per_second": round(frames / (time.perf_counter() - began), 2)}
        if frames:
            run.add(entry)
            speed = f"{entry['frames_per_second']} frames/s"
            run.table(["input", "frames", "speed"], [[source.name, f"{frames} frames", speed]])
    if not frames:
        run.begin()
        run.refuse(source.name, "not one frame of it could be read")
    elif source.count and source.count > frames and run.flags.limit is None:
        run.say(f"{source.name} breaks off after {frames} of {source.count} frames; these are written")
