"""Run a small, real example of every app, and show all of it on one page."""

from __future__ import annotations

import concurrent.futures
import pathlib
import queue
import re
import shlex
import time

from absl import flags

from tfcnn import cli, report
from tfcnn.cli.output import PAGE
from tfcnn.cli.warm import Warm
from tfcnn.errors import InputError, unknown

from . import cli as listing  # relative: this package is apps in a checkout, tfcnn.apps where it is installed

GROUP, SUMMARY = "start", "run a small example of every app, and show all on one page"

ONLY = flags.DEFINE_list("apps", [], "Run these apps' examples only, e.g. --apps=classify,saliency")
AT_ONCE = flags.DEFINE_integer("at_once", 2, "How many run at the same time, e.g. --at_once=1", lower_bound=1)

# The objects in the packaged photographs.
TRUTH = pathlib.Path(report.__file__).parent / "datasets" / "packaged_photographs.json"

# Commands, and what one sees of each. {NAME} is the folder of an earlier example, which is waited for: its app, or
# app_2 for the second of an app. Flags for where, how many threads and how loud are added.
EXAMPLES = {
    "classify": "Photographs and what a net trained on ImageNet calls them, with its probability.",
    "classify --dense --image_size=640 --limit=4": (
        "The same net slid over larger pictures: bright is where it finds the class that it names."
    ),
    "classify --limit=4 --batch_size=2 --shard=1/1": "A shard of a run over many pictures: here of one shard.",
    "merge {classify_3}": "What the shards of a run have found, as one result.",
    "saliency --limit=4": "Which pixels the answer comes from: guided Grad-CAM of the class.",
    "neurons --neuron=block10_expand_relu --limit=2": (
        "What the most active channel of a layer answers to, by the gradient, the deconvnet and guided backpropagation."
    ),
    "occlusion --limit=2 --stride=28": (
        "A patch hides one part after the other: dark is where the class's probability falls without it."
    ),
    "segment --limit=3": "The saliency of the class tells GrabCut where the object is, and it is cut out.",
    "train_classifier --dataset=digits --net=tiny --image_size=32 --epochs=6": (
        "A small net learns to read handwritten digits: a batch that it trains on, and its answers at the end."
    ),
    "dataset_stats --dataset=shapes": "A data set before training: its pictures, how many of each class, their sizes.",
    "train_detector --dataset=shapes --net=tiny --image_size=128 --steps=30 --validate_epochs=0 --validate_images=16": (
        "A Faster R-CNN's first thirty steps on drawn shapes; a useful one takes some thousand."
    ),
    "train_localizer --dataset=shapes --net=tiny --image_size=64 --limit=128 --classifier_epochs=4 --epochs=20 "
    "--validate_epochs=0": "A classifier of drawn shapes gets a box head: a few seconds of its training.",
    "localize --model=localizer_tinyimagenet --limit=3": (
        "One object and its box in each photograph, by the packaged localizer of 200 classes; people are none of them."
    ),
    "overfeat --model=localizer_tinyimagenet --limit=1 --scales=192,224": (
        "The same net slid over a photograph at two scales: a box from every window, what they merge to, and where the "
        "class answers."
    ),
    "train_pose --dataset=figures --net=tiny --image_size=96 --stages=2 --part_size=32 --steps=120 --stage_steps=40 "
    "--validate_epochs=0": "A net learns the joints of drawn stick figures, and to refine them: its first seconds.",
    "pose --model=pose_lsp --person_detector=faster_rcnn_voc --limit=2": (
        "The packaged pose net on the person that a detector finds, stage by stage; a cat has none. Legs beyond the "
        "picture are guessed."
    ),
    "detect": "A box around each object that a Faster R-CNN trained on Pascal VOC finds, its class and score.",
    "propose --limit=2": (
        "Boxes that may hold an object, whatever it is: small regions merged by likeness, the best boxes drawn."
    ),
    "propose --dataset=shapes --split=train --limit=8 --proposals=60 --counts=60": (
        "Proposals of drawn shapes, of each shape the best one, and the share of shapes that one of them reaches."
    ),
    "propose --dataset=shapes --split=val --limit=8 --proposals=60 --counts=60": (
        "The same for the shapes that the detector below is measured on."
    ),
    "rcnn all --dataset=shapes --net=tiny --side=32 --context=4 --image_size=128 --steps=40 --limit=8 --proposals=60 "
    "--proposals_file={propose_2}/results.json,{propose_3}/results.json": (
        "R-CNN's five steps on those proposals: a net fine-tuned for forty steps, features, SVMs, boxes."
    ),
    f"evaluate --dataset=voc --annotations={shlex.quote(str(TRUTH))} --results={{detect}}/detections.json": (
        "The boxes just found, measured against the photographs' ground truth by Pascal VOC's rules."
    ),
    "hog_detector --limit=3": (
        "Persons and vehicles by histograms of gradients and linear classifiers, as before the nets; their templates."
    ),
    "dpm --limit=2": "The same with parts that move: root and parts of each object, and the model drawn as a net.",
    "nets": "The nets that every app can take, with their sizes and where their weights come from.",
    "import_model --model=digits": "What is in a model's file, and which layer takes it.",
    "export_model --model=digits --format=saved_model,tf1_graph --limit=2": (
        "The same as a SavedModel and as a graph for TensorFlow 1: size, difference from Keras, and time."
    ),
    "download": "The weights that the network offers, and which of them are here.",
    "activations --limit=2 --layer=stem,stage3,stage5 --gradients=1": (
        "What every channel of three layers answers to a photograph; its own page has layers and channels to browse."
    ),
    "filters --layer=stem_conv,block3_depthwise_conv --fits=8": (
        "Kernels of two layers as pictures, and the Gabor functions that fit them best and worst."
    ),
    "patches --layer=stage3 --channel=3,11,20": (
        "Parts of the photographs that excite three channels most: each channel likes one kind of thing."
    ),
    "embed --limit=500 --grid=20": (
        "Handwritten digits laid out in the plane, by t-SNE of their pixels: equal ones lie together."
    ),
    "class_model --class=pelican,volcano --steps=180": (
        "Pictures made from noise so that the net is as sure as it can be of a class."
    ),
    "invert --layer=stem,stage3,stage5,stage7 --steps=120": (
        "A photograph rebuilt from what four layers know of it: the deeper the layer, the less of it is left."
    ),
    "deepdream --image_size=400 --limit=2": "What a layer sees a little of, made stronger in the photograph itself.",
    "style_transfer --image_size=288 --limit=1 --steps=40,30": (
        "A photograph's content in a painting's colours and strokes, coarse first and then finer."
    ),
    "adversarial --limit=2 --eps=6 --target=goldfish --steps=40 --confidence=4": (
        "Two photographs changed by a few grey levels, too little to see, so that the net is sure of a goldfish."
    ),
    "fool_linear --class=3,8": (
        "A linear classifier of digits: a digit moved along the weights of another until it is taken for that one."
    ),
    "fool --model=digits --method=direct --grey --generations=60 --children=40": (
        "Noise, evolved from noise, that a reader of digits takes for each of the ten with near certainty."
    ),
    "hog_lookalike --image_size=192 --steps=80 --inverse_steps=80": (
        "An astronaut with a cat's histogram of oriented gradients, and what that histogram stands for."
    ),
    "train_robust --eps=48 --image_size=32 --steps=200 --validate_epochs=0": (
        "The digits' net again, trained on attacked pictures too: the first two hundred steps."
    ),
    "robustness --model={train_robust}/release --dataset=digits --eps=0,16,32,64": (
        "How that net's error grows with the size of a change: by an attack, and by noise as large."
    ),
    "music --seconds=3 --steps=30": "The same with sounds: the spectrogram of one melody in the timbre of another.",
}
SHOWN = 4  # pictures of an example on the page


