"""Pictures a second of the YOLO paper's two networks on this machine, by every path that there is.

    python benchmarks/yolo.py [--net=yolo,fast_yolo] [--batch=8] [--rounds=5] [--paths=TensorFlow,LiteRT]
    python benchmarks/yolo.py --model=out/train_detector/release [--images=photos] \
        [--data=voc2007-320.zip --limit=200 --calibration=photos]

The networks are the paper's of 24 and 9 convolutions at 448 px with random weights, decoding and suppression included.
They have no batch norm, so there is none to fuse. Each path is made, measured and forgotten: the large network with its
copies would not fit beside the others. In each round the machine's own int8 peak, a convolution by LiteRT, is measured
right after the path. A row has the medians over the rounds: wall time, processor time of all threads (which others on
the machine disturb less), and the share of that peak. Peers are measured where they are installed, else said to be
absent; all have random weights.

The second command measures a trained detector of any kind from the files to the detections: reading, resizing, network,
suppression; its ratios are of processor time. With --data it says beside each path its 11-point mAP on the first
--limit pictures of VOC's val and what it loses to the first path, as `evaluate --limit` does (a release has learned
val: then the figures are too high, and only the differences count).
"""

import argparse
import functools
import gc
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import weakref

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

import tfcnn  # noqa: E402
from tfcnn import backbones, datasets, images  # noqa: E402
from tfcnn.datasets.classes import match  # noqa: E402
from tfcnn.detection.yolo import yolo  # noqa: E402
from tfcnn.detection.yolo_weights import CONVOLUTIONS, HIDDEN, SIZE, layers_of  # noqa: E402
from tfcnn.errors import InputError  # noqa: E402
from tfcnn.evaluation import voc  # noqa: E402
from tfcnn.export import exported, litert  # noqa: E402
from tfcnn.runtime import cores  # noqa: E402

PAPER = {"yolo": 45, "fast_yolo": 155}  # frames/s on a Titan X
PLACES, CHANNELS = 56, 1024  # of the convolution that shows the machine's peak


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="fast_yolo,yolo")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paths", default="", help="only rows whose names begin with one of these")
    parser.add_argument("--model", help="a trained detector, measured from files to detections")
    parser.add_argument("--images", default="", help="for --model: a folder; none: packaged photographs")
    parser.add_argument(
        "--runtime", default="tf,litert,litert_int8", help="for --model; litert_int8:100 with 100 proposals"
    )
    parser.add_argument("--calibration", help="for --model: pictures for the ranges of int8, a folder")
    parser.add_argument("--data", help="for --model: a folder or zip of VOC, on whose val mAP is measured")
    parser.add_argument("--limit", type=int, default=200, help="pictures of --data")
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")
    print(f"{cores()} cores, TensorFlow {tf.__version__}", flush=True)
    if options.model:
        try:
            end_to_end(options)
        except InputError as error:
            parser.error(str(error))
        return
    wanted = tuple(options.paths.split(","))
    peak = make_peak(calibrated=True)
    report("the machine's own peak, and peers", peaks() | peers(), wanted, peak, options.rounds)
    for name in options.net.split(","):
        title = f"{name} at {SIZE} px; the paper: {PAPER[name]} frames/s on a Titan X"
        report(title, paths(name, options.batch), wanted, peak, options.rounds)


def paths(name, batch):
    """{row: (what makes the call, pictures a call, operations a picture)} of one of the networks."""
    one, many = (
        np.random.default_rng(0).uniform(0, 255, (n, SIZE, SIZE, 3)).astype("f4") for n in (1, batch)
    )
    rows = {
        "TensorFlow": graph,
        "TensorFlow with frozen weights": frozen,
        "TensorFlow with bfloat16 by oneDNN": chosen_bfloat16,
        "TensorFlow in bfloat16": lambda name, x: graph(name, x, "bfloat16"),
        "LiteRT float": lite,
        "LiteRT int8": lambda name, x: lite(name, x, [x]),
        "convolutions LiteRT int8, dense bfloat16": lite_convolutions,
        "onnxruntime": onnx,
    }
    operations = 2 * multiplications(name)
    print(f"\n{name}: {operations / 1e9:.1f} billion operations a picture")
    return {
        f"{row}, batch {len(x)}": (functools.partial(make, name, x), len(x), operations)
        for row, make in rows.items()
        for x in (one, many)
    }


def build(name, policy="float32"):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    model = yolo(backbones.backbone(name, None), 20, size=SIZE, hidden=HIDDEN[name])
    keras.config.set_dtype_policy("float32")
    return model


