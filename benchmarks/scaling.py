"""How well a training would scale over many GPUs, on paper: from a step's measured time and the size of its gradients.

After each step a cluster sums the gradients of all devices (ring all-reduce over the nodes), and nothing is computed
meanwhile:
    seconds = 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency,    efficiency = step / (step + seconds)
with n nodes of --gpus each, whose sum inside a node is taken as free. Left out: waiting for the slowest device, for
input, and the overlap of summing with the backward pass, which would hide some of it.

The default step is that of faster_rcnn_voc's network on 16 pictures of 320 px, two CPU cores: 16 times the 65 ms of
docs/detection.md, by `python benchmarks/detectors.py`; its gradients are the 6.2 M weights in float32. No GPU has been
measured: the second row says what a GPU of twenty times the speed would make of it, the third a net of 137 M weights.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --step=0.08 --megabytes=548      # a step that you measured on your GPU
"""

import argparse
import math

GPUS = (8, 64, 512)


def efficiency(step, megabytes, gpus, options):
    nodes = math.ceil(gpus / options.gpus)
    seconds = 2 * (nodes - 1) / nodes * megabytes / 1000 / options.bandwidth
    seconds += 2 * (nodes - 1) * options.latency / 1e6
    return step / (step + seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=float, help="seconds of a step on one device")
    parser.add_argument("--megabytes", type=float, default=24.8, help="of its gradients")
    parser.add_argument("--gpus", type=int, default=4, help="of a node")
    parser.add_argument("--bandwidth", type=float, default=10.0, help="between nodes, in gigabytes a second")
    parser.add_argument("--latency", type=float, default=20.0, help="of a message, in microseconds")
    options = parser.parse_args()
    rows = [("measured on two CPU cores", 1.04, 24.8), ("a GPU 20 times as fast", 0.052, 24.8)]
    rows.append(("VGG-16's weights, 0.2 s a step", 0.2, 548.0))
    if options.step is not None:
        rows = [("as given", options.step, options.megabytes)]
    print(f"nodes of {options.gpus} GPUs, {options.bandwidth:g} GB/s and {options.latency:g} us between them")
    print(f"{'step':32} {'seconds':>8} {'gradients':>10}  " + "  ".join(f"{count:>4} GPUs" for count in GPUS))
    for name, step, megabytes in rows:
        shares = "  ".join(f"{efficiency(step, megabytes, count, options):9.1%}" for count in GPUS)
        print(f"{name:32} {step:8.3f} {megabytes:7.1f} MB  {shares}")


if __name__ == "__main__":
    main()
