"""A net of a few weights and a data set of a few pictures, on which the loop's promises are tested."""

import keras
import numpy as np
import tensorflow as tf

EXAMPLES, SIDE, CLASSES = 37, 6, 3


def arrays():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(EXAMPLES, SIDE, SIDE, 3)).astype(np.float32)
    return {
        "image": image,
        "label": rng.integers(0, CLASSES, EXAMPLES).astype(np.int32),
        "image_id": np.array([f"picture{k}" for k in range(EXAMPLES)]),
    }


def batches(batch_size=8, changed=None):
    """A data source like tfcnn.datasets.pipeline's; its epochs end with an uneven batch."""
    data = arrays() | (changed or {})

    def start(step, shard=0, of=1):
        whole = tf.data.Dataset.from_tensor_slices(data).batch(batch_size).repeat().skip(step)

        def part(batch):
            count = tf.shape(batch["label"])[0]
            return {n: v[count * shard // of : count * (shard + 1) // of] for n, v in batch.items()}

        return whole.map(part) if of > 1 else whole

    return start


def small_net(batch_norm=False, dropout=0.0, width=4):
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(width, 3, name="conv", kernel_initializer=keras.initializers.GlorotUniform(1))(
        image
    )
    if batch_norm:
        x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Flatten(name="flat")(keras.layers.ReLU(name="relu")(x))
    if dropout:
        x = keras.layers.Dropout(dropout, seed=3, name="drop")(x)
    x = keras.layers.Dense(CLASSES, name="logits", kernel_initializer=keras.initializers.GlorotUniform(2))(x)
    return keras.Model(image, x, name="small")


class SmallTrainee:
    def __init__(self, net=None):
        self.networks = {"net": net or small_net()}
        self.data = arrays()

    def losses(self, batch):
        logits = self.networks["net"](batch["image"], training=True)
        return {
            "softmax": tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)),
            "size": 0.01 * tf.reduce_sum(tf.square(logits)),
        }

    def validate(self):
        logits = self.networks["net"](self.data["image"], training=False).numpy()
        return {"accuracy": float((logits.argmax(1) == self.data["label"]).mean())}

    def weights(self):
        return {v.path: v.numpy() for v in self.networks["net"].weights}
