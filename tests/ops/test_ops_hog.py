"""HOG against loops over pixels, against scikit-image, and against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from tfcnn.ops import hog


def picture(height=40, width=48, seed=0):
    """A smooth picture with colours, 0..255."""
    y, x = np.mgrid[:height, :width] / 10.0
    waves = np.random.default_rng(seed).uniform(-2, 2, [3, 3])
    planes = [np.sin(a * x + b * y + c) for a, b, c in waves]
    return (127 + 100 * np.stack(planes, axis=-1)).astype(np.float32)


def gradient_of(image, y, x):
    """(gx, gy) of the colour in which it is longest; across the border it is 0."""
    height, width, _ = image.shape
    pairs = []
    for c in range(3):
        gx = image[y, x + 1, c] - image[y, x - 1, c] if 0 < x < width - 1 else 0.0
        gy = image[y + 1, x, c] - image[y - 1, x, c] if 0 < y < height - 1 else 0.0
        pairs.append((gx, gy))
    return max(pairs, key=lambda pair: pair[0] ** 2 + pair[1] ** 2)


def spread(y, x, cell, h, w):
    """The four nearest cells of a pixel and its share of each."""
    fy, fx = (y + 0.5) / cell - 0.5, (x + 0.5) / cell - 0.5
    for i in (int(np.floor(fy)), int(np.floor(fy)) + 1):
        for j in (int(np.floor(fx)), int(np.floor(fx)) + 1):
            if 0 <= i < h and 0 <= j < w:
                yield i, j, (1 - abs(fy - i)) * (1 - abs(fx - j))


def test_dalal_triggs_equals_a_loop():
    image, cell = picture(), 8
    h, w = 5, 6
    histograms = np.zeros([h, w, 9])
    for y in range(40):
        for x in range(48):
            gx, gy = gradient_of(image.astype(np.float64), y, x)
            place = np.degrees(np.arctan2(gy, gx)) % 180 / 20 - 0.5
            low = int(np.floor(place))
            for bin_, share in ((low % 9, 1 - (place - low)), ((low + 1) % 9, place - low)):
                for i, j, part in spread(y, x, cell, h, w):
                    histograms[i, j, bin_] += np.hypot(gx, gy) * share * part / cell**2
    expected = np.zeros([4, 5, 36])
    for i in range(4):
        for j in range(5):
            v = histograms[i : i + 2, j : j + 2].ravel()
            v = np.minimum(v / np.sqrt((v**2).sum() + 1e-10), 0.2)
            expected[i, j] = v / np.sqrt((v**2).sum() + 1e-10)
    np.testing.assert_allclose(hog.dalal_triggs(image[None]).numpy()[0], expected, atol=2e-4)


def test_without_interpolation_it_equals_scikit_image():
    feature = pytest.importorskip("skimage.feature")
    image = picture(43, 50)
    expected = feature.hog(
        image.astype(np.float64),
        9,
        (8, 8),
        (2, 2),
        block_norm="L2-Hys",
        feature_vector=False,
        channel_axis=-1,
    )
    found = hog.dalal_triggs(image[None], interpolate=False).numpy()[0]
    close = np.isclose(found, expected.reshape(found.shape), atol=1e-3)
    assert close.mean() > 0.99  # angles on the edge between two bins fall either way


def test_felzenszwalb_equals_a_loop():
    image, cell = picture(42, 46), 8  # 5.25 and 5.75 cells: 5 and 6
    h, w = 5, 6
    histograms = np.zeros([h, w, 18])
    for y in range(1, h * cell - 1):
        for x in range(1, w * cell - 1):
            gx, gy = gradient_of(image.astype(np.float64), min(y, 40), min(x, 44))
            dots = [gx * np.cos(o * np.pi / 9) + gy * np.sin(o * np.pi / 9) for o in range(18)]
            for i, j, part in spread(y, x, cell, h, w):
                histograms[i, j, int(np.argmax(dots))] += np.hypot(gx, gy) * part
    lines = histograms[..., :9] + histograms[..., 9:]
    energy = (lines**2).sum(-1)
    expected = np.zeros([h - 2, w - 2, 31])
    for i in range(1, h - 1):
        for j in range(1, w - 1):
            for number, (top, left) in enumerate(((i, j), (i - 1, j), (i, j - 1), (i - 1, j - 1))):
                n = 1 / np.sqrt(energy[top : top + 2, left : left + 2].sum() + 0.0001)
                signed = np.minimum(histograms[i, j] * n, 0.2)
                expected[i - 1, j - 1, :18] += 0.5 * signed
                expected[i - 1, j - 1, 18:27] += 0.5 * np.minimum(lines[i, j] * n, 0.2)
                expected[i - 1, j - 1, 27 + number] = 0.2357 * signed.sum()
    np.testing.assert_allclose(hog.felzenszwalb(image[None]).numpy()[0], expected, atol=2e-3)


def test_an_upright_edge_votes_for_its_own_orientation_only():
    """A step along x has the gradient's orientation 0: half in the first bin and half in the last."""
    image = np.zeros([1, 16, 16, 3], np.float32)
    image[:, :, 8:] = 200
    cells = hog.cell_weights(hog.dalal_triggs(image)).numpy()[0].mean((0, 1))
    assert cells[0] == pytest.approx(cells[8]) and cells[0] > 0 and cells[1:8].max() == 0
    directions = hog.felzenszwalb(np.tile(image, [1, 2, 2, 1]))[..., :18].numpy().sum((0, 1, 2))
    assert set(np.flatnonzero(directions > 1e-6)) == {0, 9}  # up at one edge, down where the copies meet


