"""deepdream as a person runs it: pictures of several modes, a guide, a film, tiles, and what it refuses."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tfcnn import images

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures with alpha, with a palette, and one that is too small for two octaves."""
    place = tmp_path_factory.mktemp("pictures")
    colours = RANDOM.integers(0, 255, (6, 8, 3), np.uint8)
    large = Image.fromarray(colours).resize((120, 90), Image.Resampling.BICUBIC)
    large.convert("RGBA").save(place / "alpha.png")
    large.convert("P").save(place / "palette.gif")
    large.resize((40, 20)).save(place / "small.png")
    large.save(place / "guide.jpg")
    return place


@pytest.fixture(scope="module")
def run(run_app, folder):
    """A guided dream with a film, in tiles: (process, output_dir, results)."""
    out = folder / "out"
    done = run_app(
        "deepdream",
        *(folder / name for name in ("alpha.png", "palette.gif", "small.png")),
        "--octave_n=2",
        "--steps=3",
        f"--guide={folder / 'guide.jpg'}",
        "--frames=2",
        "--tile_size=64",
        "--layer=block3_expand_conv,stage2",
        "--layer_weights=1,2",
        f"--output_dir={out}",
    )
    return done, out, json.loads((out / "results.json").read_text())


def test_entries_pictures_and_films(run):
    done, out, report = run
    assert done.returncode == 1, done.stderr
    assert [entry["file"].rsplit("/")[-1] for entry in report["images"]] == ["alpha.png", "palette.gif"]
    for entry in report["images"]:
        stem = entry["file"].rsplit("/")[-1].split(".")[0]
        assert entry["picture"] == f"{stem}_dream.png"
        assert entry["files"] == [
            f"{stem}_{k}" for k in ("dream.png", "zoom.mp4", "zoom.gif", "last_frame.png")
        ]
        assert images.read(out / entry["picture"]).shape == (90, 120, 3)
        assert [e["step"] for e in entry["history"]] == list(range(1, 7))
        assert [e["octave"] for e in entry["history"]] == [1, 1, 1, 2, 2, 2]
        for each in [*entry["history"], entry["final"]]:
            terms = each["guide block3_expand_conv"] + each["guide stage2"]
            assert each["value"] == pytest.approx(terms, rel=1e-5)
        assert entry["octaves"][1]["after"] > entry["octaves"][1]["before"]
        assert entry["frames"] == 2 and entry["layers"] == {"block3_expand_conv": 1.0, "stage2": 2.0}
        film = cv2.VideoCapture(str(out / f"{stem}_zoom.mp4"))
        assert [film.read()[0] for _ in range(3)] == [True, True, False]


def test_a_picture_too_small_is_refused_with_what_would_do(run):
    done, out, report = run
    assert [file["file"].rsplit("/")[-1] for file in report["refused"]] == ["small.png"]
    assert "40x20 pixels has no 2 octaves" in report["refused"][0]["why"] and "at least 23" in done.stderr
    assert not list(out.glob("small*"))


def test_wrong_layers_and_channels_end_before_any_work(run_app, tmp_path):
    out, net = tmp_path / "out", ["--net=tiny", "--weights=none"]
    wrong = run_app("deepdream", *net, "--layer=con4", f"--output_dir={out}")
    assert wrong.returncode == 2 and not out.exists()
    assert len(wrong.stderr.strip().splitlines()[-1]) < 300 and "conv4" in wrong.stderr
    wrong = run_app("deepdream", *net, "--layer=conv3", "--channel=3,64", f"--output_dir={out}")
    assert wrong.returncode == 2 and "conv3 has channels 0 to 63" in wrong.stderr and not out.exists()
