"""Fooling images: MAP-Elites by hand, the published mutation, networks that grow, and the climb by gradient."""

import keras
import numpy as np
import pytest

from tfcnn.errors import InputError
from tfcnn.fooling import evolution
from tfcnn.fooling.ascent import Ascent
from tfcnn.fooling.cppn import CPPN, FUNCTIONS, INPUTS, Network
from tfcnn.fooling.evolution import Direct, MapElites

SIDE = 8


class Numbers:
    """Genomes that are whole numbers: children are one more than their parents; the picture is the number."""

    def __init__(self):
        self.next = 0

    def random(self, random):
        self.next += 1
        return np.array([self.next])

    def cross(self, random, one, other):
        return one, other

    def mutate(self, random, genome, generation):
        return genome + 1

    def picture(self, genome):
        return np.full([1, 1, 3], genome[0], np.uint8)

    def pack(self, genomes):
        return np.stack(genomes)

    def unpack(self, packed):
        return list(packed)


def of_numbers(pictures):
    """Three classes: one grows with the number, one falls, one is surest of 2."""
    number = pictures[:, 0, 0, 0].astype(float)
    return np.stack([number / 100, 1 / (1 + number), np.exp(-np.square(number - 2))], axis=1)


def quadrants(pictures):
    """A net of four classes: the share of each quarter in the picture's brightness, squared."""
    half = pictures.shape[1] // 2
    parts = [pictures[:, i : i + half, j : j + half].mean((1, 2, 3)) for i in (0, half) for j in (0, half)]
    parts = np.stack(parts, axis=1) + 1e-3
    return parts**2 / (parts**2).sum(axis=1, keepdims=True)


def test_a_child_may_become_the_elite_of_several_classes_and_worse_ones_never():
    elites = MapElites(Numbers(), of_numbers, 3, children=4)
    assert elites.step().tolist() == [0, 1, 2]  # children 1 to 4
    assert [int(each[0]) for each in elites.genomes] == [4, 1, 2]
    np.testing.assert_allclose(elites.scores, [0.04, 0.5, 1.0])
    for _ in range(9):
        assert set(elites.step()) <= {0}
    assert [int(each[0]) for each in elites.genomes[1:]] == [1, 2] and elites.genomes[0] > 5
    steps = [entry["step"] for entry in elites.history[0]]
    assert steps[0] == 1 and steps == sorted(set(steps)) and len(steps) == int(elites.genomes[0][0]) - 3
    assert len(elites.history[1]) == 1 and elites.history[0][-1]["value"] == elites.scores[0]


