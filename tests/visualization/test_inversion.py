"""Inversion: its objective against the formula in NumPy, codes kept by each method, what is matched before a ReLU."""

import keras
import numpy as np
import pytest

from tfcnn.errors import InputError
from tfcnn.visualization.inversion import ORDINARY, Inversion, Prior, psnr

ZERO = np.array([120.0, 110.0, 100.0], np.float32)
SIZE = 16
PICTURE = np.clip(
    np.add.outer(np.linspace(40, 200, SIZE), np.linspace(-30, 30, SIZE))[..., None] + [0, 20, -30], 0, 255
).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(1)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 60, -2)(image)
    x = keras.layers.Conv2D(24, 3, strides=2, padding="same", name="stem")(x)
    x = keras.layers.ReLU(6.0, name="stem_relu")(x)
    y = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="swish", name="deep")(x)
    logits = keras.layers.Dense(5, name="logits")(keras.layers.GlobalAveragePooling2D()(y))
    return keras.Model(image, {"logits": logits}, name="small")


def test_the_objective_is_the_papers(net):
    prior = Prior(variation=3.0, alpha_weight=8e-10, jitter=0, noise=0.0, statistics=0.0)
    inverse = Inversion(net, "deep", SIZE, ZERO, prior=prior, method="momentum", iterations=1)
    first = inverse.invert(PICTURE, [0]).history()[0]
    start = inverse_start(inverse)
    code, wanted = (inverse.code(p[None]).numpy() for p in (start, PICTURE))
    right, below = (np.diff(start, axis=axis, append=start.take([-1], axis)) for axis in (1, 0))
    n = start.size
    sigma2 = n * ORDINARY**2
    expected = {
        "code": ((code - wanted) ** 2).sum() / (wanted**2).sum(),
        "total_variation": 3.0 / 2 * (right**2 + below**2).sum() / sigma2,
        "alpha_norm": 8e-10 / 2 * ((start - ZERO) ** 6.0).sum() / sigma2,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(first[name], value, rtol=1e-3, err_msg=name)
    np.testing.assert_allclose(first["value"], sum(expected.values()), rtol=1e-3)


def inverse_start(inverse):
    seen = []
    one = Inversion.__new__(Inversion)
    one.__dict__ |= inverse.__dict__
    one.method, one.iterations = "lbfgs", 1
    one.invert(PICTURE, [0], lambda moment: seen.append(moment.image()[0]))
    return seen[0].astype(np.float64)


@pytest.mark.parametrize("method, layer", [("fourier", "stem"), ("fourier", "deep"), ("momentum", "deep")])
def test_the_code_comes_back_and_the_picture_from_an_early_one(net, method, layer):
    inverse = Inversion(net, layer, SIZE, ZERO, method=method, iterations=120)
    result = inverse.invert(PICTURE, [0])
    assert len(result.history()) == 120
    assert result.terms["code"][-1, 0] < 0.2 * result.terms["code"][0, 0]
    assert inverse.code_distance(result.image, PICTURE)[0] < 0.05
    if layer == "stem":
        assert psnr(result.image[0], PICTURE) > 25


def test_lbfgs_keeps_its_budget_and_its_box(net):
    inverse = Inversion(net, "deep", SIZE, ZERO, method="lbfgs", iterations=30)
    result = inverse.invert(PICTURE, [0])
    assert len(result.history()) <= 30
    assert result.image.min() >= -1e-3 and result.image.max() <= 255.001
    assert result.final_entry()["code"] < 0.2 * result.terms["code"][0, 0]


def test_a_relu_fused_into_a_convolution_is_matched_before_it_too():
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="fused")(image)
    net = keras.Model(image, {"fused": x}, name="small")
    inverse = Inversion(net, "fused", SIZE, ZERO, iterations=6)
    assert inverse._phases[0].problem.objective.layers == ["fused:input"]
    np.testing.assert_allclose(inverse.code(PICTURE[None]), net(PICTURE[None])["fused"], rtol=1e-5)


