"""segment as a person runs it: a mask of the file's size, a box, a cut-out."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from tfcnn import images
from tfcnn.evaluation.pointing import mask_iou

layers = keras.layers


COMMA = "cat, tame"  # a class whose name has a comma


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier of 32 px: class 1 is how much redder than green the picture is, as a file."""
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(1, 1, use_bias=False, activation="relu", name="red")(image)
    x = layers.Dense(2, activation="softmax", use_bias=False)(layers.GlobalAveragePooling2D()(x))
    net = keras.Model(image, x)
    net.set_weights([np.float32([[[[1], [-1], [0]]]]), np.float32([[-1, 1]])])
    path = tmp_path_factory.mktemp("model") / "red.keras"
    net.save(path)
    return path


@pytest.fixture(scope="module")
def run(run_app, model, tmp_path_factory):
    """A red disk on green of 90 x 120 pixels: (process, output_dir, mask)."""
    out = tmp_path_factory.mktemp("segment")
    rows, columns = np.mgrid[:90, :120]
    mask = (rows - 40) ** 2 + (columns - 70) ** 2 <= 25**2
    noise = np.random.default_rng(0).normal(0, 15, (90, 120, 3))
    picture = np.where(mask[..., None], [190, 60, 50], [60, 150, 70]) + noise
    images.write(out / "disk.png", picture)
    return run_app("segment", out / "disk.png", f"--model={model}", f"--output_dir={out}"), out, mask


def test_mask_box_and_cut_out(run):
    done, out, mask = run
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((out / "results.json").read_text())["images"]
    assert entry["class"]["index"] == 1 and entry["method"] == "smoothgrad"
    made = images.read(out / entry["mask"])
    assert made.shape == (90, 120, 3) and set(np.unique(made)) == {0, 255} and entry["mask"].endswith(".png")
    assert mask_iou(made[..., 0] > 0, mask) > 0.9
    assert np.abs(np.array(entry["box"]) - [45, 15, 96, 66]).max() <= 3
    x1, y1, x2, y2 = map(int, entry["box"])
    assert images.read(out / entry["picture"]).shape == (y2 - y1, x2 - x1, 3)
    assert entry["share"] == pytest.approx((made[..., 0] > 0).mean())


def test_other_seeds_a_channel_and_wrong_commands(run, run_app, model, tmp_path):
    picture = run[1] / "disk.png"
    flags = ["--layer=red", "--channel=0", "--method=gradient_x_input", "--seeds=paper"]
    done = run_app("segment", picture, f"--model={model}", *flags, f"--output_dir={tmp_path / 'a'}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "a" / "results.json").read_text())["images"]
    assert mask_iou(images.read(tmp_path / "a" / entry["mask"])[..., 0] > 0, run[2]) > 0.9
    for flags, word in (
        (["--seeds=best"], "otsu"),
        (["--class=0,1"], "2 classes"),
        (["--channel=1"], "--layer"),
    ):
        wrong = run_app("segment", picture, f"--model={model}", *flags, f"--output_dir={tmp_path / 'none'}")
        assert wrong.returncode == 2 and word in wrong.stderr and not (tmp_path / "none").exists()


def test_an_even_picture_is_refused_by_name(run_app, model, tmp_path):
    images.write(tmp_path / "grey.png", np.full((40, 40, 3), 90, np.uint8))
    done = run_app("segment", tmp_path / "grey.png", f"--model={model}", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "grey.png" in done.stderr and "same everywhere" in done.stderr
    assert not list((tmp_path / "out").glob("*mask*"))


def test_a_data_set_without_files_is_measured_and_one_without_masks_refused(run_app, model, tmp_path):
    """The reader of drawn shapes has no files; that of digits no masks."""
    flags = [f"--model={model}", "--limit=2", "--save_images=false"]
    done = run_app("segment", *flags, "--dataset=shapes", "--split=val", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(report["images"]) == report["metrics"]["images"] == 2 and report["refused"] == []
    assert all(0 <= entry["iou"] <= 1 and "mask" not in entry for entry in report["images"])
    for more, word in (
        (["--dataset=digits", "--split=test"], "no picture has one object of any class, with a mask"),
        (["--dataset=voc", "--split=val"], "--data"),
        (["--dataset=voc", f"--data={tmp_path / 'nowhere'}", "--split=val"], "nowhere"),
    ):
        wrong = run_app("segment", *flags, *more, f"--output_dir={tmp_path / 'none'}")
        (line,) = wrong.stderr.strip().splitlines()
        assert wrong.returncode == 2 and word in line and not (tmp_path / "none").exists(), line


def test_masks_of_a_data_set_are_measured(run, run_app, model, tmp_path):
    """The disk is the one object of its picture; a picture of two objects has no single right mask, and is left out."""
    _, out, mask = run
    voc = tmp_path / "voc"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main", "SegmentationObject"):
        (voc / part).mkdir(parents=True)
    (voc / "ImageSets/Main/val.txt").write_text("disk\ntwo\nbad\n")
    box = "<bndbox><xmin>46</xmin><ymin>16</ymin><xmax>96</xmax><ymax>66</ymax></bndbox>"
    one = f"<object><name>{{}}</name>{box}</object>"
    for name, objects in (("disk", [COMMA]), ("two", [COMMA, "dog"]), ("bad", [COMMA])):
        drawn = "".join(one.format(each) for each in objects)
        size = "<size><width>120</width><height>90</height><depth>3</depth></size>"
        (voc / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{drawn}</annotation>")
        images.write(voc / f"JPEGImages/{name}.png", images.read(out / "disk.png"))
        Image.fromarray(mask.astype(np.uint8)).save(voc / f"SegmentationObject/{name}.png")
    (voc / "JPEGImages/bad.png").write_bytes(b"no picture")
    data = [f"--model={model}", "--dataset=voc", f"--data={voc}", "--split=val", "--save_images=false"]
    done = run_app("segment", *data, f"--objects={COMMA},dog", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "bad" in done.stderr and "mean IoU" in done.stderr, done.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    (entry,) = report["images"]
    found = images.read(out / json.loads((out / "results.json").read_text())["images"][0]["mask"])[..., 0] > 0
    assert entry["iou"] == pytest.approx(mask_iou(found, mask)) and entry["width"] == 120
    assert report["metrics"] == {"mean_iou": entry["iou"], "images": 1}
    for flags, word in (
        (["--split=val"], "--split belongs to --dataset"),
        ([*data[1:], out / "disk.png"], "two inputs"),
        ([*data[1:], "--objects=cta"], "cat"),
        ([*data[1:], "--objects=dog"], "no picture has one object of dog"),
    ):
        wrong = run_app("segment", f"--model={model}", *flags, f"--output_dir={tmp_path / 'none'}")
        assert wrong.returncode == 2 and word in wrong.stderr and not (tmp_path / "none").exists(), (
            wrong.stderr
        )