@pytest.mark.parametrize("encoding", [Direct(SIDE, SIDE), Direct(SIDE, SIDE, grey=True), CPPN(SIDE, SIDE)])
def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped(encoding):
    whole, first, second = (MapElites(encoding, quadrants, 4, children=10, seed=3) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    second.restore(first.state())
    for _ in range(3):
        second.step()
    assert second.generation == 6 and second.history == whole.history
    np.testing.assert_array_equal(second.scores, whole.scores)
    for index in range(4):
        np.testing.assert_array_equal(second.picture(index), whole.picture(index))
        score = quadrants(second.picture(index)[None])[0, index]
        assert score == pytest.approx(second.scores[index])


@pytest.mark.parametrize("encoding", [Direct(SIDE, SIDE), CPPN(SIDE, SIDE)])
def test_elites_get_better(encoding):
    elites = MapElites(encoding, quadrants, 4, children=40)
    elites.step()
    before = elites.scores.copy()
    for _ in range(25):
        elites.step()
    assert (elites.scores > before + 0.05).all()


def test_a_state_of_another_run_is_said():
    elites = MapElites(Direct(4, 4), quadrants, 4, children=2)
    elites.step()
    with pytest.raises(InputError, match="4 classes, not of 5"):
        MapElites(Direct(4, 4), quadrants, 5).restore(elites.state())
    with pytest.raises(InputError, match="cannot be read"):
        MapElites(Direct(8, 8), quadrants, 4).restore(elites.state())
    with pytest.raises(InputError, match="cannot be read"):
        MapElites(Direct(4, 4), quadrants, 4).restore(elites.state()[:200])
    with pytest.raises(InputError, match="pairs"):
        MapElites(Direct(4, 4), quadrants, 4, children=3)


def test_answers_that_are_not_finite_win_nothing():
    elites = MapElites(Numbers(), lambda pictures: of_numbers(pictures) * [1, np.nan, 1], 3, children=4)
    elites.step()
    assert elites.scores[1] == 0


def test_polynomial_mutation_is_the_published_one():
    """Its distribution: |move| has the mean 1 / (eta + 2), and is below d with chance 1 - (1 - d)^(eta + 1)."""
    values = np.full(200_000, 0.5)
    moved = evolution.polynomial_mutation(np.random.default_rng(0), values, 0.25)
    assert (values == 0.5).all()
    changed = moved != 0.5
    assert changed.mean() == pytest.approx(0.25, abs=0.005)
    size = np.abs(moved - 0.5)[changed]
    assert size.mean() == pytest.approx(1 / 17, rel=0.02)
    assert (size < 0.1).mean() == pytest.approx(1 - 0.9**16, abs=0.005)
    assert (moved[changed] > 0.5).mean() == pytest.approx(0.5, abs=0.01)
    ends = evolution.polynomial_mutation(np.random.default_rng(0), np.array([0.0, 1.0] * 500), 1.0)
    assert ends.min() >= 0 and ends.max() <= 1


def test_crossing_keeps_the_parents_mean():
    random = np.random.default_rng(0)
    one, other = random.uniform(0.4, 0.5, [2, 5000])
    children = evolution.simulated_binary_crossover(random, one, other)
    np.testing.assert_allclose(children[0] + children[1], one + other, rtol=1e-6)
    apart = np.abs(children[0] - children[1]) / np.abs(one - other)
    assert (apart < 1).mean() == pytest.approx(0.5, abs=0.03)


def test_the_chance_of_a_mutation_is_halved():
    direct = Direct(64, 64)
    genome = np.full([64, 64, 3], 128, np.uint8)
    shares = [
        (direct.mutate(np.random.default_rng(0), genome, generation) != genome).mean()
        for generation in (0, 999, 1000, 2500)
    ]
    # a move of less than half a grey level is rounded away
    assert shares[0] == shares[1] == pytest.approx(0.1, rel=0.1)
    assert shares[2] == pytest.approx(0.05, rel=0.1) and shares[3] == pytest.approx(0.025, rel=0.15)


def test_a_network_is_worked_out_by_hand():
    """Lightness: gaussian(3 d); saturation: a hidden sine of x fed to a linear node, and the bias; hue: nothing."""
    encoding = CPPN(3, 5)
    hue, light, saturation, hidden = range(INPUTS, INPUTS + 4)
    sine, _, gaussian, linear = range(4)
    network = Network(
        {hue: linear, light: gaussian, saturation: linear, hidden: sine},
        {(2, light): 3.0, (0, hidden): 0.5, (hidden, saturation): 2.0, (3, saturation): -0.25},
    )
    values = encoding.values(network).reshape(3, 3, 5)
    x = np.arange(5)
    distance = np.hypot(x / 2 - 1, np.array([-1, 0, 1])[:, None])
    np.testing.assert_allclose(values[0], 0, atol=1e-7)
    np.testing.assert_allclose(values[1], np.exp(-9 * distance**2), rtol=1e-4)
    np.testing.assert_allclose(values[2], np.tile((2 * np.sin(0.5 * x) - 0.25) / 3, [3, 1]), rtol=1e-5)


def test_hue_lightness_and_saturation_are_opencvs():
    cv2 = pytest.importorskip("cv2")
    from tfcnn.fooling.cppn import _from_hls

    hls = np.random.default_rng(0).random([3, 4, 4]).astype(np.float32)
    expected = cv2.cvtColor(
        np.moveaxis(hls * [[[360]], [[1]], [[1]]], 0, -1).astype(np.float32), cv2.COLOR_HLS2RGB
    )
    np.testing.assert_allclose(
        np.moveaxis(_from_hls(360 * hls[0], hls[1], hls[2]), 0, -1), expected, atol=1e-5
    )


def test_networks_grow_and_stay_without_cycles():
    random, encoding = np.random.default_rng(0), CPPN(6, 6)
    sizes = []
    for _ in range(20):
        network = encoding.random(random)
        assert len(network.functions) == 3
        for _ in range(40):
            before = dict(network.links)
            child = encoding.mutate(random, network)
            assert network.links == before  # the parent is as it was
            network = child
        order = network.order()
        assert sorted(order) == sorted(network.functions)
        place = {node: number for number, node in enumerate(order)}
        assert all(source < INPUTS or place[source] < place[target] for source, target in network.links)
        assert all(abs(weight) <= 10 for weight in network.links.values())
        assert all(0 <= function < len(FUNCTIONS) for function in network.functions.values())
        sizes.append(len(network.functions) - 3)
    assert np.mean(sizes) > 5
    (again,) = encoding.unpack(encoding.pack([network]))
    np.testing.assert_array_equal(encoding.picture(again), encoding.picture(network))


def test_grey_pictures_have_three_equal_values():
    for encoding in (Direct(6, 6, grey=True), CPPN(6, 6, grey=True)):
        picture = encoding.picture(encoding.random(np.random.default_rng(0)))
        assert picture.shape == (6, 6, 3) and (picture == picture[..., :1]).all()


def test_the_gradient_makes_the_net_certain_from_noise():
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(6, 3, activation="tanh")(keras.layers.Rescaling(1 / 60, offset=-2)(image))
    logits = keras.layers.Dense(4, name="logits")(keras.layers.Flatten()(x))
    model = keras.Model(image, {"logits": logits, "scores": keras.layers.Softmax(name="scores")(logits)})
    steps = []
    result = Ascent(model, SIDE, steps=200, score=0.99).run([2, 0], callback=lambda m: steps.append(m.step))
    scores = model(np.rint(result.image))["scores"].numpy()
    assert scores[0, 2] > 0.98 and scores[1, 0] > 0.98 and 2 < len(steps) < 200
    assert 0 <= result.image.min() and result.image.max() <= 255
    stopped = Ascent(model, SIDE, steps=200).run([2], callback=lambda moment: moment.step == 3)
    assert len(stopped.steps) == 3
