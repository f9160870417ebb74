"""The apps that work in shards: merged, their shards are the run over everything, file by file."""

import json
import pathlib

import numpy as np
import pytest

from tfcnn import images

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEEDS = ("seconds", "images_per_second")

# detect with a detector that answers at once: a box as wide as the picture is bright.
BRIGHT = """
import runpy, sys
import numpy as np
from tfcnn.cli import testing_flags
from tfcnn.detections import Detections

class Bright:
    batch_size, names, category_ids, card = 2, ["dark", "bright"], [7, 9], {}

    def prepare(self, image):
        return image

    def predict(self, batch, proposals):
        means = [float(image.mean()) / 3 for image in batch]
        both = [([[0, 0, mean, 5 / 3], [0, 0, 1, 1]], [mean / 255, 0.1], [int(mean > 30), 0]) for mean in means]
        return [Detections(*columns, self.names) for columns in both]

def opened(run, sources, plain=False):
    run.net = sources[0]
    return Bright(), None

testing_flags.open_detector = opened
runpy.run_module("apps.detect", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine pictures, one of them damaged, labels, and a module `bright` that detects."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "in").mkdir()
    for number in range(9):
        image = np.random.default_rng(number).integers(0, 20 * number + 20, (40, 30, 3), np.uint8)
        images.write(folder / "in" / f"{number}.png", image)
    (folder / "in" / "5.png").write_bytes(b"")
    lines = [f"{number}.png,{number % 3}" for number in range(9)]
    (folder / "labels.csv").write_text("\n".join(["file,class_index", *lines]))
    (folder / "bright.py").write_text(BRIGHT)
    return folder


def contents(folder, name):
    """A run's files; of results.json without what may differ."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    found = {name: data for name, data in found.items() if not name.startswith("shard")}
    found = {name: data.replace(f"out/{folder.name}".encode(), b"OUT") for name, data in found.items()}
    results = json.loads(found["results.json"])
    return found | {"results.json": {name: value for name, value in results.items() if name not in SPEEDS}}


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("apps.classify", ["--model=digits", "--truth=labels.csv", "--batch_size=2"]),
        ("apps.embed", ["--layer=pixels", "--method=pca", "--batch_size=2"]),
        ("bright", []),
    ],
)
def test_merged_shards_equal_the_run_over_everything(warm, run_app, folder, module, flags):
    whole, parts = f"out/{module}-whole", f"out/{module}-parts"
    environment = {"PYTHONPATH": f"{folder}:{ROOT}"}
    for where, shard in [(whole, []), (parts, ["--shard=2/2"]), (parts, ["--shard=1/2"])]:
        arguments = ["in", *flags, f"--output_dir={where}", *shard, "--threads=1"]
        done = warm.run(module, arguments, folder, environment, 120)
        assert done.returncode == (0 if shard == ["--shard=1/2"] else 1), done.stderr
    (folder / "out" / "merge").mkdir(exist_ok=True)
    (folder / "out" / "merge" / "results.json").write_text(
        "{}"
    )  # of another merging: nothing is written there
    done = run_app("merge", parts, "--overwrite=false", cwd=folder)
    assert done.returncode == 1, done.stderr
    expected, found = contents(folder / whole, whole), contents(folder / parts, parts)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    refused = run_app("merge", parts, "--overwrite=false", cwd=folder)
    assert refused.returncode == 2 and "holds a results.json, and --overwrite=false" in refused.stderr
    assert len(found["results.json"]["images"]) == 8 and len(found["results.json"]["refused"]) == 1


def test_no_shards_are_status_2(run_app, tmp_path):
    done = run_app("merge", tmp_path, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and "holds no shards" in done.stderr and not (tmp_path / "out").exists()
    wrong = run_app("embed", "--shard=1/2", f"--output_dir={tmp_path / 'out'}")
    assert wrong.returncode == 2 and "--images" in wrong.stderr
