"""Two workers of one training, for the tests of several workers."""

import os
import pathlib
import threading
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TINY = [
    "--dataset=digits",
    "--net=tiny",
    "--image_size=16",
    "--batch_size=8",
    "--limit=48",
    "--validate_epochs=0",
]
TINY += ["--threads=1", "--tensorboard=false", "--checkpoint_minutes=100", "--learning_rate=0.0001"]
SHAPES = ["--dataset=shapes", "--net=tiny", "--validate_epochs=0", "--learning_rate=0.0001", "--threads=1"]
SHAPES += [
    "--tensorboard=false",
    "--freeze=*norm*",
    "--limit=32",
    "--batch_size=4",
    "--checkpoint_minutes=100",
]
LOCALIZER = ["--steps=4", "--image_size=64"]  # trained on: batch norm of random layers is live


class Pair:
    """Two workers of a training in forks of two servers; `killed` is a rank and where killed_worker.py ends it."""

    def __init__(
        self, servers, port, flags, own=lambda k: [], app="train_classifier", base=TINY, killed=(None, "")
    ):
        self.servers, self.done, self.app, self.killed = servers, [None, None], app, killed
        addresses = ",".join(f"127.0.0.1:{port + k}" for k in (0, 1))
        every = [*base, *flags, f"--workers={addresses}"]
        self.threads = [
            threading.Thread(target=self._run, args=(k, [*every, f"--worker={k}", *own(k)])) for k in (0, 1)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, k, arguments):
        environment, module = {"PYTHONPATH": str(ROOT)}, f"apps.{self.app}"
        if k == self.killed[0]:
            environment = {
                "PYTHONPATH": f"{ROOT}:{HERE}",
                "KILLED_AT": self.killed[1],
                "KILLED_APP": self.app,
            }
            module = "killed_worker"
        self.done[k] = self.servers[k].run(module, arguments, ROOT, environment, 900)

    def signal(self, k, number):
        """Send a signal to a worker, a child of its server."""
        server = self.servers[k]._server.pid
        child = pathlib.Path(f"/proc/{server}/task/{server}/children").read_text().split()[-1]
        os.kill(int(child), number)

    def ended(self):
        for thread in self.threads:
            thread.join()
        return self.done


def newest(folder):
    paths = sorted((folder / "checkpoints").glob("step-*.npz"))
    return dict(np.load(paths[-1])) if paths else {}


def wait_for(folder, step):
    """Until the log says that so many steps are done; it has a line a step."""
    deadline = time.monotonic() + 250
    while (
        f'"step": {step},' not in (folder / "log.jsonl").read_text()
        if (folder / "log.jsonl").exists()
        else True
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
