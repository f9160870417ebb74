"""Attacks on small nets: worst cases known by hand, balls, bounds, targets, and foolbox's answers."""

import keras
import numpy as np
import pytest
from fooling_nets import curved_net, linear_net, pictures

from tfcnn import fooling
from tfcnn.errors import InputError
from tfcnn.fooling.classifier import Aim, Classifier
from tfcnn.fooling.lbfgs import LBFGS, distortion
from tfcnn.fooling.minimal import CarliniWagner, DeepFool, enlarged_until_rounded

BALLS = ["fgsm", "bim", "least_likely", "pgd", "momentum"]
EASY = {"eps": 16.0}


@pytest.fixture(scope="module")
def net():
    return curved_net()


@pytest.fixture(scope="module")
def attacked(net):
    """A function from a method and options to what became of six pictures, each run once."""
    known = {}

    def run(method, **options):
        key = (method, *sorted(options.items()))
        if key not in known:
            targets = options.pop("targets", None)
            options = (EASY if method in BALLS else {}) | options
            known[key] = fooling.attack(net, pictures(), None, method, targets=targets, **options)
        return known[key]

    return run


def lengths(found, images):
    return np.sqrt(np.square(found.astype(float) - images).sum(axis=(1, 2, 3)))


def test_fgsm_reaches_the_worst_case_of_a_linear_net():
    """Of two classes the lead falls by eps times the L1 norm of the difference of their weights."""
    model, w = linear_net(classes=2)
    images = pictures(4)
    labels = model.predict(images.astype(np.float32), verbose=0).argmax(axis=1)
    result = fooling.attack(model, images, labels, "fgsm", eps=3)
    difference = (w[:, 0] - w[:, 1]).astype(np.float64)
    worst = 3 / 255 * np.abs(difference).sum()
    change = (result.images.astype(np.float64) - images).reshape(4, -1) / 255
    sign = np.where(labels == 0, 1, -1)
    np.testing.assert_allclose(-sign * (change @ difference), worst, rtol=1e-6)
    leads = [
        aim.margin(Classifier(model).logits(x))
        for aim in [Aim(labels.astype(np.int32))]
        for x in (images, result.images)
    ]
    np.testing.assert_allclose(leads[0] - leads[1], worst, rtol=1e-5)


@pytest.mark.parametrize("method", BALLS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [3.0, 2.6, 40.0])
def test_pictures_stay_in_the_ball_and_in_the_range_after_rounding(net, method, norm, eps):
    images = pictures(3, low=0, high=256)
    result = fooling.attack(net, images, None, method, eps=eps, norm=norm, confidence=100)
    assert result.images.dtype == np.uint8
    size = {"linf": result.linf, "l2": result.l2}[norm]
    assert (size <= eps + 1e-6).all() and (size > 0.5 * eps).all()
    difference = result.images.astype(float) - images
    np.testing.assert_allclose(result.linf, np.abs(difference).max(axis=(1, 2, 3)))
    np.testing.assert_allclose(result.l2, lengths(result.images, images))


@pytest.mark.parametrize("method", BALLS)
def test_eps_0_changes_nothing(net, method):
    result = fooling.attack(net, pictures(), None, method, eps=0)
    assert (
        (result.images == pictures()).all()
        and not result.success.any()
        and (result.after == result.before).all()
    )


@pytest.mark.parametrize("method", fooling.METHODS)
def test_success_is_what_the_net_says_of_the_8_bit_picture(net, attacked, method):
    result = attacked(method)
    scores = net.predict(result.images.astype(np.float32), verbose=0)
    assert (result.after == scores.argmax(axis=1)).all()
    np.testing.assert_allclose(result.score_after, scores.max(axis=1), rtol=1e-5)
    goal = result.after == result.targets if method == "least_likely" else result.after != result.labels
    assert (result.success == goal).all() and result.success.all()
    assert result.success_rate == 1


@pytest.mark.parametrize("method", ["fgsm", "bim", "pgd", "momentum", "lbfgs", "cw"])
def test_targets_are_reached(attacked, method):
    before = attacked("fgsm").before
    targets = (before + 1) % 4
    result = attacked(method, targets=tuple(targets), **({"eps": 40.0} if method in BALLS else {}))
    assert (result.after == targets)[result.success].all() and result.success.mean() >= (
        0.5 if method == "fgsm" else 1
    )