def main(run: cli.Run) -> None:
    examples = chosen(ONLY.value)
    run.write_flags()  # makes output_dir before the examples write into it
    begun = time.monotonic()
    idle: queue.SimpleQueue[Warm] = queue.SimpleQueue()
    servers = [Warm() for _ in range(min(AT_ONCE.value, len(examples)))]
    for server in servers:
        idle.put(server)
    pool = concurrent.futures.ThreadPoolExecutor(len(servers))
    done: dict[str, concurrent.futures.Future] = {}
    try:
        for name, command in examples.items():
            done[name] = pool.submit(run_example, run, idle, name, command, dict(done))
        for number, (name, future) in enumerate(done.items(), 1):
            *_, seconds = future.result()
            run.say(f"{number}/{len(done)} {name}, {seconds:.0f} s")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for server in servers:
            server.close()
    run.results["seconds_of_examples"] = round(time.monotonic() - begun, 1)
    groups = {app: listing.GROUPS.index(group) for app, (group, _) in listing.apps().items()}
    for name in sorted(examples, key=lambda name: groups[examples[name].split()[0]]):
        show(run, name, examples[name], *done[name].result())


def chosen(names: list[str]) -> dict[str, str]:
    """The examples {folder: command} of these apps and of those they need; of all where none is named."""
    found: dict[str, str] = {}
    for command in EXAMPLES:
        app = command.split()[0]
        same = sum(other.split()[0] == app for other in found.values())
        found[f"{app}_{same + 1}" if same else app] = command
    for name in names:
        if name not in listing.apps():
            raise unknown("app", name, listing.apps())
    wanted = {folder for folder, command in found.items() if not names or command.split()[0] in names}
    for folder in reversed(found):
        if folder in wanted:
            wanted |= set(re.findall(r"{(\w+)}", found[folder]))
    return {folder: command for folder, command in found.items() if folder in wanted}


