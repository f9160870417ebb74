"""embed as a person runs it: digits by their pixels, a folder by a net's codes, wrong commands."""

import json

import numpy as np
import pytest
from PIL import Image

from tfcnn import images


def test_digits_by_their_pixels(run_app, tmp_path):
    done = run_app("embed", "--class=0,1,7", "--limit=60", "--grid=5", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    assert len(report["images"]) == 60 and report["net"] is None
    assert {entry["label"] for entry in report["images"]} == {"0", "1", "7"}
    assert all(len(entry["position"]) == 2 for entry in report["images"])
    agreement = report["metrics"]["agreement"]
    assert agreement["neighbours"] == 10 and agreement["codes"] > 0.85 and agreement["positions"] > 0.8
    assert report["metrics"]["code"] == 64
    assert images.read(tmp_path / "grid.png").shape == (200, 200, 3)
    places = ("codes.tsv", "positions.tsv", "metadata.tsv", "sprite.png", "projector_config.pbtxt")
    assert all((tmp_path / "projector" / name).exists() for name in places)
    assert set(report["files"]) >= {"scatter.png", "pictures.png", "grid.png", "projector/codes.tsv"}


def test_a_folder_by_a_small_nets_codes(run_app, tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(6):
        shade = np.array([250, 20, 20] if number % 2 else [20, 20, 250], np.uint8)
        images.write(
            tmp_path / "in" / f"{number}.png", shade // 2 + random.integers(0, 99, (20, 30, 3), np.uint8)
        )
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    done = run_app(
        "embed",
        tmp_path / "in",
        "--model=digits",
        "--method=pca",
        "--layer=relu1",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 1 and "bad.png" in done.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    x = [entry["position"][0] for entry in report["images"]]
    assert len(x) == 6 and len({value > 0 for value in x[::2]}) == 1 and (x[0] > 0) != (x[1] > 0)
    assert report["metrics"] == {"images": 6, "code": 16}
    assert np.load(tmp_path / "out" / "codes.npy").shape == (6, 16)


def test_an_unreadable_picture_of_a_data_set_is_named_in_a_line_and_the_others_are_laid_out(
    run_app, tmp_path
):
    for number in range(6):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        images.write(folder / f"{number}.png", np.full((20, 30, 3), 40 * number, np.uint8))
    (tmp_path / "data" / "a" / "bad.png").write_bytes(b"no picture")
    flags = ["--dataset=folder", f"--data={tmp_path / 'data'}", "--layer=pixels", "--batch_size=2"]
    done = run_app("embed", *flags, "--method=pca", "--quiet", f"--output_dir={tmp_path / 'out'}")
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1 and line.startswith("embed: refused ") and "bad.png" in line, done.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["file"] for each in report["refused"]] == ["a/bad.png"]
    assert sorted(entry["file"] for entry in report["images"]) == [
        f"{'ab'[n % 2]}/{n}.png" for n in (0, 2, 4, 1, 3, 5)
    ]
    assert report["metrics"]["images"] == 6 and np.load(tmp_path / "out" / "codes.npy").shape[0] == 6


def test_of_many_pictures_some_are_shown_and_all_codes_are_kept(run_app, tmp_path):
    common = ["--class=0,1", "--limit=40", "--most=15", "--grid=3"]
    report = {}
    for method in ("tsne", "pca"):
        done = run_app("embed", *common, f"--method={method}", f"--output_dir={tmp_path / method}")
        assert done.returncode == 0 and "15 of 40 pictures" in done.stderr, done.stderr
        report[method] = json.loads((tmp_path / method / "results.json").read_text())
        assert report[method]["metrics"]["images"] == 40 and report[method]["metrics"]["shown"] == 15
    placed = [number for number, entry in enumerate(report["tsne"]["images"]) if entry["position"]]
    assert len(placed) == 15 and all(len(entry["position"]) == 2 for entry in report["pca"]["images"])
    codes = np.load(tmp_path / "tsne" / "codes.npy")
    assert codes.shape == (40, 64) and codes.dtype == np.float32
    rows = (tmp_path / "tsne" / "projector" / "metadata.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == [report["tsne"]["images"][n]["file"] for n in placed]
    table = np.loadtxt(tmp_path / "pca" / "projector" / "positions.tsv", delimiter="\t")
    np.testing.assert_allclose(table, [report["pca"]["images"][n]["position"] for n in placed], rtol=1e-4)


def test_digits_by_a_released_detectors_backbone(run_app, tmp_path):
    flags = ["--layer=block2_add", "--image_size=96", "--limit=12", "--method=pca"]
    done = run_app("embed", "--model=faster_rcnn_bccd", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["metrics"]["code"] == 24 and report["metrics"]["images"] == 12
    assert len({tuple(entry["position"]) for entry in report["images"]}) == 12


def test_a_grey_batch_has_codes_of_the_same_length(run_app, tmp_path):
    for number in range(6):
        shade = (number, 2 * number, 90) if number < 3 else (number, number, number)
        Image.new("RGB", (40, 40), shade).save(tmp_path / f"{number}.png")
    flags = ["--layer=pixels", "--batch_size=3", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("embed", tmp_path, *flags)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layer=relu9", "--model=digits"], ["relu9", "--list_layers"]),
        (["--class=12"], ["12", "0 to 9"]),
        (["--dataset=tiny_imagenet"], ["--data"]),
        (["--channel=3"], ["--channel", "--layer=pixels"]),
        (["--weights=none"], ["--weights belongs to a net", "--layer=pixels"]),
        (["--method=pca", "--perplexity=9"], ["--perplexity belongs to --method=tsne"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, flags, words):
    done = run_app("embed", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in words), line