@pytest.mark.parametrize("method", ["bim", "pgd", "cw"])
def test_confidence_is_the_lead_of_the_wrong_class(net, method):
    result = fooling.attack(
        net, pictures(), None, method, confidence=0.5, **(EASY if method in BALLS else {})
    )
    margin = Aim(result.labels).margin(Classifier(net).logits(result.images))
    assert result.success.all() and (margin < -0.5).all()


def test_a_batch_is_as_many_runs(net):
    together = fooling.attack(net, pictures(), None, "pgd", eps=3)
    for index, image in enumerate(pictures()):
        alone = fooling.attack(net, image[None], None, "pgd", eps=3)
        assert np.abs(alone.images[0].astype(int) - together.images[index]).mean() < 0.1
        assert alone.after[0] == together.after[index]
        assert len(alone.history[0]) == len(together.history[index])


def test_a_picture_leaves_when_it_has_succeeded(attacked):
    result = attacked("pgd", steps=50)
    assert max(len(history) for history in result.history) < 20
    assert [entry["step"] for entry in result.history[0]] == list(range(1, len(result.history[0]) + 1))


def test_another_start_finds_what_the_first_did_not():
    net = curved_net(seed=3)
    kernel, bias = net.layers[2].get_weights()
    net.layers[2].set_weights(
        [30 * kernel, bias]
    )  # steep and saturated: a gradient says little of what is near
    counts = [
        fooling.attack(net, pictures(60), None, "pgd", eps=2.0, steps=2, restarts=restarts).success.sum()
        for restarts in (1, 20)
    ]
    assert 0 < counts[0] < counts[1]


def test_pictures_that_are_wrong_before_are_left_and_counted_apart(net):
    right = fooling.attack(net, pictures(), None, "bim", eps=16)
    labels = right.before.copy()
    labels[2] = (labels[2] + 1) % 4
    result = fooling.attack(net, pictures(), labels, "bim", eps=16)
    assert result.attacked.tolist() == [True, True, False, True, True, True]
    assert (result.images[2] == pictures()[2]).all() and not result.success[2] and not result.history[2]
    assert result.success_rate == 1
    none = fooling.attack(net, pictures(1), (labels[:1] + 1) % 4, "bim", eps=16)
    assert none.success_rate is None


@pytest.mark.parametrize(
    "options, words",
    [
        ({"method": "pgt"}, "pgd"),
        ({"method": "pgd", "norm": "l1"}, "linf"),
        ({"method": "cw", "eps": 4}, "neither eps"),
        ({"method": "deepfool", "norm": "linf"}, "l2"),
        ({"method": "bim", "restarts": 3}, "random starts"),
        ({"method": "pgd", "eps": -1}, "at least 0"),
        ({"method": "pgd", "eps": float("nan")}, "at least 0"),
        ({"method": "deepfool", "targets": 1}, "no target"),
        ({"method": "least_likely", "targets": 1}, "its own target"),
        ({"method": "pgd", "targets": 4}, "0 to 3"),
    ],
)
def test_what_cannot_be_is_said(net, options, words):
    with pytest.raises(InputError, match=words):
        fooling.attack(net, pictures(1), **options)


def test_a_target_that_is_the_label_is_said(net, attacked):
    before = attacked("fgsm").before
    with pytest.raises(InputError, match=f"target {before[0]} is the label of picture 0"):
        fooling.attack(net, pictures(1), None, "pgd", targets=int(before[0]))


def test_a_net_that_hides_its_logits_or_takes_whole_numbers_is_said():
    image = keras.Input([8, 8, 3], dtype="uint8")
    x = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0)(image)))
    with pytest.raises(InputError, match="no gradient"):
        fooling.attack(keras.Model(image, x), pictures(1))


