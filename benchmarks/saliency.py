"""What a saliency map of one picture costs beside a bare compiled GradientTape, and beside other programs.

    python benchmarks/saliency.py [rounds]

Every program is warmed up, then all are timed in turn, round after round, in this one process; the table shows
the median milliseconds and the median over rounds of the ratio to the bare tape. tf-keras-vis and tf-explain are
in the extra `bench`; xplique needs TensorFlow 2.18 to 2.20, and so an environment of its own with tfcnn in it.
"""

import importlib.util
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcnn import runtime  # noqa: E402


def programs(model, picture, index):
    """Every program that is installed: {name: function of nothing}, each giving a map of the same picture."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfcnn.visualization import gradients, saliency

    @tf.function
    def bare(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            score = model(image, training=False)["logits"][0, index]
        return tape.gradient(score, image)

    maps = saliency.saliency_maps(gradients.class_gradients(model))
    image, indices = tf.constant(picture), tf.constant([index])
    found = {
        "bare compiled GradientTape": lambda: bare(image).numpy(),
        "tfcnn": lambda: maps(image, indices)[0].numpy(),
    }
    logits = keras.Model(model.inputs, model.output["logits"])
    if importlib.util.find_spec("tf_keras_vis"):
        from tf_keras_vis.saliency import Saliency
        from tf_keras_vis.utils.scores import CategoricalScore

        theirs, score = Saliency(logits, clone=False), CategoricalScore([index])
        found["tf-keras-vis"] = lambda: theirs(score, picture)
    if importlib.util.find_spec("tf_explain"):
        from tf_explain.core.vanilla_gradients import VanillaGradients

        explainer = VanillaGradients()
        found["tf-explain"] = lambda: explainer.compute_gradients(picture, logits, index).numpy()
    if importlib.util.find_spec("xplique"):
        from xplique.attributions import Saliency as Attribution

        attribution, target = Attribution(logits), np.eye(1000, dtype=np.float32)[[index]]
        found["xplique"] = lambda: np.array(attribution(picture, target))
    return found


def main(rounds=30):
    runtime.start()
    import numpy as np

    from tfcnn import images
    from tfcnn.backbones import classifier

    picture = images.resize(images.read(images.packaged()[0]), 224, "crop")[0][None].astype(np.float32)
    found = programs(classifier("efficientnet_lite0"), picture, 282)
    seconds = {name: [] for name in found}
    for _ in range(3):
        for run in found.values():
            run()
    for _ in range(rounds):
        for name, run in found.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    plain = seconds["bare compiled GradientTape"]
    print(f"saliency of one picture, EfficientNet-Lite0 at 224 px, {rounds} rounds")
    print(f"{'program':28}{'ms':>8}{'ratio':>8}")
    for name, times in seconds.items():
        ratio = statistics.median(mine / bare for mine, bare in zip(times, plain, strict=True))
        print(f"{name:28}{1000 * statistics.median(times):8.1f}{ratio:8.2f}")
    for name in ("tf_keras_vis", "tf_explain", "xplique"):
        if not importlib.util.find_spec(name):
            print(f"{name.replace('_', '-'):28} not installed")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
