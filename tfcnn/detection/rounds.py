"""Rounds of training over pictures, as HOG windows and deformable parts learn; a stopped training goes on to the bit.

A checkpoint holds what a learner knows after some pictures of a round, as plain arrays, and says which settings and
data it is of. Pictures and draws are functions of the round and of the place in it, so nothing else is needed.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from tfcnn.datasets import Dataset, Record
from tfcnn.errors import InputError
from tfcnn.runtime import Interrupted, Stop
from tfcnn.training import checkpoints
from tfcnn.training.journal import Timer
from tfcnn.training.signals import Signals

EASY = -1.2  # margin of a negative up to which it is forgotten: beyond the SVM's own -1 by a little
KEPT = 2  # checkpoints: were the newest damaged, the one before it is taken


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Where and when a training keeps its state.

    Attributes:
        folder: for its checkpoints; None keeps none.
        resume: go on from the newest one; False deletes them and begins anew.
        minutes: between two checkpoints, beside the one at the end of each round.
        stop: becomes true when the training is to end; None: signals alone end it.
    """

    folder: pathlib.Path | None = None
    resume: bool = True
    minutes: float = 1.0
    stop: Stop | None = None

    def inside(self, name: str) -> Keeping:
        """The same for one part of a training, in a folder of its own."""
        return dataclasses.replace(self, folder=self.folder and self.folder / name)


NOWHERE = Keeping()  # no checkpoints


