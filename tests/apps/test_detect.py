"""detect, and evaluate of a model, as a person runs them: a release on a packaged photograph."""

import json

import pytest

from tfcnn import images

CAT = (0, 0, 433, 298)  # in the packaged cat of 451 x 300


@pytest.fixture(scope="module")
def cat():
    return images.packaged()[0].path


@pytest.fixture(scope="module")
def halved(cat, tmp_path_factory):
    """A VOC set of the cat alone, whose picture was halved after its annotation."""
    root = tmp_path_factory.mktemp("voc") / "VOC2007"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    images.write(root / "JPEGImages" / "cat.jpg", images.read(cat))
    x1, y1, x2, y2 = (2 * side for side in CAT)
    box = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    size = "<size><width>902</width><height>600</height><depth>3</depth></size>"
    thing = f"<object><name>cat</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"
    (root / "Annotations" / "cat.xml").write_text(f"<annotation>{size}{thing}</annotation>")
    (root / "ImageSets/Main/val.txt").write_text("cat\n")
    return root


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("app", ["detect", "evaluate"])
def test_labels_that_are_not_there_are_one_line_before_a_model_is_opened(run_app, halved, tmp_path, app):
    data = ["--dataset=voc", f"--data={halved}"] if app == "evaluate" else []
    (tmp_path / "no.keras").write_bytes(b"no model")
    flags = [f"--model={tmp_path / 'no.keras'}", "--labels=missing.txt", f"--output_dir={tmp_path / 'out'}"]
    done = run_app(app, *data, *flags)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "--labels=missing.txt" in done.stderr and not (tmp_path / "out").exists()


def test_labels_of_another_number_are_said_with_their_file_before_a_model_is_opened(run_app, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    flags = [
        "--model=faster_rcnn_voc",
        f"--labels={tmp_path / 'names.txt'}",
        f"--output_dir={tmp_path / 'out'}",
    ]
    done = run_app("detect", *flags)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == f"detect: --labels={tmp_path / 'names.txt'} has 2 names, and there are 20 classes\n"


@pytest.mark.parametrize("app", ["detect", "evaluate", "train_detector", "hog_detector"])
def test_longest_without_fit_is_one_line(run_app, halved, tmp_path, app):
    data = ["--dataset=voc", f"--data={halved}"] if app in ("evaluate", "train_detector") else []
    model = ["--model=faster_rcnn_voc"] if app in ("detect", "evaluate") else []
    resize = ["--resize=letterbox"] if app == "hog_detector" else []  # its release was trained with fit
    done = run_app(app, *data, *model, *resize, "--longest=500", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    how = "letterbox" if resize else "stretch"
    assert done.stderr == (
        f"{app}: --longest is for --resize=fit, and pictures are brought to their size by {how} here\n"
    )


def test_fit_finds_the_cat_at_its_own_shape(run_app, cat, tmp_path):
    flags = ["--resize=fit", "--image_size=300", "--longest=400", "--max_detections=1"]
    done = run_app("detect", cat, "--model=faster_rcnn_voc", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (found,) = results(tmp_path)["images"][0]["detections"]
    assert found["label"] == "cat" and found["score"] > 0.9
    assert max(abs(a - b) for a, b in zip(found["box"], CAT, strict=True)) < 40


def test_pictures_halved_after_their_annotation_are_measured_in_its_pixels(run_app, halved, tmp_path):
    flags = ["--dataset=voc", f"--data={halved}", "--model=faster_rcnn_voc", "--resize=fit"]
    done = run_app("evaluate", *flags, "--image_size=300", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)["metrics"]["voc"]["map_11"] == pytest.approx(1.0)
    assert "the picture is 451x300, its annotation says 902x600" in done.stderr