def test_gradients_are_those_of_finite_differences(net):
    classifier, images = Classifier(net), pictures(1).astype(np.float32)
    for function in (classifier.loss_gradient, classifier.logit_gradient):
        _, _, gradient = function(images, np.array([1]))
        for place in ((0, 2, 3, 1), (0, 5, 5, 2)):
            step = np.zeros_like(images)
            step[place] = 2.0
            above, below = (float(function(images + sign * step, np.array([1]))[1][0]) for sign in (1, -1))
            np.testing.assert_allclose(gradient.numpy()[place], (above - below) / 4, rtol=0.02, atol=1e-6)


def test_deepfool_meets_the_boundary_of_a_linear_net():
    """The distance to the nearest boundary is the lead over the length of the weights' difference."""
    model, w = linear_net(classes=3)
    images = pictures(4).astype(np.float32)
    net = Classifier(model)
    logits = net.logits(images)
    labels = logits.argmax(axis=1).astype(np.int32)
    found, _ = DeepFool(net)(images, Aim(labels))
    for index, label in enumerate(labels):
        distances = [
            (logits[index, label] - logits[index, other]) / np.linalg.norm(w[:, label] - w[:, other]) * 255
            for other in range(3)
            if other != label
        ]
        np.testing.assert_allclose(lengths(found, images)[index], 1.02 * min(distances), rtol=0.02)


def test_carlini_wagner_meets_the_nearest_boundary_of_a_linear_net():
    """The distance is the lead over the length of the weights' difference, least over the other classes; to a target
    that is the second of two it is the same. In one picture the most probable other class is not the nearest."""
    model, w = linear_net(classes=3, seed=5)
    model.layers[-1].set_weights([w * np.array([1, 1, 3], np.float32)])
    w = model.layers[-1].get_weights()[0]
    images = pictures(8).astype(np.float32)
    net = Classifier(model)
    logits = net.logits(images)
    labels = logits.argmax(axis=1).astype(np.int32)
    found, _ = CarliniWagner(net)(images, Aim(labels))
    assert Aim(labels).reached(net.logits(found)).all()
    nearest = np.zeros(len(labels), np.int32)
    for index, label in enumerate(labels):
        distances = {
            other: (logits[index, label] - logits[index, other]) / np.linalg.norm(w[:, label] - w[:, other])
            for other in {0, 1, 2} - {int(label)}
        }
        nearest[index] = min(distances, key=distances.get)
        np.testing.assert_allclose(lengths(found, images)[index], 255 * min(distances.values()), rtol=0.01)
    assert (nearest != np.argsort(-logits, axis=1)[:, 1]).any()
    again, _ = CarliniWagner(net)(images, Aim(nearest, targeted=True))
    np.testing.assert_allclose(lengths(again, images), lengths(found, images), rtol=0.02)


def test_carlini_wagner_is_smaller_than_deepfool(net):
    classifier, images = Classifier(net), pictures().astype(np.float32)
    aim = Aim(classifier.logits(images).argmax(axis=1).astype(np.int32))
    deepfool, _ = DeepFool(classifier)(images, aim)
    wagner, _ = CarliniWagner(classifier)(images, aim)
    assert aim.reached(classifier.logits(deepfool)).all() and aim.reached(classifier.logits(wagner)).all()
    assert (lengths(wagner, images) < lengths(deepfool, images)).all()


def test_rounding_enlarges_no_more_than_it_must():
    """Of a linear net: the factor that just crosses the boundary, found to half a percent, not to the next 5 %."""
    model, w = linear_net(classes=2)
    image = np.full([1, 8, 8, 3], 128, np.float32)
    net = Classifier(model)
    label = net.logits(image).argmax(axis=1).astype(np.int32)
    normal = (w[:, 1 - label[0]] - w[:, label[0]]).reshape(image.shape)
    lead = -float((image * normal).sum()) / 255
    assert lead > 0
    found = image + 255 * 1.001 * lead / np.square(normal).sum() * normal
    rounded = enlarged_until_rounded(net, found, image, Aim(label))
    sizes = [np.rint(factor * (found - image)) for factor in np.arange(1, 1.5, 0.0005)]
    crossing = [change for change in sizes if (change * normal).sum() / 255 > lead]
    least = min(np.linalg.norm(change) for change in crossing)
    assert Aim(label).reached(net.logits(rounded)).all()
    assert np.linalg.norm(rounded - image) <= 1.01 * least


