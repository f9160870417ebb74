"""Name what is in pictures."""

from __future__ import annotations

import numpy as np
from absl import flags

from tfcnn import images

from . import common

GROUP, SUMMARY = "start", "name what is in pictures"

TOP = flags.DEFINE_integer("top", 5, "How many classes to name for a picture, best first", lower_bound=1)


def main(run: common.Run) -> None:
    values = run.flags
    net = run.load_net()
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def scores(batch):
        return net.model(batch, training=False)["scores"]

    def prepare(image):
        return images.resize(image, net.size, values.resize)[0]

    rows = []
    for batch in run.batches(values.batch_size, prepare):
        inputs = np.stack([picture.prepared for picture in batch]).astype(np.float32)
        for picture, values_ in zip(batch, scores(inputs).numpy(), strict=True):
            with picture:
                best = np.argsort(-values_, kind="stable")[: TOP.value]
                picture.entry["predictions"] = [
                    {
                        "index": int(i),
                        "synset": net.classes[i][0],
                        "label": net.classes[i][1],
                        "score": float(values_[i]),
                    }
                    for i in best
                ]
                rows.append([picture.name, net.classes[best[0]][1], f"{values_[best[0]]:.1%}"])
    run.table(["file", "label", "score"], rows)


if __name__ == "__main__":
    common.start(main, batch_size=32, resize="crop")
