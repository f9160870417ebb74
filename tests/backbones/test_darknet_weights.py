"""darknet's .weights files: written here by the format's description, read by the importer."""

import struct

import keras
import numpy as np
import pytest
from keras import layers

from tfcnn.backbones.importers import darknet
from tfcnn.errors import InputError

SIDE, CHANNELS, FILTERS, UNITS = 4, 3, 5, 7


@pytest.fixture
def net():
    image = keras.Input((SIDE, SIDE, CHANNELS))
    x = layers.Conv2D(FILTERS, 3, padding="same", name="conv1")(image)
    x = layers.Reshape((SIDE * SIDE * FILTERS,))(x)
    return keras.Model(image, layers.Dense(UNITS, name="output")(x), name="small")


def parts(seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(FILTERS, CHANNELS, 3, 3)).astype("<f4")
    dense = rng.normal(size=(UNITS, FILTERS * SIDE * SIDE)).astype("<f4")
    norms = [rng.uniform(0.5, 2, FILTERS).astype("<f4") for _ in range(3)]  # scales, mean, variance
    return rng.normal(size=FILTERS).astype("<f4"), norms, kernel, rng.normal(size=UNITS).astype("<f4"), dense


def write(path, version=(0, 1), norm=False, transposed=False, drop=0):
    bias, norms, kernel, dense_bias, dense = parts()
    numbers = [bias, *(norms if norm else []), kernel, dense_bias, dense.T if transposed else dense]
    body = b"".join(np.ascontiguousarray(each).tobytes() for each in numbers)
    seen = struct.pack("<q" if 10 * version[0] + version[1] >= 2 and max(version) < 1000 else "<i", 64)
    path.write_bytes(struct.pack("<3i", *version, 0) + seen + (body[:-drop] if drop else body))
    return path


def by_hand(picture, norm=False):
    """What darknet's net answers for one picture [C, H, W], in loops."""
    bias, (scales, mean, variance), kernel, dense_bias, dense = parts()
    padded = np.pad(picture, [(0, 0), (1, 1), (1, 1)])
    maps = np.zeros((FILTERS, SIDE, SIDE))
    for f in range(FILTERS):
        for y in range(SIDE):
            for x in range(SIDE):
                maps[f, y, x] = np.sum(kernel[f] * padded[:, y : y + 3, x : x + 3])
        if norm:
            maps[f] = (maps[f] - mean[f]) / (np.sqrt(variance[f]) + 1e-6) * scales[f]
        maps[f] += bias[f]
    return dense @ maps.reshape(-1) + dense_bias


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("version", "transposed"), [((0, 1), False), ((0, 2), False), ((1001, 0), True)])
def test_the_net_answers_as_darknets(net, tmp_path, version, transposed, norm):
    filled = darknet.load(write(tmp_path / "net.weights", version, norm, transposed), net)
    assert filled == [("conv1", (3, 3, CHANNELS, FILTERS)), ("output", (SIDE * SIDE * FILTERS, UNITS))]
    picture = np.random.default_rng(1).normal(size=(CHANNELS, SIDE, SIDE))
    found = net(picture.transpose(1, 2, 0)[None].astype(np.float32)).numpy()[0]
    np.testing.assert_allclose(found, by_hand(picture, norm), rtol=1e-4, atol=1e-4)


def test_a_file_of_another_network_is_named_with_both_counts(net, tmp_path):
    before = net.get_weights()
    with pytest.raises(InputError, match=r"another network: it holds 709 numbers, and small has 707"):
        path = write(tmp_path / "net.weights")
        path.write_bytes(path.read_bytes() + b"\0" * 8)
        darknet.load(path, net)
    for value, now in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)


@pytest.mark.parametrize("content", [b"", b"short", b"PK\3\4" + b"x" * 61])
def test_what_is_no_weights_file_is_refused(net, tmp_path, content):
    (tmp_path / "net.weights").write_bytes(content)
    with pytest.raises(InputError, match="net.weights"):
        darknet.load(tmp_path / "net.weights", net)
    with pytest.raises(InputError, match="missing"):
        darknet.load(tmp_path / "none.weights", net)
