"""hog_lookalike as a person runs it: distances of the file, glyphs, and what it refuses."""

import json

import numpy as np
import pytest

from tfcnn import images
from tfcnn.fooling import hog_lookalike


def test_distances_are_those_of_the_file(run_app, tmp_path):
    out = tmp_path / "out"
    flags = ["--image_size=48", "--steps=40", "--inverse_steps=5"]
    done = run_app("hog_lookalike", *flags, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "results.json").read_text())
    source, start = report["images"]
    seen = [images.resize(images.read(each), 48, "crop")[0] for each in images.packaged()[:2]]
    made = images.read(out / start["picture"])
    target = hog_lookalike.descriptor(seen[0])
    for name, image in (("before", seen[1]), ("after", made)):
        found = hog_lookalike.distance(hog_lookalike.descriptor(image), target)
        assert start["hog_distance"][name] == pytest.approx(found, rel=1e-3)
    assert start["hog_distance"]["after"] < 0.5 * start["hog_distance"]["before"]
    difference = made.astype(float) - seen[0]
    assert start["pixel_distance"] == pytest.approx(np.sqrt((difference**2).mean()))
    assert start["source"] == source["file"] and start["change"] < start["pixel_distance"]
    assert {"hog", "distance", "value", "step"} <= set(start["history"][0])
    assert [name.rpartition("_")[2] for name in source["files"]] == ["hog.png", "inverse.png"]
    assert len(start["files"]) == 3 and (out / "sheet.png").exists()
    assert report["metrics"]["hog_distance_after"] == start["hog_distance"]["after"]


def test_wrong_commands(run_app, tmp_path):
    images.write(tmp_path / "flat.png", np.full([40, 40, 3], 9, np.uint8))
    images.write(tmp_path / "photograph.png", images.read(images.packaged()[0])[:64, :64])
    cases = [
        ([tmp_path / "flat.png"], "two pictures", 2),
        ([tmp_path / "flat.png"] * 3, "3 were given", 2),
        (["--image_size=12"], "two cells", 2),
        ([tmp_path / "flat.png", tmp_path / "photograph.png", "--image_size=32"], "flat", 1),
    ]
    for number, (flags, words, status) in enumerate(cases):
        done = run_app("hog_lookalike", *flags, f"--output_dir={tmp_path / str(number)}")
        assert done.returncode == status and words in done.stderr, done.stderr
    assert "refused" not in done.stderr  # the start is not to blame
