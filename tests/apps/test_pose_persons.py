"""Persons as pose finds them itself, and joints as a COCO file names them."""

import json
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

import tfcnn
from tfcnn import images
from tfcnn.video import Film

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "datasets"))

from dataset_layouts import coco_json, encoded, write  # noqa: E402

FLAGS = ["--net=tiny", "--image_size=48", "--stages=2", "--endpoints=conv4,conv3", "--part_size=16"]
FLAGS += ["--hidden=16", "--steps=3", "--stage_steps=2", "--batch_size=4", "--validate_epochs=0"]


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    """train_pose on COCO's persons, of two joints whose names and skeleton stand in the file."""
    folder = tmp_path_factory.mktemp("persons")
    text = coco_json()
    text["categories"][1]["keypoints"] = ["left_shoulder", "right_shoulder"]
    text["annotations"][0]["bbox"] = [5, 5, 25, 20]
    files = {f"{split}/{name}.jpg": picture(seed) for split in ("t", "v") for seed, name in enumerate("ab")}
    files |= {f"annotations/person_keypoints_{split}.json": json.dumps(text) for split in ("t", "v")}
    data = ["--dataset=coco", f"--data={write(folder / 'coco', files)}", "--train_split=t", "--val_split=v"]
    done = run_app("train_pose", *data, *FLAGS, f"--output_dir={folder / 'out'}")
    return done, folder / "out"


def picture(seed):
    return encoded(np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8))


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_joints_and_skeleton_are_the_coco_files(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    card = json.loads((folder / results(folder)["release"] / "card.json").read_text())
    assert card["joints"] == ["left_shoulder", "right_shoulder"]
    assert card["skeleton"] == [[0, 1]]  # the file counts from 1
    estimator = tfcnn.pose_estimator(folder / "release")
    assert list(estimator.names) == card["joints"]


def test_persons_are_found_by_a_detector_in_pictures_and_video(run_app, trained, tmp_path):
    source = next(source for source in images.packaged() if source.path.stem == "astronaut")
    astronaut = images.read(source)
    Image.fromarray(np.pad(astronaut, ((0, 0), (256, 0), (0, 0)))).save(tmp_path / "right.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "nobody.png")
    both = [f"--model={trained[1] / 'release'}", "--person_detector=faster_rcnn_voc"]
    done = run_app(
        "pose", tmp_path / "right.png", tmp_path / "nobody.png", *both, f"--output_dir={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    found = {pathlib.Path(entry["file"]).name: entry for entry in results(tmp_path / "out")["images"]}
    (person,) = found["right.png"]["persons"]
    x1, y1, x2, y2 = person["box"]
    assert 256 <= (x1 + x2) / 2 <= 768 and x2 - x1 > 200 and y2 - y1 > 200  # she fills the right part
    assert np.shape(person["joints"]) == (2, 2) and found["nobody.png"]["persons"] == []
    assert (tmp_path / "out" / found["right.png"]["picture"]).exists()

    film = Film(tmp_path / "walk.mp4", 5)
    for frame in (astronaut, np.zeros_like(astronaut)):
        film.add(frame)
    film.close()
    done = run_app("pose", f"--video={tmp_path / 'walk.mp4'}", *both, f"--output_dir={tmp_path / 'film'}")
    assert done.returncode == 0, done.stderr
    (entry,) = results(tmp_path / "film")["images"]
    assert [len(persons) for persons in entry["persons"]] == [1, 0]
