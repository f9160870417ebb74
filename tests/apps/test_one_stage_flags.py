"""--strides of train_detector: kept in the card, by --init too, and refused where it would do nothing."""

import json

import pytest

from tfcnn import backbones
from tfcnn.detection.one_stage import one_stage

SMALL = [
    "--dataset=shapes",
    "--net=tiny",
    "--image_size=64",
    "--batch_size=2",
    "--steps=1",
    "--validate_epochs=0",
]
OWN = ["--detector=one_stage", "--channels=8", "--tower=1"]


@pytest.fixture(scope="module")
def one_map(tmp_path_factory):
    """A detector on the map of stride 16, with its card."""
    folder = tmp_path_factory.mktemp("one_map")
    one_stage(backbones.backbone("tiny", None), 5, strides=(16,), channels=8, tower=1).save(
        folder / "model.keras"
    )
    own = {"net": "tiny", "strides": [16], "channels": 8, "tower": 1}
    classes = ["circle", "triangle", "square", "star", "ring"]
    card = {"kind": "one_stage", "net": "tiny", "classes": classes, "architecture": own}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def strides(release):
    """Of the card and of the model's file."""
    import tfcnn

    own = list(tfcnn.load_model(release).layers[-1].strides)
    assert json.loads((release / "card.json").read_text())["architecture"]["strides"] == own
    return own


@pytest.mark.slow
def test_strides_are_kept_by_the_card_and_by_init(run_app, tmp_path):
    flags = ["--strides=16", "--box_loss=l1", "--assignment=center", f"--output_dir={tmp_path / 'first'}"]
    done = run_app("train_detector", *SMALL, *OWN, *flags)
    assert done.returncode == 0, done.stderr
    first = tmp_path / "first/release"
    assert strides(first) == [16]
    done = run_app("train_detector", *SMALL, f"--init={first}", OWN[0], f"--output_dir={tmp_path / 'next'}")
    assert done.returncode == 0, done.stderr
    assert f"starts from {first}\n" in done.stderr  # whole: nothing is new
    assert strides(tmp_path / "next/release") == [16]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--detector=yolo", "--strides=16"], "--strides is for --detector=one_stage, not for yolo"),
        ([*OWN, "--strides=8,a"], "--strides=8,a: strides are whole numbers from 1"),
        (
            [*OWN, "--strides=16,64", "--init={one_map}"],
            "each twice the one before, such as 8, 16, 32: 16, 64",
        ),
    ],
)
def test_other_strides_are_one_line(run_app, one_map, tmp_path, flags, words):
    flags = [flag.format(one_map=one_map) for flag in flags]
    done = run_app("train_detector", *SMALL, *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
