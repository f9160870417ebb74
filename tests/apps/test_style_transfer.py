"""style_transfer as a person runs it: sizes and modes of all kinds, several styles, and VGG-19 as neural-style."""

import json

import numpy as np
import pytest
from PIL import Image

from tfcnn import images

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several sizes and modes."""
    place = tmp_path_factory.mktemp("pictures")
    large = Image.fromarray(RANDOM.integers(0, 255, (6, 8, 3), np.uint8)).resize((120, 90))
    large.convert("CMYK").save(place / "cmyk.jpg")
    large.convert("L").resize((50, 130)).save(place / "grey.png")
    Image.fromarray(RANDOM.integers(0, 65535, (70, 41), np.uint16)).save(place / "deep.png")
    large.resize((300, 3)).save(place / "narrow.png")
    return place


@pytest.mark.slow
def test_two_styles_coarse_to_fine(run_app, folder, tmp_path):
    command = [
        "style_transfer",
        f"--style={folder / 'deep.png'},{folder / 'grey.png'}",
        "--style_blend_weights=2,1",
        "--style_scale=0.8",
        "--image_size=64",
        "--steps=5,4",
        "--save_iter=6",
        "--original_colors",
    ]
    pictures = [folder / name for name in ("cmyk.jpg", "grey.png", "narrow.png")]
    done = run_app(*command, *pictures, f"--output_dir={tmp_path / 'a'}")
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "a" / "results.json").read_text())
    assert [file["file"].rsplit("/")[-1] for file in report["refused"]] == ["narrow.png"]
    assert "take at least" in report["refused"][0]["why"]
    for entry, shape, coarse in zip(report["images"], [(48, 64, 3), (64, 25, 3)], [32, 41], strict=True):
        stem = entry["file"].rsplit("/")[-1].split(".")[0]
        assert entry["files"] == [f"{stem}_6.png", f"{stem}_styled.png"]
        assert entry["picture"] == f"{stem}_styled.png"
        assert images.read(tmp_path / "a" / entry["picture"]).shape == shape
        assert [e["size"] for e in entry["history"]] == [coarse] * 5 + [64] * 4
        assert [e["step"] for e in entry["history"]] == list(range(1, 10))
        for each in [*entry["history"], entry["final"]]:
            terms = {name: v for name, v in each.items() if name not in ("step", "size", "value")}
            assert each["value"] == pytest.approx(sum(terms.values()), rel=1e-5) and len(terms) == 12
        assert entry["final"]["value"] < entry["history"][5]["value"]
    alone = run_app(*command, pictures[0], f"--output_dir={tmp_path / 'b'}")
    assert alone.returncode == 0
    assert (tmp_path / "a" / "cmyk_styled.png").read_bytes() == (
        tmp_path / "b" / "cmyk_styled.png"
    ).read_bytes()


def test_vgg_with_the_old_programs_options(run_app, weights, folder, tmp_path):
    done = run_app(
        "style_transfer",
        folder / "cmyk.jpg",
        "--net=vgg19",
        f"--weights={weights('keras/vgg19_blocks1-3.h5')}",
        "--content_layers=block3_conv4",
        "--style_layers=block1_conv1,block2_conv1,block3_conv1",
        "--image_size=48",
        "--sizes=1",
        "--steps=3",
        "--init=random",
        "--optimizer=adam",
        "--pooling=avg",
        "--normalize_gradients",
        "--relative=false",
        "--tile_size=0",
        f"--output_dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "results.json").read_text())["images"]
    assert entry["layers"]["content"] == ["block3_conv4"] and len(entry["history"]) == 3
    assert abs(images.read(tmp_path / entry["picture"]).mean() - 127.5) < 10  # near the grey noise


def test_wrong_flags_end_before_any_work(run_app, tmp_path):
    out = tmp_path / "out"
    wrong = run_app(
        "style_transfer", "--net=tiny", "--weights=none", "--style_layers=con4", f"--output_dir={out}"
    )
    assert wrong.returncode == 2 and "conv4" in wrong.stderr and not out.exists()
    wrong = run_app("style_transfer", "--steps=5,4,3", f"--output_dir={out}")
    assert wrong.returncode == 2 and "--steps=5,4,3" in wrong.stderr and not out.exists()
