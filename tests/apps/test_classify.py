"""classify as a person runs it, and its arithmetic by hand."""

import json

import keras
import numpy as np
import pytest

from apps import classify
from tfcnn import images
from tfcnn.backbones import classifier
from tfcnn.backbones.imagenet import class_names

PHOTOS = {"chelsea.png": 282, "coffee.png": 967, "rocket.jpg": 0}  # the last is no tench


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photographs, a damaged one, and labels of the three in a CSV with columns of its own."""
    folder = tmp_path_factory.mktemp("in")
    lines = ["class_index,name,file"]
    for source in images.packaged():
        if source.name in PHOTOS:
            (folder / source.name).write_bytes(source.open())
            lines.append(f"{PHOTOS[source.name]},x,{source.name}")
    (folder / "damaged.jpg").write_bytes((folder / "rocket.jpg").read_bytes()[:5000])
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(run_app, photos, tmp_path_factory):
    """classify of the three with their truth: (process, its results)."""
    out = tmp_path_factory.mktemp("classify")
    done = run_app(
        "classify", photos, f"--truth={photos / 'labels.csv'}", "--batch_size=2", f"--output_dir={out}"
    )
    return done, json.loads((out / "results.json").read_text())


def test_photographs_are_named_as_the_net_itself_names_them(run, photos):
    done, report = run
    assert done.returncode == 1 and "damaged.jpg" in done.stderr
    assert report["net"] == "efficientnet_lite0"
    net = classifier("efficientnet_lite0")
    for entry in report["images"]:
        seen, _ = images.resize(images.read(entry["file"]), 224, "crop")
        scores = np.array(net(seen[None].astype(np.float32))["scores"])[0]
        best = entry["predictions"]
        assert [p["index"] for p in best] == np.argsort(-scores)[:5].tolist()
        assert np.allclose([p["score"] for p in best], np.sort(scores)[::-1][:5], atol=1e-4)
        assert all((p["synset"], p["label"]) == class_names()[p["index"]] for p in best)
    assert report["images"][0]["predictions"][0]["label"] == "tiger cat"


def test_metrics_are_those_of_the_truth(run):
    _, report = run
    metrics = report["metrics"]
    assert metrics["images"] == 3 and metrics["top1"] == metrics["top5"] == pytest.approx(2 / 3)
    assert metrics["per_class"]["tiger cat"] == {"index": 282, "images": 1, "top1": 1.0, "top5": 1.0}
    assert metrics["confusions"] == [{"truth": "tench", "predicted": "missile", "count": 1}]
    assert report["images_per_second"] > 0


def test_standard_output_is_a_table_and_where_the_files_are(run):
    done, _ = run
    lines = done.stdout.strip().splitlines()
    assert any(line.startswith("top-1") and "66.7%" in line for line in lines)
    assert lines[-1].startswith("3 done, 1 refused") and "index.html" in lines[-1]
    assert all(
        line.startswith("classify: ") for line in done.stderr.strip().splitlines()
    )  # and none of TensorFlow


def test_litert_gives_the_same_scores(run, run_app, photos, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
    names = [photos / name for name in PHOTOS]
    done = run_app("classify", *names, "--runtime=litert", f"--output_dir={tmp_path}", "--quiet")
    assert done.returncode == 0 and "classify:" not in done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    for ours, theirs in zip(report["images"], run[1]["images"], strict=True):
        assert ours["file"] == theirs["file"]
        assert ours["predictions"][0]["index"] == theirs["predictions"][0]["index"]
        assert ours["predictions"][0]["score"] == pytest.approx(theirs["predictions"][0]["score"], abs=1e-3)


def test_a_model_of_ones_own_with_labels_slides_over_the_picture(run_app, photos, tmp_path):
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    head = keras.layers.Dense(3, activation="softmax", name="head")
    model = keras.Model(image, head(x))
    head.set_weights([np.eye(3, dtype=np.float32) / 20, np.zeros(3, np.float32)])  # the strongest colour
    model.save(tmp_path / "colours.keras")
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    left_red = np.zeros((64, 128, 3), np.uint8)
    left_red[:, :64, 0], left_red[:, 64:, 2] = 250, 60
    images.write(tmp_path / "two.png", left_red)
    images.write(tmp_path / "strip.png", np.zeros((1, 2000, 3), np.uint8))
    own = [f"--model={tmp_path / 'colours.keras'}", f"--labels={tmp_path / 'names.txt'}", "--dense"]
    own += [tmp_path / "strip.png", tmp_path / "two.png", "--max_pixels=100000"]
    done = run_app("classify", *own, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "37 pixels it is 74000x37, above --max_pixels=100000" in done.stderr
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    assert entry["predictions"][0]["label"] == "red" and len(entry["predictions"]) == 3
    assert entry["picture"] == "two_map.png" and entry["files"] == ["two_map.png"]
    shown = images.read(tmp_path / "out" / "two_map.png").astype(float).mean(axis=(0, 2))
    assert shown[: len(shown) // 3].mean() > shown[-len(shown) // 3 :].mean() + 60


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--net=efficientnet"], ["efficientnet_lite0", "nearest", "--list_nets"]),
        (["--preprocessing=resnet50"], ["--model"]),
        (["--dense", "--runtime=litert"], ["--dense"]),
        (["--dense", "--resize=stretch"], ["--resize: with --dense"]),
        (["--dense", "--batch_size=8"], ["--batch_size: with --dense"]),
    ],
)
def test_wrong_commands_are_status_2(run_app, tmp_path, flags, words):
    done = run_app("classify", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in words)


def test_accuracy_by_hand():
    classes = [("s0", "cat"), ("s1", "crane"), ("s2", "crane"), ("s3", "dog")]
    ranks = [(0, 0, 0), (0, 3, 1), (0, 3, 5), (1, 1, 0), (2, 3, 4)]  # truth, predicted, rank of the truth
    metrics = classify.accuracy(ranks, classes)
    assert metrics["top1"] == 2 / 5 and metrics["top5"] == 4 / 5 and metrics["images"] == 5
    assert metrics["per_class"]["cat"] == {"index": 0, "images": 3, "top1": 1 / 3, "top5": 2 / 3}
    assert metrics["per_class"]["crane (s1)"]["top1"] == 1 and metrics["per_class"]["crane (s2)"]["top5"] == 1
    assert metrics["confusions"] == [
        {"truth": "cat", "predicted": "dog", "count": 2},
        {"truth": "crane (s2)", "predicted": "dog", "count": 1},
    ]
    assert classify.accuracy([], classes)["top1"] is None


def test_a_pixel_of_the_map_is_the_mean_of_the_windows_that_see_it():
    shown = classify.over_windows(np.array([[0.0, 1.0]]), np.full((4, 6, 3), 128, np.uint8), 4)
    grey = shown[0].astype(float).mean(-1)
    assert grey[0] == grey[1] < grey[2] == grey[3] < grey[4] == grey[5]