def multiplications(name):
    """Of convolutions and dense layers, for one picture."""
    total, side, depth = 0, SIZE, 3
    for item in CONVOLUTIONS[name]:
        side //= 2 if item == "max" or len(item) == 3 else 1
        if item != "max":
            total += side**2 * item[1] ** 2 * depth * item[0]
            depth = item[0]
    return total + sum(int(np.prod(shape)) for layer, shape in layers_of(name, 20) if "conv" not in layer)


def graph(name, pictures, policy="float32"):
    model, picture = build(name, policy), tf.constant(pictures)
    call = tf.function(lambda: model(picture, training=False)["count"])
    return lambda: call().numpy()


def frozen(name, pictures):
    from tensorflow.python.framework import convert_to_constants

    model, picture = build(name), tf.constant(pictures)
    spec = tf.TensorSpec(pictures.shape, tf.float32)
    function = tf.function(lambda x: model(x, training=False)["count"]).get_concrete_function(spec)
    call = convert_to_constants.convert_variables_to_constants_v2(function)
    return lambda: call(picture)[0].numpy()


def chosen_bfloat16(name, pictures):
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    try:
        call = graph(name, pictures)
        call()  # its first run optimises the graph
    finally:
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": False})
    return call


def lite(name, pictures, calibration=None):
    """The network by LiteRT, decoding and suppression by TensorFlow."""
    raw, detect = halves(name, pictures)
    program = litert.Program(raw, list(pictures.shape), cores(), calibration)
    return lambda: detect(program(pictures)["raw"]).numpy()


def onnx(name, pictures):
    """The network by onnxruntime, decoding and suppression by TensorFlow."""
    raw, detect = halves(name, pictures)
    with tempfile.TemporaryDirectory() as folder:
        answer = exported.export(raw, folder, "onnx", threads=cores()).answer
    return lambda: detect(answer(pictures)["raw"]).numpy()


def halves(name, pictures):
    """(the network up to its raw output, what decodes and suppresses that output of these pictures)."""
    model, picture = build(name), tf.constant(pictures)
    output = model.layers[-1]
    raw = keras.Model(model.inputs[0], {"raw": output.input[0]})
    return raw, tf.function(lambda x: output([x, picture])["count"])


def lite_convolutions(name, pictures):
    """The convolutions by LiteRT in int8, the rest by TensorFlow: dense layers in bfloat16, decoding and suppression.

    To convert the dense layers of the large network, 3/4 of its weights, takes more memory than most machines have.
    """
    plain, rest, picture = build(name), build(name, "bfloat16"), tf.constant(pictures)
    last_map = plain.get_layer("flatten").input
    convolutions = keras.Model(plain.inputs[0], {"map": last_map})
    program = litert.Program(convolutions, list(pictures.shape), cores(), [pictures])
    output = rest.layers[-1]
    dense = keras.Model(rest.get_layer("flatten").input, output.input[0])
    above = tf.function(lambda found: output([dense(found, training=False), picture])["count"])
    return lambda: above(program(pictures)["map"]).numpy()


def peaks():
    """{row: (what makes the call, 1, operations)} of a plain convolution."""
    operations = 2 * PLACES**2 * CHANNELS**2
    kinds = {"LiteRT float": False, "LiteRT int8": True}
    rows = {f"peak: {row}": (lambda c=c: make_peak(c), 1, operations) for row, c in kinds.items()}
    for dtype in ("float32", "bfloat16"):
        rows[f"peak: TensorFlow {dtype}"] = (lambda dtype=dtype: make_product(dtype), 1, operations)
    return rows


def make_peak(calibrated):
    """A 1x1 convolution by LiteRT."""
    image = keras.Input((PLACES, PLACES, CHANNELS))
    model = keras.Model(image, {"y": layers.Conv2D(CHANNELS, 1)(image)})
    x = np.random.default_rng(0).normal(size=(1, PLACES, PLACES, CHANNELS)).astype("f4")
    program = litert.Program(model, x.shape, cores(), [x] if calibrated else None)
    return lambda: program(x)


def make_product(dtype):
    """The same as a product of matrices by TensorFlow."""
    a = tf.cast(tf.random.normal((PLACES**2, CHANNELS)), dtype)
    b = tf.cast(tf.random.normal((CHANNELS, CHANNELS)), dtype)
    product = tf.function(lambda: tf.matmul(a, b))
    return lambda: tf.reduce_sum(product()).numpy()


def peers():
    """What a person would take instead on this machine, {row: (what makes the call, 1, operations or None)}."""
    return {
        "ultralytics YOLO11 nano, 448 px, by onnxruntime": (lambda: peer("ultralytics"), 1, None),
        "torchvision Faster R-CNN MobileNetV3-320": (lambda: peer("torchvision"), 1, None),
    }


