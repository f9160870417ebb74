"""The app KILLED_APP, which is killed at a place: KILLED_AT=PLACE:N, where PLACE comes for the Nth time.

Run by pairs.py. Places: `step`, before a step; `validation`, where the chief begins to measure and the others wait;
`figures`, in the midst of it; `features`, before those of a split are computed; the beginning of a file's name:
written, but not yet in its place.
"""

import os
import pathlib
import runpy
import signal

from tfcnn.training import features
from tfcnn.training.run_state import RunState
from tfcnn.training.step import Step

FUNCTIONS = {
    "step": (Step, "__call__"),
    "validation": (RunState, "validate"),
    "figures": (RunState, "_figures"),
    "features": (features, "write"),
}


def killing(function, meant, number):
    """The function, whose call number `number` among those that are meant kills the process."""
    left = [number]

    def instead(*arguments, **named):
        left[0] -= meant(*arguments)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return instead


def main():
    place, _, number = os.environ["KILLED_AT"].partition(":")
    if place in FUNCTIONS:
        owner, name = FUNCTIONS[place]
        setattr(owner, name, killing(getattr(owner, name), lambda *_: True, int(number)))
    else:
        os.replace = killing(os.replace, lambda _, to: pathlib.Path(to).name.startswith(place), int(number))
    runpy.run_module(f"apps.{os.environ['KILLED_APP']}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
