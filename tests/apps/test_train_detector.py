"""train_detector, detect and evaluate as a person runs them: synthetic shapes, a net of a few layers."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import tfcnn
from tfcnn import backbones

CLASSES = ["circle", "triangle", "square", "star", "ring"]
SMALL = ["--dataset=shapes", "--net=tiny", "--image_size=96", "--batch_size=2", "--validate_images=4"]
FEW = ["--train_split=train[:40]", "--val_split=val[:40]"]
SMALL += [*FEW, "--validate_epochs=0", "--steps=3"]


def results(folder):
    return json.loads((folder / "results.json").read_text())


THIN = ["--dense_channels=4", "--dense_units=49"]  # else half a billion weights are made for one line


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "out"
    return run_app("train_detector", *SMALL, "--context", f"--output_dir={folder}"), folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures of shapes, one of them a pixel wide, one damaged."""
    from tfcnn import datasets

    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(datasets.open("shapes", split="val").examples[0].image()).save(folder / "shapes.png")
    Image.new("RGB", (1, 40), "red").save(folder / "thin.png")
    Image.new("RGB", (900, 5), "blue").save(folder / "wide.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    return folder


def test_coverage_is_said_before_and_after_and_a_release_is_written(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    assert (
        "tiny starts from random weights" in done.stderr and "no layer with kernels is frozen" in done.stderr
    )
    assert "ground-truth boxes with one of the anchors at IoU 0.5 (0.7): all" in done.stderr
    assert "ground-truth boxes with one of 300 proposals in validation: all" in done.stderr
    found = results(folder)
    assert found["steps"] == 3 and found["images_per_second"] is not None
    assert 0 < found["anchors"]["all"]["0.5"] <= 1
    assert found["metrics"]["proposals"]["count"] == 300
    assert set(found["metrics"]["last"]) == {"step", "map_11", "map_area"}
    card = json.loads((folder / found["release"] / "card.json").read_text())
    assert card["classes"] == CLASSES
    assert card["image_size"] == 96 and card["architecture"]["context"] is True
    assert card["architecture"]["net"] == "tiny" and len(card["architecture"]["sizes"]) == 6
    assert Image.open(folder / "first_batch.png").size[0] > 96


def test_a_release_is_where_another_training_starts(run_app, trained, tmp_path):
    older = tmp_path / "older"  # a release of before cards said of what kind they are
    shutil.copytree(trained[1] / "release", older)
    card = json.loads((older / "card.json").read_text())
    (older / "card.json").write_text(json.dumps({name: card[name] for name in card if name != "kind"}))
    start = [
        "--dataset=shapes",
        f"--init={older}",
        "--steps=1",
        "--precision=mixed_bfloat16",
    ]
    same = ["--image_size=96", "--batch_size=2", "--validate_images=2", "--validate_epochs=0"]
    done = run_app("train_detector", *start, *same, *FEW, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert f"starts from {older}\n" in done.stderr  # no layer is new
    cards = [json.loads((f / "release/card.json").read_text()) for f in (trained[1], tmp_path / "out")]
    assert cards[0]["architecture"] == cards[1]["architecture"]


def test_flags_of_the_net_change_what_a_release_has(run_app, trained, tmp_path):
    flags = [*SMALL[2:-1], "--dataset=shapes", "--steps=1", f"--init={trained[1] / 'release'}"]
    done = run_app(
        "train_detector", *flags, "--neck=none", "--nms_threshold=0.3", f"--output_dir={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    assert "new: rpn_conv" in done.stderr
    was, now = (
        json.loads((f / "release/card.json").read_text())["architecture"]
        for f in (trained[1], tmp_path / "out")
    )
    assert (now["neck"], now["nms_threshold"], now["context"]) == ("none", 0.3, True)
    assert was["neck"] == "top_down" and len(now["sizes"]) == len(was["sizes"])
    done = run_app("train_detector", *flags, "--net=vgg16", f"--output_dir={tmp_path / 'other'}")
    assert done.returncode == 2 and "has a tiny" in done.stderr, done.stderr


# Parses a command line as the app does, and prints what it makes of a card's architecture.
CHANGED = """
import json, sys
from absl import flags
from apps import train_detector as app
import tfcnn.cli.start
own, classes, *arguments = sys.argv[1:]
flags.FLAGS(["train_detector", *arguments])
asked = {"mask_channels": 256} if app.DETECTOR.value == "mask_rcnn" else {}
asked |= {"proposals": 0 if app.DETECTOR.value == "fast_rcnn" else 300, "nms_threshold": 0.5}
print(json.dumps(app.changed(json.loads(own), asked, classes == "same")))
"""


@pytest.mark.parametrize(
    ("own", "classes", "flags", "found"),
    [
        ({"box_means": [0], "box_stds": [1], "proposals": 0}, "same", ["--detector=fast_rcnn"], None),
        ({"box_means": [0], "proposals": 0}, "other", ["--detector=fast_rcnn"], {"proposals": 0}),
        ({"proposals": 300}, "same", ["--detector=fast_rcnn"], {"proposals": 0}),
        ({"proposals": 0}, "same", [], {"proposals": 300}),
        ({"proposals": 50}, "same", [], None),
        ({"mask_channels": 128}, "same", [], {}),
        ({"mask_channels": 128}, "same", ["--detector=mask_rcnn"], None),
        ({"nms_threshold": 0.3}, "same", ["--nms_threshold=0.5"], {"nms_threshold": 0.5}),
    ],
)
def test_what_a_card_says_is_kept_but_for_flags_classes_and_detector(run_source, own, classes, flags, found):
    done = run_source(CHANGED, json.dumps(own), classes, *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == (own if found is None else found)


def test_detect_draws_what_it_finds_and_refuses_what_it_cannot_read(run_app, trained, pictures, tmp_path):
    release = trained[1] / "release"
    flags = [
        f"--model={release}",
        "--score_threshold=0.001",
        "--draw_threshold=0",
        f"--output_dir={tmp_path}",
    ]
    done = run_app("detect", pictures, *flags, "--max_detections=7", "--refine=1", "--box_voting", "--flip")
    assert done.returncode == 1, done.stderr
    assert "broken.jpg" in done.stderr
    found = results(tmp_path)
    assert [entry["file"].rsplit("/")[-1] for entry in found["images"]] == [
        "shapes.png",
        "thin.png",
        "wide.png",
    ]
    assert [e["file"].rsplit("/")[-1] for e in found["refused"]] == ["broken.jpg"]
    total = 0
    for entry in found["images"]:
        scores = [d["score"] for d in entry["detections"]]
        assert len(scores) <= 7 and scores == sorted(scores, reverse=True)
        for d in entry["detections"]:
            x1, y1, x2, y2 = d["box"]
            assert 0 <= x1 <= x2 <= entry["width"] and 0 <= y1 <= y2 <= entry["height"]
            assert d["label"] == CLASSES[d["index"]]
        total += len(scores)
        assert Image.open(tmp_path / entry["picture"]).size == (entry["width"], entry["height"])
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert len(rows) == total > 0
    first = found["images"][0]["detections"][0]
    assert rows[0]["image_id"] == "shapes" and rows[0]["category_id"] == first["index"] + 1
    x1, y1, x2, y2 = first["box"]
    np.testing.assert_allclose(rows[0]["bbox"], [x1, y1, x2 - x1, y2 - y1], atol=1e-4)
    assert json.loads((tmp_path / "categories.json").read_text())[0] == {"id": 1, "name": "circle"}


def test_a_video_comes_out_with_boxes_and_its_speed(run_app, trained, tmp_path):
    import cv2

    video = tmp_path / "street.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (120, 90))
    for frame in np.random.default_rng(0).integers(0, 255, (12, 90, 120, 3), np.uint8):
        writer.write(frame)
    writer.release()
    video.write_bytes(video.read_bytes()[: -video.stat().st_size // 4])  # it breaks off
    out = tmp_path / "out"
    done = run_app("detect", f"--video={video}", f"--model={trained[1] / 'release'}", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    (entry,) = results(out)["images"]
    assert 6 <= entry["frames"] <= 12 and entry["frames_per_second"] > 0
    assert len(entry["detections"]) == entry["frames"]
    capture = cv2.VideoCapture(str(out / entry["picture"]))
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == entry["frames"]
    assert not list(out.glob(".*part*"))


@pytest.mark.slow
def test_an_ensemble_on_two_scales_is_measured(run_app, trained, tmp_path):
    from tfcnn import datasets, images

    root = tmp_path / "VOC2007"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    names = []
    for record in datasets.open("shapes", split="val").examples[:3]:
        names.append(f"{len(names):06d}")
        images.write(root / "JPEGImages" / f"{names[-1]}.jpg", record.image())
        objects = "".join(
            f"<object><name>{CLASSES[n]}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
            for b, n in zip(record.boxes, record.labels, strict=True)
        )
        size = f"<size><width>{record.width}</width><height>{record.height}</height><depth>3</depth></size>"
        (root / "Annotations" / f"{names[-1]}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    (root / "ImageSets/Main/val.txt").write_text("\n".join(names))
    release = trained[1] / "release"
    out = tmp_path / "out"
    done = run_app(
        "evaluate",
        "--dataset=voc",
        f"--data={root}",
        f"--model={release},{release}",
        "--scales=96,128",
        "--runtime=litert",
        f"--output_dir={out}",
    )
    assert done.returncode == 0, done.stderr
    found = results(out)
    assert set(found["metrics"]["voc"]["per_class"]) <= {"circle", "triangle", "square", "star", "ring"}
    assert 0 <= found["metrics"]["voc"]["map_11"] <= 1
    # Rescored by itself: the best box of all has its own score for p, and IoU 1.
    flags = ["--dataset=voc", f"--data={root}", f"--model={release}", f"--rescore={release}", "--limit=1"]
    done = run_app("evaluate", *flags, "--score_threshold=0.001", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    raised = results(out)["images"][0]["detections"][0]["score"]
    data = datasets.open("voc", root, "val")
    alone = tfcnn.detector(release, score_threshold=0.001)([data.examples[0].image()])[0]
    plain = next(s for s, n in zip(alone.scores, alone.labels, strict=True) if CLASSES[n] in data.classes)
    assert raised == pytest.approx(1 - (1 - plain) ** 2, rel=1e-4) and raised > plain


@pytest.mark.slow  # the library's is tested in every run
def test_the_alternation_goes_through_its_four_steps_and_resumes(run_app, tmp_path):
    flags = [*SMALL[:-1], "--steps=4", "--training=alternating", f"--output_dir={tmp_path}"]
    done = run_app("train_detector", *flags)
    assert done.returncode == 0, done.stderr
    for number in (1, 2, 3, 4):
        assert f"step {number} of 4" in done.stderr
        assert list((tmp_path / f"step{number}" / "checkpoints").glob("step-*.npz"))
    assert "map_11" in results(tmp_path)["metrics"]["last"]
    assert run_app("train_detector", *flags).stdout.startswith("nothing to do")


def test_fast_rcnn_learns_from_proposals_of_a_file(run_app, trained, tmp_path):
    from tfcnn import datasets

    rng = np.random.default_rng(0)
    entries = []
    for split in ("train", "val"):
        for record in datasets.open("shapes", split=split).examples[:40]:
            boxes = np.concatenate([record.boxes + rng.normal(0, 4, record.boxes.shape), [[0, 0, 60, 60]]])
            rows = np.column_stack([boxes, rng.uniform(size=len(boxes))]).tolist()
            entries.append({"file": record.file, "proposals": rows})
    file = tmp_path / "proposals.json"
    file.write_text(json.dumps({"images": entries}))
    out = tmp_path / "out"
    done = run_app(
        "train_detector", *SMALL, "--detector=fast_rcnn", f"--proposals_file={file}", f"--output_dir={out}"
    )
    assert done.returncode == 0, done.stderr
    assert "ground-truth boxes with one of the proposals" in done.stderr
    assert results(out)["proposals"]["all"]["0.5"] > 0.8
    picture = tmp_path / "one.png"
    Image.fromarray(datasets.open("shapes", split="val").examples[0].image()).save(picture)
    without = run_app("detect", picture, f"--model={out / 'release'}", f"--output_dir={tmp_path / 'd'}")
    assert without.returncode == 2 and "--proposals_file" in without.stderr and not (tmp_path / "d").exists()
    file.write_text(json.dumps({"images": [{"file": "one.png", "proposals": [[0, 0, 50, 50, 1.0]]}]}))
    flags = [
        f"--model={out / 'release'}",
        f"--proposals_file={file}",
        "--score_threshold=0",
        f"--output_dir={tmp_path / 'd'}",
    ]
    done = run_app("detect", picture, *flags)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "d")["images"][0]["detections"]


@pytest.mark.slow
def test_a_detector_learns_masks_draws_them_and_is_measured_by_them(run_app, trained, pictures, tmp_path):
    from tfcnn import datasets, images, masks

    out, release = tmp_path / "out", tmp_path / "out/release"
    flags = ["--detector=mask_rcnn", "--mask_channels=8", f"--init={trained[1] / 'release'}", "--steps=1"]
    done = run_app("train_detector", *SMALL[:-1], *flags, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert "new: mask_conv1, mask_conv2, mask_conv3, mask_conv4, mask_up, mask_logits\n" in done.stderr
    card = json.loads((release / "card.json").read_text())
    assert card["kind"] == "mask_rcnn" and card["architecture"]["mask_channels"] == 8
    assert {"segm_AP50", "segm_AP"} < set(card["metrics"]["last"]) and "AP50 of masks" in done.stdout

    record = datasets.open("shapes", split="val").examples[1]
    root = tmp_path / "VOC2012"
    for part in ("Annotations", "JPEGImages", "ImageSets/Segmentation", "SegmentationObject"):
        (root / part).mkdir(parents=True)
    images.write(root / "JPEGImages/a.jpg", record.image())
    (root / "ImageSets/Segmentation/val.txt").write_text("a\n")
    numbers = (
        (record.masks() * np.arange(1, len(record.boxes) + 1)[:, None, None]).max(axis=0).astype(np.uint8)
    )
    Image.fromarray(numbers, "L").save(root / "SegmentationObject/a.png")
    objects = "".join(
        f"<object><name>{CLASSES[n]}</name><bndbox><xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin><xmax>{b[2]}</xmax>"
        f"<ymax>{b[3]}</ymax></bndbox></object>"
        for b, n in zip(record.boxes, record.labels, strict=True)
    )
    size = f"<size><width>{record.width}</width><height>{record.height}</height></size>"
    (root / "Annotations/a.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    model = [f"--model={release}", "--score_threshold=0.001"]
    done = run_app("evaluate", "--dataset=voc", f"--data={root}", *model, f"--output_dir={tmp_path / 'e'}")
    assert done.returncode == 0, done.stderr
    assert {"AP", "AP50", "APl"} < set(results(tmp_path / "e")["metrics"]["segm"])

    flags = ["--draw_threshold=0", "--max_detections=3", "--flip", f"--output_dir={tmp_path / 'd'}"]
    done = run_app("detect", pictures / "shapes.png", *model, *flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "d/detections.json").read_text())
    assert rows and all(row["segmentation"]["size"] == [160, 160] for row in rows)
    shown = [masks.decode(masks.of_entry(row["segmentation"])) for row in rows]
    (entry,) = results(tmp_path / "d")["images"]
    drawn, plain = (
        images.read(path) for path in (tmp_path / "d" / entry["picture"], pictures / "shapes.png")
    )
    assert (drawn != plain).any(axis=-1)[shown[0]].mean() > 0.9


@pytest.mark.parametrize(
    ("detector", "own"),
    [
        ("yolo", ["--grid=5", "--dense_channels=8", "--dense_units=32"]),
        pytest.param(
            "fast_yolo", ["--grid=4", "--dense_channels=8", "--convolutions=16"], marks=pytest.mark.slow
        ),
        pytest.param(
            "one_stage",
            ["--channels=16", "--tower=1", "--focal=2", "--box_loss=ciou"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_detectors_of_one_network_start_from_a_backbone_and_are_used(
    run_app, trained, pictures, tmp_path, detector, own
):
    flags = [*SMALL, f"--detector={detector}", *own, f"--output_dir={tmp_path / 'out'}"]
    done = run_app("train_detector", *flags, f"--init={trained[1] / 'release'}")
    assert done.returncode == 0, done.stderr
    new = re.search("starts from .*; new: (.*)", done.stderr)[1].split(", ")
    assert all(name.startswith(("neck_", "head_", "fc", "output")) for name in new)
    card = json.loads((tmp_path / "out/release/card.json").read_text())
    assert card["kind"] == ("one_stage" if detector == "one_stage" else "yolo")
    assert card["architecture"]["net"] == "tiny"
    scores = {}
    for name, least in {
        "all": ["--score_threshold=0"],
        "own": [],
        "given": ["--score_threshold=0.05"],
    }.items():
        flags = [
            f"--model={tmp_path / 'out/release'}",
            "--draw_threshold=0",
            f"--output_dir={tmp_path / name}",
        ]
        found = run_app("detect", pictures / "shapes.png", *flags, *least)
        assert found.returncode == 0, found.stderr
        scores[name] = [d["score"] for d in results(tmp_path / name)["images"][0]["detections"]]
    assert scores["all"]
    own = 0.05 if detector == "one_stage" else 0.005  # nothing given: the model's own
    for name, least in (("own", own), ("given", 0.05)):
        assert scores[name] == pytest.approx([score for score in scores["all"] if score > least])


@pytest.mark.parametrize(
    ("app", "flags", "words"),
    [
        ("train_detector", ["--dataset=digits"], "train_classifier"),
        ("train_detector", ["--dataset=shapes", "--detector=fast_rcnn"], "needs --proposals_file"),
        ("train_detector", ["--dataset=shapes", "--net=tiny", "--head=backbone"], "neck='none'"),
        ("train_detector", ["--dataset=shapes", "--hardest=99"], "64 regions"),
        ("train_detector", ["--dataset=shapes", "--detector=yolo", "--training=alternating"], "--training"),
        ("train_detector", ["--dataset=shapes", "--detector=one_stage", "--grid=9"], "yolo or fast_yolo"),
        ("train_detector", ["--dataset=shapes", "--mask_weight=2"], "--detector=mask_rcnn"),
        ("train_detector", ["--dataset=shapes", "--net=tiny", "--pooling=max"], "another --head"),
        ("train_detector", ["--dataset=shapes", "--net=tiny", "--anchor_sizes=16,nan"], "above 0"),
        ("train_detector", ["--dataset=shapes", "--nms_threshold=30"], "[0.0, 1.0]"),
        (
            "train_detector",
            ["--dataset=shapes", "--init=faster_rcnn_bccd", "--weights=none"],
            "--weights: those of --init=faster_rcnn_bccd are taken; give one of them",
        ),
        (
            "train_detector",
            ["--dataset=shapes", "--init=faster_rcnn_bccd", "--net=tiny"],
            "--net=tiny: --init",
        ),
        ("detect", ["--score_threshold=nan"], "--score_threshold=nan: a finite number is needed"),
        (
            "train_detector",
            ["--dataset=shapes", "--net=tiny", "--detector=mask_rcnn", "--training=alternating"],
            "trained jointly",
        ),
        (
            "train_detector",
            ["--dataset=shapes", "--model=faster_rcnn_voc"],
            "--model is for trained nets: --init",
        ),
        ("train_localizer", ["--dataset=shapes", "--model=localizer_voc"], "--model is for trained nets"),
        ("train_pose", ["--dataset=figures", "--model=pose_lsp"], "--model is for trained nets"),
        ("train_classifier", ["--model=digits"], "--model is for trained nets"),
        ("train_detector", ["--dataset=shapes", "--detector=yolo", "--grid=999"], "999 x 999 cells"),
        ("train_detector", ["--dataset=shapes", "--detector=yolo", "--convolutions=a"], "whole numbers"),
        (
            "train_detector",
            ["--dataset=shapes", "--detector=yolo", *THIN, "--test_image_size=64"],
            "320 x 320",
        ),
        (
            "train_detector",
            ["--dataset=shapes", "--detector=yolo", *THIN, "--cell_epochs=1"],
            "10 x 10: resample it",
        ),
        ("detect", ["--video=nowhere.mp4"], "nowhere.mp4"),
        ("detect", ["--model=faster_rcnn_vco"], "faster_rcnn_vco"),
        ("detect", ["--scales=12"], "--scales=12"),
        ("detect", ["--calibration=photos"], "belongs to --runtime=litert_int8"),
        ("detect", ["--runtime=litert_int8", "--calibration=nowhere"], "nowhere"),
        ("evaluate", ["--dataset=voc", "--results=r.json", "--rescore=faster_rcnn_voc"], "not of --results"),
    ],
)
def test_a_wrong_command_gets_one_line_and_writes_nothing(run_app, tmp_path, app, flags, words):
    out = tmp_path / "out"
    done = run_app(app, *flags, f"--output_dir={out}")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not out.exists()


@pytest.mark.parametrize(
    ("app", "flag"), [("detect", "--runtime=litert_int8"), ("export_model", "--format=litert_int8")]
)
def test_a_comma_in_a_folder_of_pictures_does_not_divide_it(run_app, tmp_path, app, flag):
    (tmp_path / "a,b").mkdir()
    flags = [flag, f"--calibration={tmp_path / 'a,b'}", f"--output_dir={tmp_path / 'out'}"]
    done = run_app(app, *flags)
    assert done.returncode == 2 and f"{tmp_path / 'a,b'}" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_classifier_gives_its_backbone_to_a_detector(run_app, tmp_path):
    backbones.classifier("tiny", weights=None, classes=3, size=64).save(tmp_path / "model.keras")
    (tmp_path / "card.json").write_text(json.dumps({"kind": "classifier", "net": "tiny"}))
    flags = [flag for flag in [*SMALL, f"--init={tmp_path}"] if flag != "--net=tiny"]
    done = run_app("train_detector", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    new = re.search("starts from .*; new: (.*)", done.stderr)[1].split(", ")
    backbone = {layer.name for layer in backbones.backbone("tiny", None).layers if layer.weights}
    assert backbone and not backbone & set(new)
    (tmp_path / "card.json").write_text(json.dumps({"kind": "classifier", "net": "vgg16"}))
    done = run_app("train_detector", *flags, f"--output_dir={tmp_path / 'other'}")
    assert done.returncode == 2 and "has no layer of vgg16 in its form" in done.stderr, done.stderr
