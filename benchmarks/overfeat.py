"""What a dense pass costs beside the same windows one by one, on a picture twice as large as the net's window.

    python benchmarks/overfeat.py [rounds] [net ...]

Both give the same windows' scores; where the net pads its maps they differ, and the table says by how much. The windows
are computed in batches of 16, which is the fastest plain way. The table shows median seconds and the median over rounds
of the ratio. overfeat_accurate pools its last map at 3 x 3 offsets; EfficientNet-Lite0 has no such pooling.
"""

import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcnn import runtime  # noqa: E402

BATCH = 16


def plain(model, window):
    """A function from a picture [H, W, 3] to the scores of all its windows, [h w, K], cut out one by one."""
    import numpy as np
    import tensorflow as tf

    answer = tf.function(lambda batch: model(batch, training=False)["scores"], reduce_retracing=True)

    def scores(picture):
        height, width = ((side - window.window) // window.step + 1 for side in picture.shape[:2])
        corners = [(y * window.step, x * window.step) for y in range(height) for x in range(width)]
        crops = [picture[y : y + window.window, x : x + window.window] for y, x in corners]
        batches = [np.stack(crops[first : first + BATCH]) for first in range(0, len(crops), BATCH)]
        return np.concatenate([answer(tf.constant(batch)).numpy() for batch in batches])

    return scores


def main(rounds=3, nets=("efficientnet_lite0", "overfeat_accurate")):
    runtime.start()
    import numpy as np

    from tfcnn import backbones, images
    from tfcnn.localization.overfeat import SlidingWindow

    print(f"a picture twice as large as the window, {rounds} rounds")
    print(f"{'net':20}{'windows':>9}{'dense s':>9}{'plain s':>9}{'ratio':>8}{'largest difference':>20}")
    for name in nets:
        here = backbones.offline(name)
        model = backbones.classifier(name, "imagenet" if here else None)
        window = SlidingWindow(model)
        picture = images.resize(images.read(images.packaged()[0]), 2 * window.window)[0].astype(np.float32)
        picture = np.ascontiguousarray(picture[: window.size_of(*picture.shape[:2], picture.shape[0])[0]])
        programs = {"dense": lambda p, w=window: w.maps(p)["scores"], "plain": plain(model, window)}
        seconds, found = {key: [] for key in programs}, {}
        for round_ in range(rounds + 1):  # the first warms up
            for key, program in programs.items():
                begun = time.perf_counter()
                found[key] = program(picture)
                if round_:
                    seconds[key].append(time.perf_counter() - begun)
        ratio = statistics.median(p / d for p, d in zip(seconds["plain"], seconds["dense"], strict=True))
        dense, each = (statistics.median(seconds[key]) for key in ("dense", "plain"))
        off = np.abs(found["dense"].reshape(found["plain"].shape) - found["plain"]).max()
        print(f"{name:20}{len(found['plain']):9}{dense:9.2f}{each:9.2f}{ratio:8.1f}{off:20.2e}", flush=True)


if __name__ == "__main__":
    main(*[int(word) for word in sys.argv[1:2]], *([tuple(sys.argv[2:])] if sys.argv[2:] else []))
