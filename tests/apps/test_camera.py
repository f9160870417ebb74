"""--camera of detect and activations, with OpenCV's capture replaced: frames, their end, Ctrl-C, none at all."""

import json
import pathlib
import re

import pytest

from tfcnn.video import open_video

HERE = pathlib.Path(__file__).resolve().parent
DETECT = ["apps.detect", "--model=fast_yolo_voc", "--score_threshold=0.3"]
ACTIVATIONS = ["apps.activations", "--model=digits", "--layer=relu1", "--port=0"]


@pytest.fixture
def run(warm, tmp_path):
    """A function from a command to (process, output_dir), with cameras of fake_camera.py."""

    def run(*command):
        done = warm.run(
            "fake_camera",
            [*command, f"--output_dir={tmp_path / 'out'}"],
            HERE,
            {"PYTHONPATH": str(HERE.parents[1])},
            900,
        )
        return done, tmp_path / "out"

    return run


def checked(out, film, frames):
    """The run's entry of the camera, and the film read back: it has every frame at the camera's own size."""
    (entry,) = json.loads((out / "results.json").read_text())["images"]
    assert entry["file"] == "camera" + re.search(r"\d", film)[0] and entry["frames"] == frames
    assert (entry["width"], entry["height"]) == (451, 300) and entry["frames_per_second"] > 0
    assert entry["picture"] == film
    with open_video(out / film) as made:
        assert len(list(made)) == frames and made.rate == 25  # a camera that does not say how fast it is
    return entry


@pytest.mark.parametrize(("camera", "status", "flags", "frames"), [(0, 0, ["--limit=2"], 2), (1, 130, [], 3)])
def test_detect_writes_what_a_camera_showed_until_limit_or_ctrl_c(run, camera, status, flags, frames):
    done, out = run(*DETECT, f"--camera={camera}", *flags)
    assert done.returncode == status, done.stderr
    entry = checked(out, f"camera{camera}_detected.mp4", frames)
    assert [[one["label"] for one in found] for found in entry["detections"]] == [["cat"], [], ["cat"]][
        :frames
    ]
    rows = json.loads((out / "detections.json").read_text())
    assert [row["image_id"] for row in rows] == [f"camera{camera}_{n:06d}" for n in range(0, frames, 2)]
    assert json.loads((out / "categories.json").read_text())[7]["name"] == "cat"
    assert f"camera {camera} released" in done.stdout
    assert ("stopped by Ctrl-C" in done.stderr) == bool(status)
    row = re.search(rf"camera{camera} +{frames} frames +([\d.]+) frames/s", done.stdout)
    assert row and float(row[1]) == entry["frames_per_second"], done.stdout


def test_activations_films_a_camera(run):
    done, out = run(*ACTIVATIONS, "--camera=0")
    assert done.returncode == 0, done.stderr
    entry = checked(out, "camera0_activations.mp4", 3)
    assert "http://127.0.0.1:" in done.stderr
    row = re.search(r"camera0 +3 +([\d.]+)", done.stdout)
    assert row and float(row[1]) == entry["frames_per_second"], done.stdout


@pytest.mark.parametrize("app", ["detect", "activations"])
def test_a_camera_that_is_not_there_is_one_line(run_app, app, tmp_path):
    """OpenCV itself is asked, which has sentences of its own about it."""
    done = run_app(app, "--camera=97", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.startswith(f"{app}: camera 97 cannot be opened") and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_camera_without_a_frame_is_refused_by_its_name(run):
    done, out = run(*DETECT, "--camera=2")
    assert done.returncode == 1 and "camera2: not one frame of it could be read" in done.stderr, done.stderr
    assert not list(out.glob("*.mp4")) and json.loads((out / "detections.json").read_text()) == []
