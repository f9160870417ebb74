"""import_model as a person runs it: a net of Caffe becomes a release that the other apps take."""

import json
import pathlib
import sys

import numpy as np
import pytest
import skimage.data
from PIL import Image

import tfcnn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "backbones"))

from caffe_files import caffemodel, prototxt  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small classifier of Caffe and a picture."""
    folder = tmp_path_factory.mktemp("caffe")
    random = np.random.default_rng(0)
    layers = [
        ("Convolution", "block/conv", "data", "convolution_param { num_output: 4 kernel_size: 3 stride: 2 }"),
        ("ReLU", "relu", "block/conv", ""),
        ("InnerProduct", "fc", "relu", "inner_product_param { num_output: 3 }"),
        ("Softmax", "prob", "fc", ""),
    ]
    weights = {
        "block/conv": [0.1 * random.normal(size=(4, 3, 3, 3)), random.normal(size=4)],
        "fc": [0.1 * random.normal(size=(3, 196)), random.normal(size=3)],
    }
    (folder / "net.prototxt").write_text(prototxt((3, 16, 16), *layers))
    (folder / "net.caffemodel").write_bytes(caffemodel(weights))
    (folder / "more.caffemodel").write_bytes(caffemodel({**weights, "loss1/fc": [np.zeros(3)]}))
    (folder / "empty.npy").touch()
    (folder / "names.txt").write_text("cat\ndog\nhorse\n")
    Image.fromarray(skimage.data.chelsea()).save(folder / "cat.png")
    return folder


def test_a_net_of_caffe_becomes_a_release(run_app, folder, tmp_path):
    out = tmp_path / "out"
    flags = [f"--model={folder / 'net.caffemodel'}", f"--prototxt={folder / 'net.prototxt'}"]
    flags += ["--mean=104,117,123", "--scale=0.0078125", f"--labels={folder / 'names.txt'}"]
    done = run_app("import_model", *flags, f"--reference={folder / 'cat.png'}", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "results.json").read_text())
    assert report["format"] == "caffemodel" and report["left_over"] == [] and report["release"] == "release"
    assert report["layers"] == [
        {"from": "block/conv", "to": "block_conv", "shape": [4, 3, 3, 3]},
        {"from": "fc", "to": "fc", "shape": [3, 196]},
    ]
    assert 0 <= report["difference"] < 1e-5 and "largest difference from the reference" in done.stderr
    card = json.loads((out / "release" / "card.json").read_text())
    assert card["classes"] == ["cat", "dog", "horse"] and "--scale=0.0078125" in card["command"]

    model = tfcnn.load_model(out / "release")
    np.testing.assert_array_equal(model.zero_rgb, [123, 117, 104])
    listed = run_app("saliency", f"--model={out / 'release'}", "--list_layers", cwd=tmp_path)
    assert "block_conv" in listed.stdout
    named = run_app(
        "classify", f"--model={out / 'release'}", "--limit=1", f"--output_dir={tmp_path / 'classify'}"
    )
    assert named.returncode == 0, named.stderr
    (entry,) = json.loads((tmp_path / "classify" / "results.json").read_text())["images"]
    assert {each["label"] for each in entry["predictions"]} == {"cat", "dog", "horse"}


def test_scores_of_another_program(run_app, folder, tmp_path):
    (tmp_path / "scores.txt").write_text("0.2, 0.3\n0.5")
    flags = [f"--model={folder / 'net.caffemodel'}", f"--prototxt={folder / 'net.prototxt'}"]
    flags += [f"--reference={folder / 'cat.png'}", f"--scores={tmp_path / 'scores.txt'}"]
    done = run_app("import_model", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "differ from the reference" in done.stderr
    assert not (tmp_path / "out" / "release").exists()
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["difference"] > 0.01 and report["release"] is None


def test_a_saved_model_is_a_release_with_its_preprocessing(run_app, tmp_path):
    model = tfcnn.load_model("digits")
    model.export(tmp_path / "saved", verbose=False)
    flags = [f"--model={tmp_path / 'saved'}", "--mean=10", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("import_model", *flags)
    assert done.returncode == 0, done.stderr
    again = tfcnn.load_model(tmp_path / "out" / "release")
    side = model.input_shape[1] or 32
    pictures = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    np.testing.assert_allclose(again(pictures)["scores"], model(pictures - 10)["scores"], atol=1e-5)


def test_a_preprocessing_of_the_factory_goes_into_the_net(run_app, tmp_path):
    model = tfcnn.load_model("digits")
    model.export(tmp_path / "saved", verbose=False)
    flags = [f"--model={tmp_path / 'saved'}", "--preprocessing=tf", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("import_model", *flags)
    assert done.returncode == 0, done.stderr
    again = tfcnn.load_model(tmp_path / "out" / "release")
    side = model.input_shape[1] or 32
    pictures = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    np.testing.assert_allclose(again(pictures)["scores"], model(pictures / 127.5 - 1)["scores"], atol=1e-5)


@pytest.mark.parametrize(
    "flags,words",
    [
        ([], ["--model"]),
        (["--model={folder}/net.caffemodel"], ["deploy.prototxt"]),
        (["--model={folder}/more.caffemodel", "--prototxt={folder}/net.prototxt"], ["loss1/fc", "left over"]),
        (["--model={folder}/cat.png"], ["no model that can be read"]),
        (["--model={folder}/none"], ["There is no model"]),
        (["--model=digits", "--mean=1,2"], ["--mean=1,2", "one number or three"]),
        (["--model=digits", "--mean=a"], ["--mean=a", "no number"]),
        (["--model=digits", "--reference={folder}/cat.png"], ["--scores"]),
        (["--model=digits", "--channels=none", "--mean=3"], ["--channels=none"]),
        (["--model=digits", "--mean=nan"], ["--mean", "finite"]),
        (["--model=digits", "--scale=inf"], ["--scale", "finite"]),
        (["--model=digits", "--weights=none"], ["--weights"]),
        (["--model=digits", "--labels={folder}/net.prototxt"], ["--labels", "there are 10 classes"]),
        (["--model=digits", "--preprocessing=vgg16", "--mean=3"], ["--preprocessing", "drop"]),
        (["--model=digits", "--preprocessing=vgg61"], ["vgg61", "vgg16"]),
        (["--model=digits", "--reference={folder}/cat.png", "--scores={folder}/empty.npy"], ["empty.npy"]),
    ],
    ids=str,
)
def test_wrong_commands_are_status_2_and_one_line(run_app, folder, tmp_path, flags, words):
    flags = [flag.format(folder=folder) for flag in flags]
    done = run_app("import_model", *flags, f"--output_dir={tmp_path / 'none'}")
    assert done.returncode == 2 and not (tmp_path / "none").exists(), done.stderr
    (line,) = [line for line in done.stderr.strip().splitlines() if line.startswith("import_model:")][-1:]
    assert all(word in line for word in words), line
