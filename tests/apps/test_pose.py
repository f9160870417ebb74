"""train_pose, pose and evaluate as a person runs them, one after the other, on drawn figures."""

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

import tfcnn
from tfcnn import datasets, images
from tfcnn.video import Film

FLAGS = [
    "--dataset=figures",
    "--net=tiny",
    "--image_size=48",
    "--limit=48",
    "--stages=2",
    "--endpoints=conv4,conv3",
]
FLAGS += [
    "--part_size=16",
    "--hidden=64",
    "--steps=20",
    "--stage_steps=10",
    "--batch_size=16",
    "--validate_epochs=0",
]


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pose") / "out"
    return run_app("train_pose", *FLAGS, f"--output_dir={folder}"), folder


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    """A folder with a drawn figure in a wider picture, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("figures")
    picture = datasets.open("figures", split="val").examples[0].image()
    Image.fromarray(np.pad(picture, ((0, 0), (64, 64), (0, 0)))).save(folder / "wide.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_pose_net_is_trained_stage_by_stage_and_released(trained, run_app):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    found = results(folder)
    assert found["steps"] == 10 and [each["last"]["step"] for each in found["stages"]] == [20, 10]
    assert set(found["metrics"]["last"]) == {"step", "pcp_strict", "pdj_02", "error"}
    card = json.loads((folder / found["release"] / "card.json").read_text())
    assert card["kind"] == "pose" and len(card["joints"]) == 14 and card["stage_metrics"] == found["stages"]
    assert found["files"] == ["first_batch.png", "answers.png", "stages.png"]
    again = run_app("train_pose", *FLAGS, f"--output_dir={folder}")
    assert again.returncode == 0 and "nothing to do" in again.stdout


@pytest.mark.slow
def test_later_stages_are_trained_on_another_nets_first_stage(trained, run_app, tmp_path):
    release, out = trained[1] / "release", tmp_path / "out"
    more = ["--stages=3", f"--init={release}", "--first_stage=2", "--validate_epochs=1"]
    done = run_app("train_pose", *FLAGS, *more, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert [each["last"]["step"] for each in results(out)["stages"]] == [0, 10, 10]
    assert 0 <= results(out)["stages"][0]["last"]["pdj_02"] <= 1
    before, after = tfcnn.load_model(release), tfcnn.load_model(out / "release")
    for name, kept in (("stage1", True), ("stage2", False)):
        pairs = [(layer, after.get_layer(layer.name)) for layer in before.layers if name in layer.name]
        same = [
            (a == b).all() for x, y in pairs for a, b in zip(x.get_weights(), y.get_weights(), strict=True)
        ]
        assert same and (all(same) if kept else not all(same)), name


def test_a_recipe_may_repeat_what_the_trained_on_net_is(trained, run_app, tmp_path):
    release, out = trained[1] / "release", tmp_path / "out"
    own = ["--net=tiny", "--image_size=48", "--stages=2", "--part_size=16", "--convolutions="]
    short = ["--dataset=figures", "--limit=8", "--steps=1", "--stage_steps=1", "--batch_size=8"]
    done = run_app("train_pose", f"--init={release}", *own, *short, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert len(results(out)["stages"]) == 2


def test_pose_finds_joints_of_one_person_and_of_boxes(run_app, trained, figure, tmp_path):
    model = f"--model={trained[1] / 'release'}"
    done = run_app("pose", figure, model, f"--output_dir={tmp_path / 'one'}")
    assert done.returncode == 1 and "broken.png" in done.stderr, done.stderr
    found = results(tmp_path / "one")
    (entry,) = found["images"]
    (person,) = entry["persons"]
    assert person["box"] == [0, 0, 256, 128] and np.shape(person["stages"]) == (2, 14, 2)
    assert person["stages"][-1] == person["joints"] and len(found["refused"]) == 1
    assert entry["files"] == ["wide_pose.png", "wide_stages.png"] and entry["picture"] == "wide_pose.png"
    assert images.read(tmp_path / "one" / "wide_pose.png").shape == (128, 256, 3)
    (listed,) = json.loads((tmp_path / "one" / "poses.json").read_text())
    assert listed["image_id"] == "wide" and len(listed["keypoints"]) == 42

    entries = [{"label": "person", "score": s, "box": [64, 0, 192, 128], "index": 14} for s in (0.9, 0.2)]
    entries.append({"label": "cat", "score": 0.9, "box": [0, 0, 9, 9], "index": 7})
    detected = {"images": [{"file": "x/wide.png", "detections": entries}]}
    (tmp_path / "results.json").write_text(json.dumps(detected))
    boxes = f"--boxes={tmp_path / 'results.json'}"
    done = run_app("pose", figure / "wide.png", model, boxes, f"--output_dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    (person,) = results(tmp_path / "two")["images"][0]["persons"]
    assert person["box"] == [64, 0, 192, 128]

    coco = [{"image_id": "wide", "category_id": c, "bbox": [64, 0, 128, 128], "score": 0.9} for c in (15, 8)]
    (tmp_path / "detections.json").write_text(json.dumps(coco))
    (tmp_path / "categories.json").write_text('[{"id": 15, "name": "person"}, {"id": 8, "name": "cat"}]')
    boxes = f"--boxes={tmp_path / 'detections.json'}"
    done = run_app("pose", figure / "wide.png", model, boxes, f"--output_dir={tmp_path / 'three'}")
    assert results(tmp_path / "three")["images"][0]["persons"] == [person]


def test_boxes_are_a_pictures_own_where_two_have_one_stem(run_app, trained, figure, tmp_path):
    entries = []
    for left, folder in ((0, "a"), (64, "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes((figure / "wide.png").read_bytes())
        boxes = [{"label": "person", "score": 0.9, "box": [left, 0, 128 + left, 128]}]
        entries.append({"file": str(tmp_path / folder / "1.png"), "detections": boxes})
    (tmp_path / "results.json").write_text(json.dumps({"images": entries}))
    flags = [f"--model={trained[1] / 'release'}", f"--boxes={tmp_path / 'results.json'}"]
    pictures = [tmp_path / "a" / "1.png", tmp_path / "b" / "1.png"]
    done = run_app("pose", *pictures, *flags, f"--output_dir={tmp_path / 'both'}")
    assert done.returncode == 0, done.stderr
    assert [e["persons"][0]["box"][0] for e in results(tmp_path / "both")["images"]] == [0, 64]
    (tmp_path / "1.png").write_bytes(pictures[0].read_bytes())
    done = run_app("pose", tmp_path / "1.png", *flags, f"--output_dir={tmp_path / 'moved'}")
    assert done.returncode == 2 and "has 2 pictures 1, none of this path" in done.stderr, done.stderr


def test_pose_works_through_a_video(run_app, trained, figure, tmp_path):
    film = Film(tmp_path / "dance.mp4", 5)
    for _ in range(3):
        film.add(images.read(figure / "wide.png"))
    film.close()
    video, out = f"--video={tmp_path / 'dance.mp4'}", tmp_path / "out"
    done = run_app("pose", video, f"--model={trained[1] / 'release'}", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    (entry,) = results(out)["images"]
    assert entry["frames"] == 3 and [len(persons) for persons in entry["persons"]] == [1, 1, 1]
    assert (out / "dance_pose.mp4").stat().st_size > 500


def test_evaluate_measures_a_pose_net_on_whole_pictures(run_app, trained, tmp_path):
    data = datasets.open("figures", split="val")
    rows = io.StringIO()
    with zipfile.ZipFile(tmp_path / "figures.zip", "w") as file:
        for record in data.examples[:3]:
            picture = io.BytesIO()
            Image.fromarray(record.image()).save(picture, "PNG")
            file.writestr(f"val/images/{record.file}.png", picture.getvalue())
            csv.writer(rows).writerow([f"{record.file}.png", 128, 128, *record.joints.reshape(-1)])
        file.writestr("val/joints.csv", rows.getvalue())
    out = tmp_path / "out"
    flags = ["--dataset=lsp", f"--data={tmp_path / 'figures.zip'}", f"--output_dir={out}"]
    done = run_app("evaluate", *flags, f"--model={trained[1] / 'release'}")
    assert done.returncode == 0, done.stderr
    found = results(out)
    assert 0 <= found["metrics"]["lsp"]["pcp_strict"] <= 1
    assert [entry["persons"][0]["box"] for entry in found["images"]] == [[0, 0, 128, 128]] * 3
    model = f"--model={trained[1] / 'release'}"
    mirrored = run_app("evaluate", *flags[:2], model, "--flip", f"--output_dir={tmp_path / 'mirrored'}")
    assert mirrored.returncode == 0, mirrored.stderr
    assert results(tmp_path / "mirrored")["images"][0]["persons"] != found["images"][0]["persons"]
    refused = run_app("evaluate", *flags[:2], model, "--scales=96", f"--output_dir={tmp_path / 'refused'}")
    assert (
        refused.returncode == 2 and "--scales is for detectors, and --model is a pose net" in refused.stderr
    )
    for given in ("results.json", "poses.json"):  # what was found, measured again from its file
        again = run_app(
            "evaluate", *flags[:2], f"--results={out / given}", f"--output_dir={tmp_path / given}"
        )
        assert results(tmp_path / given)["metrics"] == found["metrics"], again.stderr


@pytest.mark.parametrize(
    "app, flags, message",
    [
        ("pose", ["--model="], "--model is missing"),
        ("pose", ["--model=digits"], "digits is a classifier, no pose net"),
        ("pose", ["--model={release}", "--resize=crop"], "--resize"),
        ("pose", ["--model={release}", "--boxes=nothing.json"], "nothing.json cannot be read"),
        ("pose", ["--model={release}", "--boxes=x", "--person_detector=y"], "give one of them"),
        ("pose", ["--model={release}", "--person_detector=digits"], "digits is a classifier"),
        ("pose", ["--model={release}", "--video=none.mp4"], "none.mp4: no such file"),
        ("train_pose", ["--dataset=shapes", "--net=tiny"], "--dataset=shapes has no joints"),
        ("train_pose", ["--dataset=figures", "--net=tiny", "--endpoints=conv4,conv9"], "conv9"),
        ("train_pose", ["--dataset=figures", "--net=tiny", "--hidden=x"], "--hidden=x"),
        ("train_pose", [*FLAGS, "--first_stage=2"], "--init gives the stages before it"),
        ("train_pose", [*FLAGS, "--first_stage=3"], "--init gives the stages before it"),
        ("train_pose", [*FLAGS, "--init={release}", "--first_stage=3"], "--stages=2 has no such stage"),
        (
            "train_pose",
            [*FLAGS, "--init={release}", "--first_stage=2", "--hidden=32"],
            "has no stage 1 like the one that the flags build, which needs stage1_fc1, stage1_numbers",
        ),
        ("train_pose", [*FLAGS, "--resize=crop"], "--resize=crop: a pose net sees a person undistorted"),
        ("train_pose", ["--dataset=figures", "--init={release}", "--stages=3"], "--stages: --init="),
        ("train_pose", ["--dataset=figures", "--init={release}", "--sigma=1"], "--sigma: --init="),
        ("train_pose", ["--dataset=figures", "--init={release}", "--part_size=32"], "--part_size: --init="),
        ("train_pose", ["--dataset=figures", "--init={release}", "--image_size=64"], "--image_size: --init="),
        (
            "train_pose",
            ["--dataset=figures", "--init={release}", "--convolutions=8"],
            "--convolutions: --init=",
        ),
        ("pose", ["--model={release}", "--net=tiny"], "--net is not for a pose net"),
        ("pose", ["--model={release}", "--person_score=0.3"], "--person_score belongs to --boxes or"),
        ("evaluate", ["--dataset=voc", "--data=x", "--model={release}"], "measured on lsp"),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(run_app, trained, tmp_path, app, flags, message):
    flags = [flag.format(release=trained[1] / "release") for flag in flags]
    done = run_app(app, *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
