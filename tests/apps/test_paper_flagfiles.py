"""The papers' flagfiles of R-CNN, Mask R-CNN and DeepPose: their constants as the apps read them, and a step of each.

Steps are those of a small net; the flagfiles of Fast and Faster R-CNN and of YOLO are tested beside these methods.
"""

import json
import pathlib

import numpy as np
import pytest

import tfcnn
from tfcnn import backbones, datasets
from tfcnn.detection.mask_rcnn import mask_rcnn
from tfcnn.detection.stages import Stages

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "recipes"
SMALL = ["--net=tiny", "--weights=none", "--tensorboard=false", "--quiet"]
SGD = {"optimizer": "sgd", "clip_norm": 0, "average": 0, "schedule": "steps"}


def trained(run_app, app, recipe, out, *arguments):
    """Flags, results and release of a run of the flagfile with what makes it small."""
    done = run_app(app, f"--flagfile=recipes/{recipe}.txt", *arguments, *SMALL, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    return results["flags"], results


def assert_flags(found, expected):
    assert {name: found[name] for name in expected} == expected


def test_rcnn_has_the_papers_constants_and_takes_a_step(run_app, tmp_path):
    records = datasets.open("shapes", split="train").examples[:4]
    rows = np.random.default_rng(0).uniform(0, 70, (40, 2))
    boxes = np.concatenate([rows, rows + 60], axis=1).tolist()
    entries = [
        {"file": r.file, "proposals": [[*box, 0.5] for box in r.boxes.tolist() + boxes]} for r in records
    ]
    (tmp_path / "p.json").write_text(json.dumps({"images": entries}))
    data = ["--dataset=shapes", "--train_split=train[:4]", "--val_split=train[:4]", "--image_size=96"]
    small = ["--side=32", "--context=2", "--steps=1", "--rate_drops=1", "--regions=8"]
    found, results = trained(
        run_app, "rcnn", "rcnn_paper", tmp_path / "out", "finetune", *data, *small,
        f"--proposals_file={tmp_path / 'p.json'}",
    )  # fmt: skip
    assert results["finetune"]["steps"] == 1
    assert_flags(found, SGD | {"learning_rate": 0.01, "backbone_rate": 0.1, "bias_rate": 2, "warmup": 0})
    assert_flags(found, {"weight_decay": 0.0005, "batch_size": 3, "proposals": 2000, "freeze_stride": 0})
    assert_flags(found, {"svm_c": 0.001, "ridge": 1000, "nms_threshold": 0.3, "augment": "flip"})
    text = (RECIPES / "rcnn_paper.txt").read_text().split()
    assert {"--side=224", "--context=16", "--net=vgg16", "--steps=100000"} <= set(text)
    net = tfcnn.load_model(tmp_path / "out/finetune/release")
    assert [net.get_layer(f"region_fc{i}").units for i in (6, 7)] == [4096, 4096]
    assert net.get_layer("region_code").output.shape[-1] == 4096 and net.output["logits"].shape[-1] == 6
    assert net.output["place"].shape[-1] == 128  # the last map of tiny at 32 px: one place


def test_mask_rcnn_has_the_papers_constants_and_takes_a_step(run_app, tmp_path):
    data = ["--dataset=shapes", "--train_split=train[:4]", "--val_split=val[:2]", "--image_size=96"]
    small = [
        "--longest=128",
        "--steps=1",
        "--rate_drops=1",
        "--batch_size=2",
        "--proposals=20",
        "--regions=32",
    ]
    small += ["--train_proposals=60", "--before_nms=60", "--train_before_nms=200", "--mask_channels=16"]
    found, results = trained(run_app, "train_detector", "mask_rcnn_paper", tmp_path / "out", *data, *small)
    assert_flags(found, SGD | {"learning_rate": 0.02, "backbone_rate": 1, "weight_decay": 0.0001})
    assert_flags(found, {"warmup": 500, "resize": "fit", "augment": "flip", "freeze_stride": 4})
    assert_flags(found, {"pooling": "align", "nms_threshold": 0.5, "mask_weight": 1, "inside_anchors": True})
    card = json.loads((tmp_path / "out/release/card.json").read_text())
    built = card["architecture"]
    assert built["sizes"] == [[32.0], [64.0], [128.0], [256.0], [512.0]]
    assert (built["neck"], built["head"], built["class_agnostic"]) == ("fpn", "mlp", False)


def test_mask_rcnns_net_is_the_papers():
    net = mask_rcnn(backbones.backbone("resnet50", None), 80, neck="fpn", head="mlp", class_agnostic=False)
    stages = Stages(net)
    assert stages.proposals.grid.strides == (4, 8, 16, 32, 64) and stages.proposals.grid.per_location == 3
    assert stages.pool.strides == stages.mask_pool.strides == (4, 8, 16, 32) and stages.pool.levels
    assert (stages.pool.size, stages.mask_pool.size) == (7, 14)
    maps = stages.features.compute_output_shape((1, 800, 1333, 3))
    sides = [maps[f"proposal_map{i}"][1:] for i in range(5)]
    assert sides == [(200, 334, 256), (100, 167, 256), (50, 84, 256), (25, 42, 256), (13, 21, 256)]
    # Counted by hand: trunk 23,587,712; laterals 983,040 + 4 * 256; outputs 4 * 590,080; RPN 590,080 + 771 + 3,084;
    # head 12,846,080 + 1,049,600; classes 83,025; boxes 328,000; masks 4 * 590,080 + 262,400 + 20,560.
    assert net.count_params() == 23_587_712 + 984_064 + 2_360_320 + 593_935 + 13_895_680 + 411_025 + 2_643_280


def test_deeppose_has_the_papers_constants_and_takes_a_step_of_each_stage(run_app, tmp_path):
    data = ["--dataset=figures", "--train_split=train[:8]", "--val_split=val[:4]", "--image_size=48"]
    small = [
        "--part_size=32",
        "--endpoints=conv5",
        "--epochs=0.5",
        "--stage_epochs=0.5",
        "--hidden=32,32",
        "--batch_size=4",
    ]
    found, results = trained(run_app, "train_pose", "deeppose_paper", tmp_path / "out", *data, *small)
    assert len(results["stages"]) == 3
    assert_flags(found, {"optimizer": "adagrad", "learning_rate": 0.0005, "schedule": "constant"})
    assert_flags(found, {"dropout": 0.6, "sigma": 2.0, "loss": "l2", "channels": 0, "weight_decay": 0})
    text = (RECIPES / "deeppose_paper.txt").read_text().split()
    assert {"--hidden=4096,4096", "--net=alexnet", "--batch_size=128", "--image_size=220"} <= set(text)


@pytest.mark.parametrize("name", ["rcnn_paper", "mask_rcnn_paper", "deeppose_paper"])
def test_a_flagfile_opens_with_the_papers_figure_and_its_command(name):
    head = (RECIPES / f"{name}.txt").read_text().partition("\n--")[0]
    assert (
        f"--flagfile=recipes/{name}.txt" in head
        and "# Paper: " in head
        and "Not trained to its end here" in head
    )