def test_a_relu_is_matched_before_it_and_zero_means_the_same_code(net):
    inverse = Inversion(net, "stem_relu", SIZE, ZERO, iterations=6)
    problem = inverse._phases[0].problem
    assert problem.objective.layers == ["stem_relu:input"]
    inverse.invert(PICTURE, [0])
    assert problem.evaluate(PICTURE[None])["code"][0] < 1e-9
    other = np.clip(PICTURE[None] + 40.0, 0, 255)
    before, after = problem.evaluate(other)["code"][0], inverse.code_distance(other, PICTURE)[0]
    assert before >= after > 0, "before the ReLU nothing that differs is hidden"


def test_a_silent_unit_gets_a_gradient(net):
    """A picture on which a ReLU's map is all zero still moves towards one on which it is not."""
    image = keras.Input((SIZE, SIZE, 3))
    pre = keras.layers.Conv2D(1, 1, name="pre", kernel_initializer="ones")(image)
    pre = keras.layers.Rescaling(1 / 100, -4, name="shift")(pre)
    dark = keras.Model(image, {"logits": keras.layers.ReLU(name="out")(pre)}, name="dark")
    inverse = Inversion(dark, "out", SIZE, ZERO, iterations=90)
    result = inverse.invert(np.full_like(PICTURE, 200.0), [0])
    assert result.terms["code"][-1, 0] < 0.5 * result.terms["code"][0, 0]


def test_only_the_central_places(net):
    inverse = Inversion(net, "stem", SIZE, ZERO, neigh=2, iterations=60)
    assert inverse.code(PICTURE[None]).shape == (1, 2, 2, 24)
    np.testing.assert_array_equal(
        inverse.code(PICTURE[None]), Inversion(net, "stem", SIZE, ZERO).code(PICTURE[None])[:, 3:5, 3:5]
    )
    image = inverse.invert(PICTURE, [0]).image[0]
    assert psnr(image[5:10, 5:10], PICTURE[5:10, 5:10]) > psnr(image[:, :3], PICTURE[:, :3]) + 3


def test_starts_differ_and_each_equals_its_own_run(net):
    inverse = Inversion(net, "logits", SIZE, ZERO, iterations=9)
    together = inverse.invert(PICTURE, [0, 1])
    assert np.abs(together.image[0] - together.image[1]).max() > 1
    alone = inverse.invert(PICTURE, [0])
    np.testing.assert_allclose(alone.image[0], together.image[0], atol=0.5)


def test_the_prior_goes_by_the_stride():
    shallow, deep = Prior().settled(2), Prior().settled(32)
    assert shallow.variation < deep.variation
    assert (
        shallow.jitter
        == shallow.noise
        == shallow.statistics
        == 0
        < min(deep.jitter, deep.noise, deep.statistics)
    )
    assert Prior(variation=5.0, jitter=0).settled(32).variation == 5.0
    assert Prior(variation=5.0, jitter=0).settled(32).jitter == 0


def test_a_layer_that_is_not_there(net):
    with pytest.raises(InputError, match="'deap'; the nearest are deep"):
        Inversion(net, "deap", SIZE, ZERO)


def test_more_central_locations_than_there_are(net):
    with pytest.raises(InputError, match="deep has 4 x 4 locations, and neigh asks for the central 5 x 5"):
        Inversion(net, "deep", SIZE, ZERO, neigh=5)
    with pytest.raises(InputError, match="logits has no locations"):
        Inversion(net, "logits", SIZE, ZERO, neigh=1)


def test_psnr_by_hand():
    assert abs(psnr(np.full((2, 2, 3), 10.0), np.full((2, 2, 3), 15.0)) - 10 * np.log10(255**2 / 25)) < 1e-9
    assert psnr(PICTURE, PICTURE) > 100
