"""train_localizer, localize and evaluate as a person runs them, one after the other, on drawn shapes."""

import io
import json
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

import tfcnn
from tfcnn import datasets

FLAGS = [
    "--dataset=shapes",
    "--net=tiny",
    "--image_size=64",
    "--limit=64",
    "--classifier_epochs=3",
    "--steps=30",
]
FLAGS += ["--batch_size=16", "--validate_epochs=0", "--learning_rate=0.003"]


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("localizer") / "out"
    return run_app("train_localizer", *FLAGS, f"--output_dir={folder}"), folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_localizer_is_trained_and_released(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    assert "pictures have no object to learn, and are left out" in done.stderr
    assert "objects beyond the 1 largest of their pictures are left out" in done.stderr
    found = results(folder)
    assert found["steps"] == 30 and found["images_per_second"] > 0 and found["images"] == []
    figures = found["metrics"]["last"]
    assert set(figures) == {"step", "top1_cls", "top5_cls", "top1_loc", "top5_loc", "mean_iou"}
    assert figures["top5_cls"] == 0 and found["metrics"]["best"] == figures  # there are five classes
    card = json.loads((folder / found["release"] / "card.json").read_text())
    assert card["kind"] == "localizer" and card["image_size"] == 64 and card["metrics"] == found["metrics"]
    assert card["classifier_metrics"]["last"]["step"] > 0
    assert found["files"] == ["first_batch.png", "answers.png"]
    assert not (folder / "features").exists()


def test_a_finished_run_trains_nothing_more(run_app, trained):
    _, folder = trained
    again = run_app("train_localizer", *FLAGS, f"--output_dir={folder}")
    assert again.returncode == 0 and "nothing to do" in again.stdout


def test_a_localizer_is_trained_on_with_its_own_head_or_with_the_one_that_flags_ask_for(
    run_app, trained, tmp_path
):
    release, short = trained[1] / "release", ["--steps=2", "--classifier_epochs=1"]
    for name, more, layers in (("own", [], {"box_flatten"}), ("new", ["--per_place"], {"box_mean"})):
        flags = [*FLAGS, *short, f"--init={release}", *more, f"--output_dir={tmp_path / name}"]
        done = run_app("train_localizer", *flags)
        assert done.returncode == 0, done.stderr
        found = {layer.name for layer in tfcnn.load_model(tmp_path / name / "release").layers}
        assert found & {"box_flatten", "box_mean"} == layers


@pytest.mark.parametrize(
    "form, boxes",
    [
        (
            ["--attach=fc", "--per_class"],
            5,
        ),  # shapes has five classes: a guess each, each with a box of its own
        (["--objects=2", "--order=matched"], 2),
        (["--attach=rpn"], 5),
    ],
)
def test_every_form_of_the_head_is_trained_and_used(run_app, tmp_path, form, boxes):
    flags = [*FLAGS[:4], "--classifier_epochs=1", "--steps=4", *FLAGS[6:], *form]
    flags += [f"--output_dir={tmp_path / 'net'}"]
    done = run_app("train_localizer", *flags)
    assert done.returncode == 0, done.stderr
    picture = datasets.open("shapes", split="val").examples[1].image()
    Image.fromarray(np.repeat(picture, 2, axis=1)).save(tmp_path / "wide.png")
    model = f"--model={tmp_path / 'net' / 'release'}"
    done = run_app("localize", tmp_path / "wide.png", model, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    (entry,) = results(tmp_path / "out")["images"]
    found = np.array([each["box"] for each in entry["guesses"]])
    assert found.shape == (boxes, 4) and (found >= 0).all()
    assert len(np.unique(found, axis=0)) == boxes  # a box a class or an object, not one for all
    assert (found[:, 2:] <= [entry["width"], entry["height"]]).all()
    if "--attach=rpn" in form:
        slid = run_app("overfeat", tmp_path / "wide.png", model, f"--output_dir={tmp_path / 'slid'}")
        assert slid.returncode == 0 and results(tmp_path / "slid")["images"][0]["merged"], slid.stderr


def test_localize_gives_guesses_in_the_files_pixels(run_app, trained, tmp_path):
    _, folder = trained
    picture = datasets.open("shapes", split="val").examples[1].image()
    Image.fromarray(np.repeat(picture, 2, axis=1)).save(tmp_path / "wide.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out"
    model = f"--model={folder / 'release'}"
    done = run_app(
        "localize", tmp_path / "wide.png", tmp_path / "broken.png", model, "--top=3", f"--output_dir={out}"
    )
    assert done.returncode == 1 and "broken.png" in done.stderr
    found = results(out)
    (entry,) = found["images"]
    assert [each["file"].rpartition("/")[2] for each in found["refused"]] == ["broken.png"]
    assert (entry["width"], entry["height"]) == (320, 160)
    assert len(entry["guesses"]) == 3
    scores = [guess["score"] for guess in entry["guesses"]]
    assert scores == sorted(scores, reverse=True)
    for guess in entry["guesses"]:
        assert set(guess) == {"index", "label", "score", "box"}
        assert datasets.open("shapes").classes[guess["index"]] == guess["label"]
        x1, y1, x2, y2 = guess["box"]
        assert 0 <= x1 <= x2 <= 320 and 0 <= y1 <= y2 <= 160
    assert Image.open(out / entry["picture"]).size == (320, 160)
    Image.fromarray(picture[::4, ::2]).save(tmp_path / "small.png")  # 80 x 40: drawn four times as large
    done = run_app("localize", tmp_path / "small.png", model, f"--output_dir={tmp_path / 'small'}")
    (small,) = results(tmp_path / "small")["images"]
    assert Image.open(tmp_path / "small" / small["picture"]).size == (320, 160)
    assert (small["width"], small["height"]) == (80, 40) and max(small["guesses"][0]["box"]) <= 80
    listed = json.loads((out / "detections.json").read_text())
    assert [(each["image_id"], each["category_id"]) for each in listed] == [
        ("wide", guess["index"] + 1) for guess in entry["guesses"]
    ]


def tiny_imagenet(path, synsets):
    """A data set of two pictures in Tiny ImageNet's layout, of the classes of shapes."""
    png = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(png, "JPEG")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("wnids.txt", "\n".join(synsets))
        file.writestr("words.txt", "".join(f"{s}\t{c}\n" for s, c in synsets.items()))
        lines = ""
        for number, synset in enumerate(list(synsets)[:2]):
            file.writestr(f"val/images/val_{number}.JPEG", png.getvalue())
            lines += f"val_{number}.JPEG\t{synset}\t0\t0\t31\t63\n"
        file.writestr("val/val_annotations.txt", lines)


def test_evaluate_measures_a_localizer_by_imagenets_rule(run_app, trained, tmp_path):
    _, folder = trained
    names = datasets.open("shapes").classes
    tiny_imagenet(tmp_path / "tiny.zip", {f"n{i:08d}": name for i, name in enumerate(names)})
    out = tmp_path / "out"
    done = run_app(
        "evaluate",
        "--dataset=tiny_imagenet",
        f"--data={tmp_path / 'tiny.zip'}",
        f"--model={folder / 'release'}",
        f"--output_dir={out}",
    )
    assert done.returncode == 0, done.stderr
    found = results(out)
    figures = found["metrics"]["tiny_imagenet"]
    assert figures["top5_cls"] == 0 and figures["top1_cls"] >= 0.5  # both pictures get the same answer
    assert [len(entry["guesses"]) for entry in found["images"]] == [5, 5]


@pytest.mark.parametrize(("app", "found"), [("localize", "guesses"), ("pose", "persons")])
def test_a_release_looks_at_a_packaged_photograph_where_nothing_is_named(run_app, tmp_path, app, found):
    done = run_app(app, "--limit=1", "--save_images=false", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (entry,) = results(tmp_path)["images"]
    assert pathlib.Path(entry["file"]).stem == "chelsea" and entry[found]


@pytest.mark.parametrize(
    "app, flags, message",
    [
        ("localize", ["--model="], "--model is missing"),
        ("localize", ["--model=digits"], "digits is a classifier, no localizer"),
        ("localize", ["--model={release}", "--resize=crop"], "--resize=crop"),
        ("localize", ["--model={release}", "--image_size=96"], "takes pictures of 64 pixels"),
        ("evaluate", ["--dataset=voc", "--data=x", "--results=x.json", "--flip"], "--flip is for detectors"),
        ("train_localizer", ["--dataset=digits"], "digits data set has no boxes"),
        ("train_localizer", ["--dataset=shapes", "--hidden=-3"], "--hidden=-3"),
        (
            "train_localizer",
            ["--dataset=shapes", "--init={release}", "--image_size=96"],
            "reads pictures of 64 pixels; flags of a head, e.g. --attach=conv, give it a new one",
        ),
        ("train_localizer", ["--dataset=shapes", "--net=tiny", "--objects=2", "--per_class"], "objects=2"),
        (
            "train_localizer",
            ["--dataset=shapes", "--attach=rpn", "--per_place"],
            "--per_place belongs to a box head",
        ),
        (
            "train_localizer",
            ["--dataset=shapes", "--attach=rpn", "--loss=giou"],
            "--loss belongs to a box head",
        ),
        ("train_localizer", ["--dataset=shapes", "--order=matched"], "--order=matched is for several boxes"),
        (
            "train_localizer",
            ["--dataset=shapes", "--init={release}", "--net=alexnet"],
            "--net=alexnet: --init=",
        ),
        (
            "train_localizer",
            ["--dataset=shapes", "--init={release}", "--weights=none"],
            "--weights: those of --init=",
        ),
        ("localize", ["--model={release}", "--weights=none"], "--weights is not for a localizer"),
        ("train_localizer", ["--dataset=shapes", "--attach=fc", "--per_place"], "per_place would read"),
        (
            "evaluate",
            ["--dataset=imagenet_det", "--data=x", "--model={release}"],
            "measured on imagenet_loc, tiny_imagenet, voc, coco, yolo, not on imagenet_det",
        ),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(run_app, trained, tmp_path, app, flags, message):
    flags = [flag.format(release=trained[1] / "release") for flag in flags]
    done = run_app(app, *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()
