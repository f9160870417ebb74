"""Seconds a picture of the detectors on a HOG pyramid, and how much of it is the compiled net.

    python benchmarks/pyramid_detectors.py --data=VOC2007 [--models=hog_voc,dpm_voc] [--pictures=12] [--rounds=3]

Every model in turn on the same pictures of the val split, one at a time; the median of the rounds. The first picture,
for which the program of its size is compiled, is not counted.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tfcnn  # noqa: E402
from tfcnn import datasets  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", default="hog_voc,dpm_voc")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    records = datasets.open("voc", options.data, "val").examples
    pictures = [record.image() for record in records[:: len(records) // options.pictures][: options.pictures]]
    predictors = {name: tfcnn.detector(name, batch_size=1) for name in options.models.split(",")}
    whole, net = ({name: [] for name in predictors} for _ in range(2))
    for name, predictor in predictors.items():
        predictor(pictures[:1])
        sides = predictor.method.output.pyramid.sides(predictor.image_size)
        weights = predictor.method.model.count_params()
        print(f"{name}: {weights:,} weights, {len(sides)} levels of {sides[0]} to {sides[-1]} px")
    for _ in range(options.rounds):
        for name, predictor in predictors.items():
            ready = [predictor.prepare(picture).pictures[0] for picture in pictures]
            works = [(predictor, whole, [[picture] for picture in pictures])]
            works.append((predictor.method.on_pyramid, net, ready))
            for work, taken, given in works:
                begun = time.perf_counter()
                for picture in given:
                    work(picture)
                taken[name].append((time.perf_counter() - begun) / len(pictures))
    print("model      s a picture  of which the net")
    for name in predictors:
        print(f"{name:10} {statistics.median(whole[name]):11.3f}  {statistics.median(net[name]):16.3f}")


if __name__ == "__main__":
    main()