def peer(name):
    """A net of another project in a process of its own: a function that runs one picture and returns the seconds of
    processor time."""
    program = pathlib.Path(__file__).with_name("_peers.py")
    process = subprocess.Popen(
        [sys.executable, program, name, str(SIZE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    said = process.stdout.readline().strip()
    if said != "ready":
        raise InputError(said.removeprefix("absent: ") or f"ended with status {process.wait()}")

    def forward():
        print(file=process.stdin, flush=True)
        return float(process.stdout.readline())

    weakref.finalize(forward, process.stdin.close)  # which ends the process
    return forward


def absent(*packages):
    """Refuses a row whose packages are not all installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"not installed: {', '.join(missing)}")


def report(title, rows, wanted, peak, rounds):
    """Makes, measures and prints each row."""
    print(f"\n{title}\n{'':58} {'ms':>9} {'cpu ms':>9} {'a second':>9} {'TOP/s':>7} of the int8 peak")
    of_peak = 2 * PLACES**2 * CHANNELS**2
    for row, (make, pictures, operations) in rows.items():
        if not row.startswith(wanted):
            continue
        try:
            call = make()
            call()
        except (InputError, tf.errors.OpError, RuntimeError) as error:
            print(f"{row:58} {str(error).splitlines()[0]}", flush=True)
            continue
        wall, cpu, best = [], [], []
        for _ in range(rounds):
            for times, run in ((wall, call), (best, peak)):
                began, worked = time.perf_counter(), time.process_time()
                elsewhere = run()
                times.append(time.perf_counter() - began)
                if run is call:
                    here = time.process_time() - worked
                    cpu.append(elsewhere if type(elsewhere) is float else here)
        del call
        gc.collect()
        seconds, work = (float(np.median(times)) / pictures for times in (wall, cpu))
        speed = share = ""
        if operations:
            ratios = [operations * pictures / w * b / of_peak for w, b in zip(wall, best, strict=True)]
            speed, share = f"{operations / seconds / 1e12:.2f}", f"{float(np.median(ratios)):.2f}"
        print(
            f"{row:58} {1000 * seconds:9.1f} {1000 * work:9.1f} {1 / seconds:9.1f} {speed:>7} {share:>6}",
            flush=True,
        )


def end_to_end(options):
    """From the files to the detections, all runtimes in turn."""
    sources = images.find([options.images]) if options.images else images.packaged() * 4
    seen = images.find([options.calibration]) if options.calibration else None
    detectors, times, exact = {}, {}, {}
    for row in options.runtime.split(","):
        runtime, _, proposals = row.partition(":")
        detectors[row] = tfcnn.detector(
            options.model,
            runtime=runtime,
            proposals=int(proposals) if proposals else None,
            calibration=seen if runtime == "litert_int8" else None,
        )
        detectors[row](sources[: detectors[row].batch_size])
        times[row] = []
    for _ in range(options.rounds):
        for row, detector in detectors.items():
            began, worked = time.perf_counter(), time.process_time()
            detector(sources)
            times[row].append((time.perf_counter() - began, time.process_time() - worked))
    if options.data:
        data = datasets.open("voc", options.data, "val")
        exact = {row: precision(detector, data, options.limit) for row, detector in detectors.items()}
    title = f"{'mAP of ' + str(min(options.limit, len(data))):>14} {'change':>7}" if exact else ""
    print(f"{len(sources)} pictures, {'ms':>27} {'cpu ms':>9} {'a second':>9} {'of the first':>13} {title}")
    first = np.array(next(iter(times.values())))
    for row, values in times.items():
        wall, cpu = np.median(values, axis=0) / len(sources)
        ratio = np.median(np.array(values)[:, 1] / first[:, 1])
        figures = ""
        if exact:
            figures = f"{100 * exact[row]:14.1f} {100 * (exact[row] - next(iter(exact.values()))):+7.1f}"
        print(f"{row:38} {1000 * wall:9.1f} {1000 * cpu:9.1f} {1 / wall:9.1f} {ratio:13.2f} {figures}")


def precision(detector, data, limit):
    """A detector's 11-point mAP on the first pictures of a data set, as `evaluate --limit` measures it, 0..1."""
    records = data.examples[:limit]
    present = {int(label) for record in data.examples for label in record.labels}
    index = match(detector.names, detector.category_ids, data.classes, data.category_ids, present)
    found = detector.over_records(records)[0]
    found = {image: own.relabelled(index, data.classes) for image, own in found.items()}
    return voc.summarize(voc.match(records, found, len(data.classes)), data.classes)["map_11"]


if __name__ == "__main__":
    main()
