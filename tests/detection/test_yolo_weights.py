"""YOLO's .weights files: which network a file is of by its size alone, and Fast YOLO's own answer through the app."""

import json
import struct

import numpy as np
import pytest
from PIL import Image

from tfcnn.cards import card_of, is_darknet
from tfcnn.detection import yolo_weights
from tfcnn.errors import InputError

HEADER = struct.pack("<3i", 0, 1, 0) + struct.pack("<i", 64)


def write(path, count, **places):
    """A file of so many numbers, all 0 but those at the places {first: values}; holes take no room on the disk."""
    with open(path, "wb") as file:
        file.write(HEADER)
        for first, values in places.get("values", {}).items():
            file.seek(len(HEADER) + 4 * first)
            file.write(np.asarray(values, "<f4").tobytes())
        file.truncate(len(HEADER) + 4 * count)
    return path


def test_layers_are_the_published_ones():
    yolo, fast = (yolo_weights.layers_of(net, 20) for net in ("yolo", "fast_yolo"))
    assert yolo_weights.parameters(yolo) == 271_703_550 and yolo_weights.parameters(fast) == 45_089_374
    assert len(yolo) == 26 and yolo[0] == ("conv1", (7, 7, 3, 64)) and yolo[-2] == ("fc1", (50_176, 4096))
    assert len(fast) == 12 and fast[-1] == ("output", (4096, 1470))


@pytest.mark.parametrize(
    ("count", "net", "classes"),
    [
        (271_703_550, "yolo", 20),
        (45_089_374, "fast_yolo", 20),
        (45_089_374 - 17 * 49 * 4097, "fast_yolo", 3),
        # Batch norm's scale, mean and variance of 16 + 32 + ... + 512 + 3 x 1024 = 4080 maps.
        (45_089_374 + 3 * 4080, "fast_yolo", 20),
    ],
)
def test_a_file_is_recognised_by_its_size(tmp_path, count, net, classes):
    path = write(tmp_path / "some.weights", count)
    assert yolo_weights.recognised(path) == (net, classes)
    assert is_darknet(path) and card_of(path)["kind"] == "yolo"
    options = yolo_weights.architecture(path)
    assert options["net"] == net and (options["size"], options["grid"], options["boxes"]) == (448, 7, 2)


def test_another_network_is_refused_with_our_first_layers(tmp_path):
    path = write(tmp_path / "tiny.weights", 27_095_374)
    with pytest.raises(InputError, match=r"holds 27,095,374 numbers; yolo has 271,703,550 .*conv1 7x7x3x64"):
        yolo_weights.recognised(path)
    path = write(tmp_path / "fast.weights", 45_089_374)
    with pytest.raises(InputError) as error:
        yolo_weights.check_net(path, "yolo")
    wanted = "conv1 is 3x3x3x16 in the file and 7x7x3x64 in yolo; conv2 is 3x3x16x32 in the file and 3x3x64x192 in yolo"
    assert wanted in str(error.value) and str(error.value).count(" in the file") == 3


def test_what_is_no_weights_file_has_no_card(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(32))
    (tmp_path / "short.weights").write_bytes(HEADER[:8])
    for name in ("picture.png", "short.weights", "absent.weights"):
        assert not is_darknet(tmp_path / name) and card_of(tmp_path / name) == {}


def test_detect_finds_what_the_files_last_biases_say(run_app, tmp_path):
    """All kernels are 0, so the output is its biases: 49 x 3 classes, 49 x 2 confidences, 49 x 2 boxes."""
    layers = yolo_weights.layers_of("fast_yolo", 3)
    start = yolo_weights.parameters(layers[:-1])  # biases come before a layer's kernel
    cell = 2 * 7 + 1  # row 2, column 1
    values = {
        start + 3 * cell + 2: [0.9],
        start + 49 * 3 + 2 * cell + 1: [0.8],
        start + 49 * 5 + 8 * cell + 4: [0.5, 0.5, 0.5**0.5, 0.25**0.5],
    }
    path = write(tmp_path / "mine.weights", yolo_weights.parameters(layers), values=values)
    Image.new("RGB", (700, 350)).save(tmp_path / "black.png")
    (tmp_path / "names.txt").write_text("cat\ndog\ncow\n")
    flags = [f"--model={path}", f"--labels={tmp_path / 'names.txt'}", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("detect", tmp_path / "black.png", *flags)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "out/results.json").read_text())["images"]
    (found,) = entry["detections"]
    assert found["label"] == "cow" and found["score"] == pytest.approx(0.9 * 0.8, abs=1e-5)
    # Centre (1.5 / 7, 2.5 / 7), half as wide and a quarter as high as the picture: cut at its left edge.
    np.testing.assert_allclose(found["box"], [0, 125 - 43.75, 325, 125 + 43.75], atol=0.01)


@pytest.mark.parametrize(
    ("app", "flags", "words"),
    [
        ("detect", ["--model={tiny}"], "of another network than YOLO's first version"),
        (
            "train_detector",
            ["--dataset=shapes", "--init={fast}", "--detector=yolo"],
            "conv1 is 3x3x3x16 in the file",
        ),
        ("train_detector", ["--dataset=shapes", "--init={fast}"], "--detector=yolo or fast_yolo"),
    ],
)
def test_a_wrong_file_gets_one_line_and_writes_nothing(run_app, tmp_path, app, flags, words):
    files = {
        "tiny": write(tmp_path / "t.weights", 27_095_374),
        "fast": write(tmp_path / "f.weights", 45_089_374),
    }
    out = tmp_path / "out"
    done = run_app(app, *(flag.format(**files) for flag in flags), f"--output_dir={out}")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2 and not out.exists()