class Learner(Protocol):
    """What is trained in rounds."""

    def begin(self, number: int, pause: Callable[[], None]) -> None:
        """Prepares a round; calls `pause` now and then, which ends the training where that is asked for."""

    def look(self, record: Record, number: int, place: int) -> int:
        """Learns from a picture, the `place`-th of its round; how many examples it gave."""

    def end(self, number: int, pictures: int, count: int) -> str:
        """Ends a round of so many pictures and examples; says in a sentence what came of it."""

    def state(self) -> dict[str, np.ndarray]:
        """All that it has learned."""

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Becomes what it was at `state`."""


class Checkpoints:
    """The checkpoints of one training in rounds.

    Args:
        keeping: where and when.
        kind: of the training.
        settings: a dataclass; its fields must be the same when the training goes on.
        training: the data, which must be the same, too.

    Raises:
        InputError: a training of another kind, with other settings or on other data lies there.
    """

    def __init__(self, keeping: Keeping, kind: str, settings: Any, training: Dataset):
        self.keeping = keeping
        own = {name: _plain(value) for name, value in dataclasses.asdict(settings).items()}
        self.header = {"kind": kind, "settings": own, "data": training.fingerprint()}
        self.arrays: dict[str, np.ndarray] | None = None
        self.position = {"round": None, "place": 0, "count": 0, "done": 0}
        if keeping.folder is None:
            return
        if not keeping.resume:
            shutil.rmtree(keeping.folder, ignore_errors=True)
        found = checkpoints.newest(keeping.folder)
        if found:
            self.arrays, header = found
            self._check(header)
            self.position = header["position"]

    def _check(self, then):
        where = f"{self.keeping.folder} holds a training"
        how = "bring them back, or start anew without resuming"
        if then.get("kind") != self.header["kind"]:
            raise InputError(f"{where} of another kind ({then.get('kind')}): start anew without resuming")
        ours, theirs = self.header["settings"], then.get("settings", {})
        differing = [
            f"{name}: {theirs.get(name)} then, {ours.get(name)} now"
            for name in {**ours, **theirs}
            if theirs.get(name) != ours.get(name)
        ]
        if differing:
            raise InputError(f"{where} with other settings ({'; '.join(differing[:3])}): {how}")
        if then.get("data") != self.header["data"]:
            raise InputError(f"{where} on other data ({then.get('data')}): {how}")

    @property
    def finished(self) -> bool:
        """Whether all rounds are done."""
        return self.position["round"] == "finished"

    def write(self, learner: Learner, **position: Any) -> None:
        """Writes a checkpoint, and deletes all but the newest ones."""
        self.position = position
        if self.keeping.folder is None:
            return
        path = checkpoints.path_of(self.keeping.folder, self.position["done"])
        checkpoints.write(path, learner.state(), self.header | {"position": position})
        checkpoints.keep_newest(self.keeping.folder, KEPT)


def over_rounds(
    learner: Learner,
    rounds: Sequence[int],
    pictures: Callable[[int], Sequence[Record]],
    kept: Checkpoints,
    say: Callable[[str], None],
    progress: Callable[[int, str], None],
) -> None:
    """Runs a learner through its rounds, from where the checkpoints say.

    Args:
        learner: learns.
        rounds: their numbers.
        pictures: those of a round.
        kept: the training's checkpoints; it must not be finished.
        say: is told in a sentence what came of a round.
        progress: called with the pictures done since the last call and what is done; at first, where the training
            goes on, with those before and "before".

    Raises:
        Interrupted: a signal ended it, or `Keeping.stop`; a checkpoint lies there.
        KeyboardInterrupt: Ctrl-C did.
    """
    first, place, count, done = (kept.position[name] for name in ("round", "place", "count", "done"))
    if kept.arrays is not None:
        learner.restore(kept.arrays)
        kept.arrays = None
        progress(done, "before")
        say(f"goes on in round {first}, after {place} pictures of it")
    timer = Timer(60 * kept.keeping.minutes)
    with Signals(kept.keeping.stop) as signals:

        def pause() -> None:
            if signals.caught:
                raise signals.exception(done)

        for number in rounds[rounds.index(first) if first is not None else 0 :]:
            chosen = pictures(number)
            if place == 0:
                kept.write(learner, round=number, place=0, count=0, done=done)
                learner.begin(number, pause)
            while place < len(chosen):
                if place and (signals.caught or timer.due()):
                    kept.write(learner, round=number, place=place, count=count, done=done)
                    pause()
                count += learner.look(chosen[place], number, place)
                progress(1, f"round {number}")
                place, done = place + 1, done + 1
            say(f"round {number}: {learner.end(number, len(chosen), count)}")
            place = count = 0
        kept.write(learner, round="finished", place=0, count=0, done=done)


def pausing(stop: Stop | None) -> None:
    """Ends a training that is asked to stop before it has anything to keep.

    Raises:
        Interrupted: it is.
    """
    if stop:
        raise Interrupted("Stopped by a signal before the first round; the same command begins anew.")


class Negatives(Sequence):
    """The negatives of a classifier, each once: what is known already is left out, as R-CNN's SVMs do.

    Pictures come again where there are fewer than all rounds look at, and what was hard in them often still is.

    Args:
        rows: vectors to begin with; they become float16.
    """

    def __init__(self, rows: Iterable[np.ndarray] = ()):
        self._rows: list[bytes] = []
        self._known: set[bytes] = set()
        for row in rows:
            self.add(row)

    def add(self, row: np.ndarray) -> bool:
        """Takes a vector, unless it is known; whether it was new."""
        own = np.float16(row).tobytes()
        if own in self._known:
            return False
        self._rows.append(own)
        self._known.add(own)
        return True

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> np.ndarray:
        return np.frombuffer(self._rows[place], np.float16)


def by_place(
    place: int, name: str, rows: Sequence[np.ndarray], dtype: type, *shape: int
) -> dict[str, np.ndarray]:
    """A list of rows of one shape as an array for a checkpoint: {"name_place": [n, *shape]}."""
    return {f"{name}_{place}": np.array(rows, dtype).reshape(len(rows), *shape)}


def hard_indices(margins: np.ndarray, most: int) -> np.ndarray:
    """Which negatives are kept once their classifier was fitted: those that are not EASY.

    Were they nearly as many as may be kept, the hardest are: a tenth of the memory is for new ones.

    Args:
        margins: float [n].
        most: negatives of a classifier.

    Returns:
        int [m], in their order.

    Source: Felzenszwalb et al. 2010, section 4.4.
    """
    hard = np.flatnonzero(margins > EASY)
    hardest = hard[np.argsort(-margins[hard], kind="stable")[: int(0.9 * most)]]
    return np.sort(hardest)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
