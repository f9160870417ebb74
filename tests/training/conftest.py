"""What the tests of several workers share."""

import socket

import pytest
from pairs import LOCALIZER, SHAPES

from tfcnn.cli.warm import Warm


@pytest.fixture(scope="session")
def servers(warm):
    with Warm() as other:
        yield [warm, other]


@pytest.fixture(scope="session")
def ports():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1] % 20000 + 2000


@pytest.fixture(scope="session")
def localizer(run_app, tmp_path_factory):
    """A flag that starts from a small localizer."""
    folder = tmp_path_factory.mktemp("localizer")
    flags = [*SHAPES, *LOCALIZER, "--classifier_epochs=1", f"--output_dir={folder}"]
    assert run_app("train_localizer", *flags).returncode == 0
    return f"--init={folder / 'release'}"
