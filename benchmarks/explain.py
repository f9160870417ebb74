"""What saliency, Grad-CAM, SmoothGrad and occlusion cost beside a plain compiled version, and beside other programs.

    python benchmarks/explain.py [rounds] [methods by commas: saliency, grad_cam, smoothgrad, occlusion]

Plain is what a competent user writes in ten lines of TensorFlow inside one tf.function: forward and tape on the same
net and picture; 16 noisy copies in one batch; 169 patches in batches of 32. Every program is warmed up, then all of a
method are timed in turn, round after round, in this one process; the table shows the median milliseconds and the
median over rounds of the ratio to the plain version. tf-keras-vis and tf-explain are in the extra `bench`; xplique
needs TensorFlow 2.18 to 2.20, and so an environment of its own with tfcnn in it. What is not installed is left out,
and so is what a program has no method for, or cannot do in this Keras; the last lines say why.
"""

import importlib.util
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcnn import runtime  # noqa: E402

SAMPLES, PATCH, STRIDE, BATCH = 16, 56, 14, 32  # 13 x 13 = 169 patches on 224 pixels
CAM_LAYER = "head_relu"


def plain(model, image, index):
    """{method: function of nothing that gives the map}."""
    import numpy as np
    import tensorflow as tf

    from tfcnn.backbones import tap

    both = tap(model, ["logits", CAM_LAYER])

    @tf.function
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            score = model(images, training=False)["logits"][:, index]
        return tf.reduce_max(tf.abs(tape.gradient(score, images)), axis=-1)

    @tf.function
    def cam(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = both(images, training=False)
            features, score = outputs[CAM_LAYER], outputs["logits"][:, index]
        weights = tf.reduce_mean(tape.gradient(score, features), axis=[1, 2], keepdims=True)
        coarse = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
        return tf.image.resize(coarse, [224, 224])[..., 0]

    @tf.function
    def smooth(images):
        noisy = images + 0.15 * 255.0 * tf.random.normal([SAMPLES, 224, 224, 3])
        with tf.GradientTape() as tape:
            tape.watch(noisy)
            score = model(noisy, training=False)["logits"][:, index]
        return tf.reduce_max(tf.abs(tf.reduce_mean(tape.gradient(score, noisy), axis=0)), axis=-1)

    scores = tf.function(lambda images: model(images, training=False)["scores"][:, index])
    starts = range(0, 224 - PATCH + 1, STRIDE)

    def occlusion():
        copies = np.repeat(image.numpy(), len(starts) ** 2, axis=0)
        for number, (top, left) in enumerate((top, left) for top in starts for left in starts):
            copies[number, top : top + PATCH, left : left + PATCH] = 127.0
        found = [scores(tf.constant(copies[k : k + BATCH])).numpy() for k in range(0, len(copies), BATCH)]
        return np.concatenate(found).reshape(len(starts), -1)

    return {
        "saliency": lambda: gradient(image).numpy(),
        "grad_cam": lambda: cam(image).numpy(),
        "smoothgrad 16": lambda: smooth(image).numpy(),
        "occlusion 169": occlusion,
    }


def ours(model, image, index):
    """The same by tfcnn, which also gives class, logits and scores of the picture, and all classes' occlusion maps."""
    import tensorflow as tf

    from tfcnn.visualization.occlusion import occlusion
    from tfcnn.visualization.saliency import explained

    picture, indices = image[0].numpy(), tf.constant([index])
    hide = occlusion(model, patch=PATCH, stride=STRIDE)
    maps = {
        "saliency": explained(model, "gradient"),
        "grad_cam": explained(model, "grad_cam"),
        "smoothgrad 16": explained(model, "smoothgrad", samples=SAMPLES),
    }
    found = {name: lambda f=f: f(image, indices)[0].numpy() for name, f in maps.items()}
    return {**found, "occlusion 169": lambda: hide(picture).map(index)}


def tf_keras_vis(model, image, index):
    """tf-keras-vis has no occlusion of patches."""
    import keras
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    logits, picture = keras.Model(model.inputs, model.output["logits"]), image.numpy()
    saliency, cam, score = (
        Saliency(logits, clone=False),
        Gradcam(logits, clone=False),
        CategoricalScore([index]),
    )
    return {
        "saliency": lambda: saliency(score, picture),
        "grad_cam": lambda: cam(score, picture, penultimate_layer=CAM_LAYER),
        "smoothgrad 16": lambda: saliency(score, picture, smooth_samples=SAMPLES, smooth_noise=0.15),
    }


def tf_explain(model, image, index):
    """tf-explain's maps of one picture and class; its patches lie side by side, 13 x 13 of them at 18 pixels."""
    import keras
    from tf_explain.core.grad_cam import GradCAM
    from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
    from tf_explain.core.smoothgrad import SmoothGrad
    from tf_explain.core.vanilla_gradients import VanillaGradients

    logits, picture = keras.Model(model.inputs, model.output["logits"]), image.numpy()
    scores = keras.Model(model.inputs, model.output["scores"])
    gradient, cam, smooth, patches = VanillaGradients(), GradCAM(), SmoothGrad(), OcclusionSensitivity(BATCH)
    return {
        "saliency": lambda: gradient.compute_gradients(picture, logits, index).numpy(),
        "grad_cam": lambda: cam.explain((picture, None), logits, index, CAM_LAYER, use_guided_grads=False),
        "smoothgrad 16": lambda: smooth.explain((picture, None), logits, index, SAMPLES, 0.15 * 255),
        "occlusion 169": lambda: patches.get_sensitivity_map(scores, picture[0], index, 18),
    }


def xplique(model, image, index):
    """xplique's attributions of one picture and class."""
    import keras
    import numpy as np
    from xplique.attributions import GradCAM, Occlusion, Saliency, SmoothGrad

    logits, picture = keras.Model(model.inputs, model.output["logits"]), image.numpy()
    target = np.eye(1000, dtype=np.float32)[[index]]
    methods = {
        "saliency": Saliency(logits),
        "grad_cam": GradCAM(logits, conv_layer=CAM_LAYER),
        "smoothgrad 16": SmoothGrad(logits, nb_samples=SAMPLES, noise=0.15),
        "occlusion 169": Occlusion(logits, patch_size=PATCH, patch_stride=STRIDE, batch_size=BATCH),
    }
    return {name: lambda method=method: np.array(method(picture, target)) for name, method in methods.items()}


PEERS = {"tf-keras-vis": tf_keras_vis, "tf-explain": tf_explain, "xplique": xplique}


def programs(model, image, index, wanted):
    """{method: {program: function}} of the methods that begin with one of `wanted`, and why others are missing."""
    found = {"plain": plain(model, image, index), "tfcnn": ours(model, image, index)}
    absent = []
    for name, make in PEERS.items():
        if importlib.util.find_spec(name.replace("-", "_")) is None:
            absent.append(f"{name}: not installed")
            continue
        try:
            found[name] = make(model, image, index)
        except Exception as error:  # peers that this Keras has left behind
            absent.append(f"{name}: {type(error).__name__}: {error}")
    by_method = {}
    for name, methods in found.items():
        for method, run in methods.items():
            if not method.startswith(wanted):
                continue
            try:
                for _ in range(2):
                    run()
            except Exception as error:
                absent.append(f"{name}, {method}: {type(error).__name__}: {error}")
                continue
            by_method.setdefault(method, {})[name] = run
    return by_method, absent


def main(rounds=12, wanted=""):
    runtime.start()
    import numpy as np
    import tensorflow as tf

    from tfcnn import images
    from tfcnn.backbones import classifier

    picture = images.resize(images.read(images.packaged()[0]), 224, "crop")[0][None].astype(np.float32)
    by_method, absent = programs(
        classifier("efficientnet_lite0"), tf.constant(picture), 282, tuple(wanted.split(","))
    )
    rounds = int(rounds)
    print(f"one picture, EfficientNet-Lite0 at 224 px, {rounds} rounds")
    print(f"{'method':16}{'program':14}{'ms':>8}{'ratio':>8}")
    for method, runs in by_method.items():
        seconds = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                begun = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - begun)
        for name, times in seconds.items():
            ratio = statistics.median(mine / bare for mine, bare in zip(times, seconds["plain"], strict=True))
            print(f"{method:16}{name:14}{1000 * statistics.median(times):8.1f}{ratio:8.2f}", flush=True)
    for line in absent:
        print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
