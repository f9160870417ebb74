"""Several apps, one after the other, without importing TensorFlow anew for each.

A server imports it once; each app runs in a fork of the server, a process of its own as from a shell. TensorFlow's
threads and devices start with the first computation, which is after the fork.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pathlib
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence


class Warm:
    """A server that runs apps; a context, at whose end it is gone.

    Args:
        modules: what it imports before the first.
    """

    def __init__(self, modules: Sequence[str] = ("keras", "tensorflow")):
        self._modules = modules
        self._server: subprocess.Popen | None = None

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        cwd: str | os.PathLike = ".",
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Do `python -m MODULE ARGUMENTS` and wait for its end.

        Args:
            module: e.g. "apps.classify", looked for in `cwd`, then where this process finds modules.
            arguments: of the command.
            cwd: the folder to run in.
            env: environment variables beside those of this process; the server's modules are imported without them.
            timeout: seconds, after which the app is killed.

        Returns:
            The finished process with its standard output and standard error.

        Raises:
            subprocess.TimeoutExpired: the time was over.
        """
        if self._server is None or self._server.poll() is not None:
            home = str(pathlib.Path(__file__).resolve().parents[2])
            paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
            self._server = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, *self._modules],
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # one signal reaches the server and the app
            )
        with tempfile.TemporaryDirectory() as folder:
            streams = [pathlib.Path(folder, name) for name in ("out", "err")]
            request = {"module": module, "arguments": [*arguments], "cwd": os.fspath(cwd)}
            request |= {"env": dict(env or {}), "streams": [*map(str, streams)]}
            print(json.dumps(request), file=self._server.stdin, flush=True)
            if not select.select([self._server.stdout], [], [], timeout)[0]:
                self.close()
                raise subprocess.TimeoutExpired([module, *arguments], timeout)
            answer = self._server.stdout.readline()
            out, err = (path.read_text(errors="replace") if path.exists() else "" for path in streams)
        status = json.loads(answer) if answer else -signal.SIGTERM  # the server was told to end
        return subprocess.CompletedProcess([module, *arguments], status, out, err)

    def close(self) -> None:
        """End the server and what it runs."""
        if self._server is not None and self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGTERM)
            self._server.wait()
        if self._server is not None:
            self._server.stdin.close()
            self._server.stdout.close()
        self._server = None


def _serve(modules: Sequence[str]) -> None:
    """Answer each request, a line of JSON, with its app's exit status; end with standard input."""
    from tfcnn.runtime import quiet

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        for module in modules:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else each fork, at its end, looks for garbage in all that the import made: a second
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(request):
    """Run the app in this process, to its end."""
    for number, path in enumerate([os.devnull, *request["streams"]]):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    sys.path[:1] = [os.getcwd(), *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv[1:] = request["arguments"]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(sys.argv[1:])
