"""Small nets whose attacks can be worked out or run in no time."""

import keras
import numpy as np

SIDE = 8


def linear_net(classes=3, seed=0):
    """Logits x w, with x of 8 x 8 x 3 values 0..255 divided by 255: (model, w [192, K])."""
    w = np.random.default_rng(seed).normal(size=[SIDE * SIDE * 3, classes]).astype(np.float32)
    image = keras.Input([SIDE, SIDE, 3])
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0)(image))
    dense = keras.layers.Dense(classes, use_bias=False, activation="softmax")
    model = keras.Model(image, dense(x), name="linear")
    dense.set_weights([w])
    return model, w


def curved_net(classes=4, seed=0):
    """A convolution, tanh, and a dense layer of fixed random weights; its labels are whatever it says."""
    keras.utils.set_random_seed(seed)
    image = keras.Input([SIDE, SIDE, 3])
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = keras.layers.Conv2D(6, 3, activation="tanh")(x)
    x = keras.layers.Dense(classes)(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Softmax()(x), name="curved")


def pictures(count=6, seed=1, low=60, high=196):
    """Random pictures away from the ends of the range."""
    return np.random.default_rng(seed).integers(low, high, [count, SIDE, SIDE, 3]).astype(np.uint8)