def test_contrast_does_not_count_and_flat_pictures_give_0():
    image = picture()
    one, other = (hog.dalal_triggs(each[None]).numpy() for each in (image, 100 + 0.3 * image))
    np.testing.assert_allclose(one, other, atol=1e-4)
    flat = np.full([1, 32, 32, 3], 77.0, np.float32)
    assert not hog.dalal_triggs(flat).numpy().any() and not hog.felzenszwalb(flat).numpy().any()


def test_cell_weights_are_the_mean_over_blocks():
    blocks = np.random.default_rng(0).random([1, 2, 2, 4 * 9]).astype(np.float32)
    cells = hog.cell_weights(blocks).numpy()
    assert cells.shape == (1, 3, 3, 9)
    np.testing.assert_allclose(cells[0, 0, 0], blocks[0, 0, 0, :9], rtol=1e-6)
    middle = [blocks[0, 0, 0, 27:], blocks[0, 0, 1, 18:27], blocks[0, 1, 0, 9:18], blocks[0, 1, 1, :9]]
    np.testing.assert_allclose(cells[0, 1, 1], np.mean(middle, axis=0), rtol=1e-6)


@pytest.mark.parametrize("features", [hog.dalal_triggs, hog.felzenszwalb])
def test_gradients_are_those_of_finite_differences(features):
    image = picture(24, 24)[None]
    weights = np.random.default_rng(1).normal(size=features(image).shape).astype(np.float32)

    def value(x):
        return tf.reduce_sum(features(x) * weights)

    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = value(x)
    gradient = tape.gradient(result, x).numpy()
    assert np.isfinite(gradient).all()
    for place in ((0, 9, 13, 0), (0, 12, 10, 1), (0, 15, 14, 2)):
        step = np.zeros_like(image)
        step[place] = 0.25
        difference = (value(image + step) - value(image - step)) / 0.5
        np.testing.assert_allclose(gradient[place], difference, rtol=0.05, atol=2e-5)


@pytest.mark.parametrize("features", [hog.dalal_triggs, hog.felzenszwalb])
def test_the_features_of_a_mirrored_picture(features):
    image = picture()[None]
    straight, turned = (features(each).numpy() for each in (image, image[:, :, ::-1].copy()))
    np.testing.assert_allclose(hog.mirrored(straight), turned, atol=1e-5)
    np.testing.assert_array_equal(hog.mirrored(hog.mirrored(straight)), straight)


def test_padding_and_what_lies_beside_the_picture():
    image = picture()[None]
    bare, padded = hog.felzenszwalb(image).numpy(), hog.felzenszwalb(image, pad=(1, 2)).numpy()
    np.testing.assert_allclose(padded[:, 2:-3, 2:-3], bare, atol=1e-6)
    assert padded.shape == (1, 8, 9, 31) and not padded[:, -1].any()
    wider = np.pad(image, [[0, 0], [0, 0], [0, 16], [0, 0]], constant_values=255)
    inside = np.zeros(wider.shape[:3], bool)
    inside[:, :, :48] = True
    beside = hog.felzenszwalb(wider, inside=tf.constant(inside), pad=(0, 0)).numpy()
    np.testing.assert_allclose(beside[:, :, :5], hog.felzenszwalb(image, pad=(0, 0))[:, :, :5], atol=1e-6)
    assert not beside[:, :, 7:].any()  # the sixth cell and the seventh share the votes of the last pixels
    share = hog.truncation(tf.constant(inside), pad=(1, 1)).numpy()[0, ..., 0]
    assert (
        share.shape == (7, 10) and share[1:-1, 1:7].max() == 0 and share[0].min() == share[:, 7:].min() == 1
    )


def test_what_a_template_asks_of_each_orientation():
    weights = np.zeros([1, 1, 32], np.float32)
    weights[0, 0, [2, 11, 20, 5]] = [
        1,
        2,
        4,
        -8,
    ]  # both directions of line 2, the line itself, and one not wanted
    assert hog.orientation_weights(weights)[0, 0].tolist() == [0, 0, 7, 0, 0, 0, 0, 0, 0]


def test_a_flat_picture_has_a_finite_gradient():
    x = tf.fill([1, 24, 24, 3], 50.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(hog.dalal_triggs(x))
    assert np.isfinite(tape.gradient(value, x).numpy()).all()
