"""What attacks reach and cost beside a plain program, foolbox, ART and cleverhans, on the same net, pictures and eps.

    python benchmarks/attacks.py
    python benchmarks/attacks.py --images=photos.zip --limit=20 --size=128 --smallest

Every program runs FGSM, and PGD of 10 steps of eps / 4 from a random start, at eps 4 in linf, on pictures that the net
names rightly by its own answer. After a warm-up all run in turn, round after round, in this one process; the tables
show the share of pictures whose class is another after rounding to 8 bits inside the ball, the median seconds, and the
median over rounds of the ratio to the plain program. The plain program is a compiled gradient and NumPy's sign; its
PGD takes all steps of all pictures, where tfcnn lets a picture go that is fooled. tfcnn rounds to 8 bits and knows the
answers before. Rows "with answers" compare like with like where success is asked for: tfcnn's is `success`, that of the
pictures of 8 bits; the peer's own pictures are rounded and shown to the net, one compiled pass more. foolbox is in the
extra `test`; ART (adversarial-robustness-toolbox) and cleverhans are run where they are installed.

--smallest compares instead the attacks for the smallest change with FGSM, whose eps is raised picture by picture, a
grey level at a time, until the picture is fooled.
"""

import argparse
import importlib.util
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcnn import runtime  # noqa: E402

EPS, STEPS = 4.0, 10
PEERS = {"foolbox": "foolbox", "art": "ART", "cleverhans": "cleverhans"}


def plain(model, images, labels):
    """{attack: function of nothing to pictures}: a compiled gradient, NumPy's sign, and nothing else."""
    import numpy as np
    import tensorflow as tf

    @tf.function
    def gradient(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = model(x, training=False)["logits"]
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        return tape.gradient(loss, x)

    def fgsm():
        return np.clip(images + EPS * np.sign(gradient(images, labels).numpy()), 0, 255)

    def pgd():
        start = np.random.default_rng(0).uniform(-EPS, EPS, images.shape)
        x = np.clip(images + start, 0, 255).astype(np.float32)
        for _ in range(STEPS):
            moved = x + EPS / 4 * np.sign(gradient(x, labels).numpy())
            x = np.clip(np.clip(moved, images - EPS, images + EPS), 0, 255)
        return x

    return {"fgsm": fgsm, "pgd": pgd}


def ours(model, images, labels):
    """The same of tfcnn, on 8 bits."""
    from tfcnn.fooling import Attack

    attacks = {name: Attack(model, name, EPS) for name in ("fgsm", "pgd")}
    return {name: lambda attack=attack: attack(images, labels).images for name, attack in attacks.items()}


def ours_with_answers(model, images, labels):
    """The same of tfcnn, and the answers to the pictures of 8 bits, asked for success."""
    from tfcnn.fooling import Attack

    def run(attack):
        result = attack(images, labels)
        result.success  # noqa: B018  (asks the net)
        return result.images

    attacks = {name: Attack(model, name, EPS) for name in ("fgsm", "pgd")}
    return {name: lambda attack=attack: run(attack) for name, attack in attacks.items()}


def with_answers(model, runs, images):
    """A peer's attacks, each with one pass more for the answers to its pictures rounded to 8 bits inside the ball."""
    import numpy as np
    import tensorflow as tf

    answers = tf.function(lambda x: model(x, training=False)["logits"])

    def run(attack):
        made = attack()
        whole = np.clip(np.rint(made), np.ceil(images - EPS), np.floor(images + EPS))
        answers(whole.astype(np.float32)).numpy().argmax(axis=1)
        return made

    return {name: lambda attack=attack: run(attack) for name, attack in runs.items()}


def foolbox(model, images, labels):
    """The same of foolbox."""
    import foolbox as fb
    import tensorflow as tf

    net = fb.TensorFlowModel(lambda x: model(x, training=False)["logits"], bounds=(0, 255))
    attacks = {
        "fgsm": fb.attacks.LinfFastGradientAttack(),
        "pgd": fb.attacks.LinfPGD(abs_stepsize=EPS / 4, steps=STEPS, random_start=True),
    }
    given = tf.constant(images), tf.constant(labels, tf.int64)
    return {
        name: lambda attack=attack: attack(net, *given, epsilons=EPS)[1].numpy()
        for name, attack in attacks.items()
    }


def art(model, images, labels):
    """The same of ART."""
    import keras
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    net = TensorFlowV2Classifier(
        keras.Model(model.input, model.output["logits"]),
        nb_classes=model.output["logits"].shape[-1],
        input_shape=images.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0, 255),
    )
    options = {"batch_size": len(images), "verbose": False}
    attacks = {
        "fgsm": FastGradientMethod(net, eps=EPS, batch_size=len(images)),
        "pgd": ProjectedGradientDescent(
            net, eps=EPS, eps_step=EPS / 4, max_iter=STEPS, num_random_init=1, **options
        ),
    }
    return {name: lambda attack=attack: attack.generate(images, labels) for name, attack in attacks.items()}


def cleverhans(model, images, labels):
    """The same of cleverhans."""
    import numpy as np
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    def net(x):
        return model(x, training=False)["logits"]

    bounds = {"clip_min": 0.0, "clip_max": 255.0}
    return {
        "fgsm": lambda: np.asarray(fast_gradient_method(net, images, EPS, np.inf, y=labels, **bounds)),
        "pgd": lambda: np.asarray(
            projected_gradient_descent(
                net, images, EPS, EPS / 4, STEPS, np.inf, y=labels, rand_init=True, rand_minmax=EPS, **bounds
            )
        ),
    }


