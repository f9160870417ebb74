"""patches as a person runs it: a folder of drawn squares, units of a small model of one's own, wrong commands."""

import json

import keras
import numpy as np
import pytest

from tfcnn import images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with own.keras, whose unit 0 answers to red and unit 1 to green, and pictures/ of coloured squares."""
    folder = tmp_path_factory.mktemp("patches")
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(2, 8, 8, use_bias=False, activation="relu", name="colours")(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    kernel = np.zeros((8, 8, 3, 2), np.float32)
    kernel[..., 0, 0] = kernel[..., 1, 1] = 1 / 64
    model.layers[1].set_weights([kernel])
    model.save(folder / "own.keras")
    (folder / "pictures").mkdir()
    for number, grey in enumerate((200, 120, 160)):
        picture = np.zeros((64, 96, 3), np.uint8)
        picture[16:32, 24 * number : 24 * (number + 1), 0] = grey
        picture[48:, 72:, 1] = grey // 2
        images.write(folder / "pictures" / f"{number}.png", picture)
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    return folder


def test_patches_are_where_the_squares_are(run_app, place):
    out = place / "out"
    done = run_app(
        "patches", place / "pictures", f"--model={place / 'own.keras'}", "--top=2", f"--output_dir={out}"
    )
    assert done.returncode == 1 and "broken.png" in done.stderr
    report = json.loads((out / "results.json").read_text())
    red, green = report["images"]
    assert (red["layer"], red["channel"], green["channel"]) == ("colours", 0, 1)
    found = [(patch["file"].rpartition("/")[2], patch["box"]) for patch in red["patches"]]
    # 96 x 64 pixels are stretched to 32 x 32: a field of 8 x 8 is 24 x 16 of the file
    assert found == [("0.png", [0, 16, 24, 32]), ("2.png", [48, 16, 72, 32])]
    assert [patch["value"] for patch in red["patches"]] == pytest.approx(
        [200, 160], rel=0.05
    )  # edges are blurred
    assert [patch["box"] for patch in green["patches"]] == [[72, 48, 96, 64]] * 2
    assert report["receptive_field"] == {"size": [8, 8], "stride": [8, 8], "offset": [4, 4]}
    assert report["metrics"] == {"images": 3} and [each["file"][-10:] for each in report["refused"]] == [
        "broken.png"
    ]
    sheet = images.read(out / red["picture"])
    assert (sheet[50:70, 50:70] == [200, 0, 0]).all() and red["files"] == [red["picture"]]
    beside = sheet[
        :, sheet.shape[1] // 2 :
    ]  # what guided backpropagation sends back: the unit's weights, red alone
    assert (beside[20:100, 20:100] == [255, 128, 128]).all()


def test_a_released_detectors_backbone_and_a_layer_of_its_own_choice(run_app, tmp_path):
    done = run_app(
        "patches",
        "--model=faster_rcnn_voc",
        "--layer=block2_add",
        "--channel=3",
        "--image_size=96",
        "--limit=2",
        f"--output_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    assert len(entry["patches"]) == 9 and entry["channel"] == 3
    values = [patch["value"] for patch in entry["patches"]]
    assert values == sorted(values, reverse=True) and (tmp_path / entry["picture"]).exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layer=relu9"], ["relu9", "relu5", "--list_layers"]),
        (["--layer=relu1", "--channel=16"], ["--channel=16", "0 to 15"]),
        (["--channel=-1"], ["--channel=-1", "0 to 95"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, flags, words):
    done = run_app("patches", "--model=digits", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in words), line