def run_example(
    run: cli.Run,
    idle: queue.SimpleQueue[Warm],
    name: str,
    command: str,
    earlier: dict[str, concurrent.futures.Future],
) -> tuple[str, int, str, str, float]:
    """(command as a person would type it, its status, standard output and error, seconds)."""
    for needed in re.findall(r"{(\w+)}", command):
        if earlier[needed].result()[1]:
            return f"tfcnn {command}", 1, "", f"it needs the example {needed}, which failed", 0.0
    filled = re.sub(r"{(\w+)}", lambda found: shlex.quote(str(run.output_dir / found[1])), command)
    app, *arguments = shlex.split(filled)
    shown = f"tfcnn {shlex.join([app, *arguments])}"
    arguments += [
        f"--output_dir={run.output_dir / name}",
        f"--threads={max(1, run.threads // AT_ONCE.value)}",
    ]
    arguments += [f"--device={run.flags.device}", f"--seed={run.flags.seed}", "--quiet"]
    package = __spec__.name.rpartition(".")[0]
    home = pathlib.Path(__file__).resolve().parents[package.count(".") + 1]
    server = idle.get()
    begun = time.monotonic()
    try:
        done = server.run(f"{package}.{app}", arguments, env={"PYTHONPATH": str(home)})
    finally:
        idle.put(server)
    return shown, done.returncode, done.stdout, done.stderr, time.monotonic() - begun


def show(
    run: cli.Run, name: str, command: str, shown: str, status: int, out: str, err: str, seconds: float
) -> None:
    """Put an example on the page: its pictures, its table, and a link to its own page."""
    entry = {"command": shown, "status": status, "seconds": round(seconds, 2), "folder": name}
    with run.item(shown, name, **entry) as item:
        if status:
            raise InputError(
                f"ended with status {status}: {(err.strip().splitlines() or ['no message'])[-1]}"
            )
        app = command.split()[0]
        page = min(
            (run.output_dir / name).rglob(PAGE), key=lambda path: len(path.parts)
        )  # a shard's is deeper
        item.card = report.Entry(
            app,
            link=page.relative_to(run.output_dir).as_posix(),
            text=EXAMPLES.get(command, ""),
            command=shown,
            chapter=listing.apps()[app][0],
        )
        item.shown = report.pictures_of(page.read_text(encoding="utf-8"))[:SHOWN]
        if not item.shown:
            item.lines = out.strip().splitlines()[:-1]  # the last says where the files are


if __name__ == "__main__":
    cli.start(main, pictures=False, without=cli.NO_NET)