@pytest.mark.parametrize("method", ["fgsm", "bim"])
def test_one_pass_gives_the_answers_before_and_the_first_gradient(net, method):
    """Answers before and after, each once: the first gradient knows the answers before, and who wants the pictures
    alone does not pay for the answers after."""
    attack, asked = fooling.Attack(net, method, eps=16), []
    ask, outputs = attack.net.loss_gradient, attack.net.outputs
    attack.net.loss_gradient = lambda images, classes: asked.append("gradient") or ask(images, classes)
    attack.net.outputs = lambda images: asked.append("answers") or outputs(images)
    result = attack(pictures())
    assert asked[0] == "gradient"
    if method == "fgsm":
        assert asked == ["gradient"]
    asked.clear()
    assert result.success.any() and result.after.shape == (6,) and result.final and result.success_rate
    assert asked == ["answers"]
    scores = net.predict(pictures().astype(np.float32), verbose=0)
    assert (result.before == scores.argmax(axis=1)).all()
    np.testing.assert_allclose(result.score_before, scores.max(axis=1), rtol=1e-5)
    for label in (4, -1):
        with pytest.raises(InputError, match="labels are classes 0 to 3"):
            attack(pictures(1), [label])


@pytest.mark.slow
def test_lbfgs_is_smaller_than_fgsm_at_equal_success(net):
    classifier, images = Classifier(net), pictures().astype(np.float32)
    aim = Aim(classifier.logits(images).argmax(axis=1).astype(np.int32))
    least = np.full(len(images), np.inf)
    for eps in range(1, 60):
        result = fooling.attack(net, images, aim.classes, "fgsm", eps=eps)
        sizes = distortion(result.images, images)
        least = np.where(result.success, np.minimum(least, sizes), least)
    found, _ = LBFGS(classifier)(images, aim)
    assert aim.reached(classifier.logits(found)).all()
    assert (distortion(found, images) < least).all()


def test_distortion_is_the_root_mean_square_of_values_in_0_to_1():
    change = np.zeros([1, 2, 2, 3])
    change[0, 0, 0, 0] = 51
    np.testing.assert_allclose(distortion(change, 0 * change), np.sqrt(0.04 / 12))


def test_fgsm_and_bim_equal_foolbox(net):
    foolbox = pytest.importorskip("foolbox", reason="foolbox is in the extra test")
    tf = pytest.importorskip("tensorflow")
    images = pictures()
    labels = Classifier(net).logits(images).argmax(axis=1)
    logits_of = keras.Model(net.input, net.layers[-2].output)
    model = foolbox.TensorFlowModel(logits_of, bounds=(0, 255), device="cpu:0")
    given = tf.constant(images, tf.float32), tf.constant(labels)
    peers = {
        "fgsm": foolbox.attacks.LinfFastGradientAttack(),
        "bim": foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=1.0, steps=5),
    }
    for method, peer in peers.items():
        raw, clipped, success = peer(model, *given, epsilons=4)
        ours = fooling.attack(net, images, labels, method, eps=4, confidence=0 if method == "fgsm" else 100)
        assert (np.abs(clipped.numpy() - ours.images) > 1e-3).mean() < 0.01  # signs of gradients near 0
        assert (success.numpy() == (ours.after != labels)).all()


@pytest.mark.parametrize("method", ["fgsm", "pgd", "cw"])
def test_a_net_of_other_bounds_is_attacked_in_grey_levels(net, method):
    """The curved net takes 0..255; the same net behind a layer that undoes -1..1 takes that."""
    image = keras.Input([8, 8, 3])
    other = keras.Model(image, net(keras.layers.Rescaling(127.5, offset=127.5)(image)))
    options = EASY if method in BALLS else {}
    expected = fooling.attack(net, pictures(), None, method, **options)
    found = fooling.attack(other, pictures(), None, method, bounds=(-1, 1), **options)
    assert (found.before == expected.before).all() and found.success.all()
    assert (found.images != expected.images).mean() < 0.02  # last bits decide a few signs
    with pytest.raises(InputError, match="black and for white"):
        fooling.attack(other, pictures(), None, method, bounds=(1, 1))
