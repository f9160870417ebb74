"""train_classifier as a person runs it: on the packaged digits, and on a folder of a few pictures."""

import hashlib
import json
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

FLAGS = ["--net=tiny", "--steps=135", "--image_size=32", "--validate_epochs=1", "--quiet"]


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "out"
    return run_app("train_classifier", *FLAGS, f"--output_dir={folder}"), folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_digits_are_learned_and_released(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["validation", "step", "top-1", "top-5", "loss"] and len(lines) == 5
    assert lines[-1] == f"see {folder / 'index.html'}"
    found = results(folder)
    assert found["steps"] == 135 and found["skipped_steps"] == 0 and found["images"] == []
    assert found["images_per_second"] > 10 and 0 <= found["waiting"] < 1
    assert found["metrics"]["best"]["top1"] > 0.8
    assert [line["step"] for line in log(folder) if "validation" in line] == [45, 90, 135]
    card = json.loads((folder / found["release"] / "card.json").read_text())
    assert card["classes"] == list("0123456789") and card["metrics"] == found["metrics"]
    assert card["command"].startswith("python -m apps.train_classifier ") and "--steps=135" in card["command"]
    assert "output_dir" not in card["command"]
    file = folder / found["release"] / "model.keras"
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["bytes"] == file.stat().st_size < 1e6
    assert Image.open(folder / "first_batch.png").size[0] > 100
    assert found["files"] == ["first_batch.png", "answers.png"]


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_release_answers_as_its_card_says(trained):
    from tfcnn import datasets, images, load_model

    _, folder = trained
    model = load_model(folder / "release")
    digits = datasets.open("digits", split="test").examples
    pictures = np.stack([images.resize(record.image(), 32)[0] for record in digits]).astype(np.float32)
    right = model.predict(pictures, verbose=0)["scores"].argmax(1) == [record.label for record in digits]
    assert right.mean() == pytest.approx(results(folder)["metrics"]["best"]["top1"], abs=0.006)


def test_a_finished_run_trains_nothing_more_and_another_command_is_refused(run_app, trained):
    _, folder = trained
    before = (folder / "results.json").read_text()
    again = run_app("train_classifier", *FLAGS, f"--output_dir={folder}")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    other = run_app("train_classifier", *FLAGS, "--learning_rate=0.5", f"--output_dir={folder}")
    assert other.returncode == 2 and "--learning_rate=0.5 here" in other.stderr
    assert (folder / "results.json").read_text() == before


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """Ten pictures of stripes a class: upright, or lying; and one that is cut off, for training."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, axis in (("lying", 0), ("upright", 1)):
        (root / name).mkdir()
        for k in range(10):
            wave = np.sin(np.arange(48) * rng.uniform(0.4, 0.9) + rng.uniform(0, 6))
            grey = np.broadcast_to(np.expand_dims(wave, 1 - axis), (48, 48)) * 100 + 128
            picture = grey[..., None] + rng.normal(0, 10, (48, 48, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / name / f"{k}.png")
    whole = (root / "lying/0.png").read_bytes()
    (root / "lying/cut.png").write_bytes(whole[: len(whole) // 2])
    return root


def assert_the_cut_one_is_refused(done, folder):
    """Its status is that of an app that refused some of its inputs, and did the others."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("refused lying/cut.png") == 1
    (entry,) = results(folder)["refused"]
    assert entry["file"] == "lying/cut.png" and results(folder)["finished"]


def test_a_release_is_fine_tuned_on_a_folder_of_ones_own(run_app, two_classes, tmp_path):
    done = run_app(
        "train_classifier",
        *["--dataset=folder", f"--data={two_classes}", "--init=digits", "--net=tiny"],
        *[
            "--image_size=32",
            "--steps=60",
            "--batch_size=9",
            "--freeze=conv2",
            "--accumulate=2",
            "--augment=none",
            "--precision=mixed_float16",
        ],
        *["--validate_epochs=0", "--checkpoint_minutes=0", f"--output_dir={tmp_path / 'out'}"],
    )
    assert_the_cut_one_is_refused(done, tmp_path / "out")
    assert "19 pictures of 2 classes to train on, 2 to validate" in done.stderr
    found = results(tmp_path / "out")
    assert found["metrics"]["last"]["top1"] == 1.0
    from tfcnn import load_model

    old, new = load_model("digits"), load_model(tmp_path / "out/release")
    moved = {
        layer.name
        for layer in new.layers
        if layer.weights and layer.name != "logits"
        for a, b in zip(layer.get_weights(), old.get_layer(layer.name).get_weights(), strict=True)
        if not np.array_equal(a, b)
    }
    assert moved == {"conv3", "conv4", "conv5"}  # below is frozen, and so is batch norm


def test_the_last_layer_is_trained_on_cached_features(run_app, trained, two_classes, tmp_path):
    flags = ["--dataset=folder", f"--data={two_classes}", f"--init={trained[1]}/release", "--net=tiny"]
    flags += [
        "--image_size=32",
        "--steps=80",
        "--batch_size=6",
        "--learning_rate=0.01",
        "--validate_epochs=0",
    ]
    flags += [f"--cache_features={tmp_path / 'features'}", "--precision=mixed_bfloat16"]
    done = run_app("train_classifier", *flags, f"--output_dir={tmp_path / 'out'}")
    assert_the_cut_one_is_refused(done, tmp_path / "out")
    assert results(tmp_path / "out")["metrics"]["last"].keys() == {"step", "top1", "loss"}
    assert "The features of 19 pictures take" in done.stderr
    losses = [line["losses"]["softmax"] for line in log(tmp_path / "out") if "losses" in line]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    stale = run_app("train_classifier", *flags, "--image_size=48", f"--output_dir={tmp_path / 'other'}")
    assert stale.returncode == 2 and "are stale: other layers and size" in stale.stderr


def test_a_class_whose_name_is_a_number_is_found_by_its_name(run_app, tmp_path):
    """Folders 1 to 12: --classes=2,10 are the classes of these names, not those of index 2 and 10."""
    for number in range(1, 13):
        (tmp_path / f"data/{number}").mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (20, 20), (20 * number, 0, 60 * k)).save(tmp_path / f"data/{number}/{k}.png")
    flags = ["--dataset=folder", f"--data={tmp_path / 'data'}"]
    flags += ["--classes=2,10", "--steps=1", "--image_size=32", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("train_classifier", *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/release/card.json").read_text())["classes"] == ["2", "10"]
    assert done.stderr.count("class 2 is the one of that name") == 1


def test_a_run_whose_data_changed_is_not_gone_on_with(run_app, two_classes, tmp_path):
    flags = ["--dataset=folder", "--data=data", "--steps=2", "--image_size=32", "--batch_size=4"]
    shutil.copytree(two_classes, tmp_path / "data")
    assert run_app("train_classifier", *flags, "--output_dir=out", cwd=tmp_path).returncode == 1
    before = (tmp_path / "out/results.json").read_text()
    (tmp_path / "data/upright").rename(tmp_path / "data/standing")
    done = run_app("train_classifier", *flags, "--output_dir=out", cwd=tmp_path)
    assert done.returncode == 2 and "holds a finished run on other data (training " in done.stderr
    assert (tmp_path / "out/results.json").read_text() == before
    (tmp_path / "out/results.json").unlink()  # as if it had been killed
    done = run_app("train_classifier", *flags, "--output_dir=out", cwd=tmp_path)
    assert done.returncode == 2
    assert "class upright is gone, class standing is new" in done.stderr
    assert not (tmp_path / "out/results.json").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset=folder", "--data=/nowhere"], "/nowhere"),
        (["--dataset=birds"], "unknown --dataset 'birds'; the nearest are"),
        (["--classes=1"], "at least 2 are needed"),
        (["--augment=fliip"], "the nearest are"),
        (["--epochs=1", "--steps=1"], "give one of them"),
        (["--init=nothing"], "--init=nothing is no release"),
        (["--init=digits", "--net=tiny", "--weights=none"], "--init and --weights"),
        (["--rate_drops=5"], "--rate_drops is for --schedule=steps, and this is --schedule=cosine"),
        (["--steps=0"], "--steps"),
        (["--freeze=*"], "nothing is left to train"),
        (["--labels=names.txt"], "--labels=names.txt: No such file"),
        (["--init=digits", "--net=all_cnn_c"], "conv1 is 3x3x3x16 in the file and 3x3x3x96 + 96 in the net"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_wrong_command_is_said_in_a_line_and_nothing_is_written(run_app, tmp_path, flags, message):
    done = run_app("train_classifier", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_weights_of_darknet_are_no_classifier(run_app, tmp_path):
    (tmp_path / "yolo.weights").write_bytes(struct.pack("<4i", 0, 1, 0, 0))
    done = run_app("train_classifier", "--init=yolo.weights", cwd=tmp_path)
    assert done.returncode == 2 and "--init=yolo.weights is a YOLO of darknet" in done.stderr
    assert not (tmp_path / "out").exists()