def pictures(arguments):
    """The pictures as the net sees them, the net, and its own answers."""
    import numpy as np

    from tfcnn import images
    from tfcnn.backbones import classifier
    from tfcnn.fooling.classifier import Classifier

    files = images.find([arguments.images]) if arguments.images else images.packaged()
    model = classifier("efficientnet_lite0", size=arguments.size)
    files = files[: arguments.limit]
    seen = np.stack([images.resize(images.read(each), arguments.size, "crop")[0] for each in files])
    net = Classifier(model)
    return seen.astype(np.float32), model, net, net.logits(seen).argmax(axis=1).astype(np.int32)


def smallest(arguments):
    """Prints how large the changes of the attacks for the smallest change are, after rounding to 8 bits."""
    import numpy as np

    from tfcnn.fooling import Attack
    from tfcnn.fooling.classifier import Aim
    from tfcnn.fooling.lbfgs import distortion

    seen, _, net, labels = pictures(arguments)
    print(f"{len(seen)} pictures, EfficientNet-Lite0 at {arguments.size} px")
    print(f"{'attack':10}{'fooled':>8}{'l2':>8}{'distortion':>12}{'median':>9}{'seconds':>9}", flush=True)

    def least_fgsm():
        made, live, eps = seen.copy(), np.arange(len(seen)), 0
        while len(live) and eps < 64:
            eps += 1
            result = Attack(net, "fgsm", eps)(seen[live], labels[live])
            made[live[result.success]] = result.images[result.success]
            live = live[~result.success]
        return made

    sizes, before, aim = {}, {}, Aim(labels)

    def compare(one, other, known, words):
        smaller, equal = (known[one] < known[other]).sum(), (known[one] == known[other]).sum()
        ratio = np.mean(known[one] / known[other])
        counts = f"{smaller} of {len(seen)}, equal on {equal}"
        print(f"{words} {one} is smaller than {other} on {counts}; mean ratio {ratio:.3f}", flush=True)

    for name in ("fgsm", "deepfool", "cw", "lbfgs"):
        begun = time.perf_counter()
        if name == "fgsm":
            made = least_fgsm()
        else:
            run = Attack(net, name).run(seen.shape[1:])
            found, _ = run(seen, aim)
            before[name] = np.where(aim.reached(net.logits(found)), distortion(found, seen), np.inf)
            made = run.rounded(found, seen, aim)
        seconds = time.perf_counter() - begun
        fooled = (net.logits(made).argmax(axis=1) != labels).mean()
        l2 = np.sqrt(np.square(made.astype(np.float64) - seen).sum(axis=(1, 2, 3))).mean()
        sizes[name] = distortion(made, seen)
        print(
            f"{name:10}{fooled:8.0%}{l2:8.1f}{sizes[name].mean():12.5f}{np.median(sizes[name]):9.5f}{seconds:9.0f}",
            flush=True,
        )
        if name == "cw":
            compare("cw", "deepfool", before, "before rounding")
            compare("cw", "deepfool", sizes, "in 8 bits")
    compare("lbfgs", "fgsm", sizes, "in 8 bits")


def in_a_ball(arguments):
    """Prints success, difference and time of the programs, for FGSM and PGD."""
    import numpy as np

    seen, model, net, labels = pictures(arguments)
    programs = {"plain": plain(model, seen, labels), "tfcnn": ours(net, seen, labels)}
    for package, make in (("foolbox", foolbox), ("art", art), ("cleverhans", cleverhans)):
        if importlib.util.find_spec(package):
            programs[PEERS[package]] = make(model, seen, labels)
    programs["tfcnn, with answers"] = ours_with_answers(net, seen, labels)
    if "cleverhans" in programs:
        programs["cleverhans, with answers"] = with_answers(model, programs["cleverhans"], seen)
    print(
        f"{len(seen)} pictures, EfficientNet-Lite0 at {arguments.size} px, eps {EPS:g}, {arguments.rounds} rounds"
    )
    for attack in arguments.attacks.split(","):
        found = {name: each[attack]() for name, each in programs.items()}  # the first call compiles
        seconds = {name: [] for name in programs}
        for _ in range(arguments.rounds):
            for name, each in programs.items():
                begun = time.perf_counter()
                each[attack]()
                seconds[name].append(time.perf_counter() - begun)
        print(f"\n{attack:26}{'fooled':>8}{'linf':>6}{'other values':>14}{'seconds':>9}{'ratio':>7}")
        for name, made in found.items():
            whole = np.clip(np.rint(made), np.ceil(seen - EPS), np.floor(seen + EPS))
            fooled = (net.logits(whole).argmax(axis=1) != labels).mean()
            others = (np.abs(whole - np.rint(found["plain"])) > 0.5).mean() if attack == "fgsm" else np.nan
            ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["plain"], strict=True))
            print(
                f"{name:26}{fooled:8.1%}{np.abs(whole - seen).max():6.0f}{others:14.3%}"
                f"{statistics.median(seconds[name]):9.2f}{ratio:7.2f}"
            )
    for package, name in PEERS.items():
        if name not in programs:
            print(f"{name:26} skipped: the package {package} is not installed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="a folder or .zip; none takes the packaged photographs")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="side of the net's pictures, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attacks", default="fgsm,pgd")
    parser.add_argument("--smallest", action="store_true")
    given = parser.parse_args()
    runtime.start()
    (smallest if given.smallest else in_a_ball)(given)
