"""Signals that end a training run between two steps."""

import signal
import threading
import types

from tfcnn.runtime import Interrupted, Stop


class Signals:
    """A context in which SIGTERM, SIGUSR1 and Ctrl-C are noticed, not obeyed at once; a second Ctrl-C is.

    Args:
        stop: what notices SIGTERM and SIGUSR1 already; None: this context listens for them itself.
    """

    def __init__(self, stop: Stop | None):
        self.stop = Stop() if stop is None else stop
        self.numbers = (
            [signal.SIGINT] if stop is not None else [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        )
        self.interrupted = False
        self._before = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in self.numbers}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def caught(self) -> bool:
        """Whether the run is to end."""
        return self.interrupted or bool(self.stop)

    def exception(self, done: int) -> BaseException:
        """Gives what to raise once the checkpoint is written."""
        text = f"Stopped by a signal at step {done}, with a checkpoint; the same command goes on."
        return KeyboardInterrupt(text) if self.interrupted else Interrupted(text)

    def _catch(self, number: int, frame: types.FrameType | None) -> None:
        if number != signal.SIGINT:
            self.stop.requested = True
        elif self.interrupted:
            raise KeyboardInterrupt
        else:
            self.interrupted = True
