"""The evaluate app as a person runs it, on files whose answers are worked out by hand."""

import json

import pytest
from PIL import Image


@pytest.fixture
def evaluate(run_app, tmp_path):
    """Runs the app: its results.json, standard output and standard error."""

    def run(*flags, status=0):
        done = run_app("evaluate", *flags, f"--output_dir={tmp_path / 'out'}")
        assert done.returncode == status, done.stderr
        file = tmp_path / "out" / "results.json"
        return (json.loads(file.read_text()) if file.exists() else None), done.stdout, done.stderr

    return run


def annotation(objects):
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, difficult, x1, y1, x2, y2 in objects
    )
    size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{size}{parts}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """Three pictures that are not there: two cats, a difficult cat and a dog; the third has no object."""
    root = tmp_path / "VOCdevkit" / "VOC2007"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    pictures = {
        "000001": [("cat", 0, 1, 1, 10, 10), ("dog", 0, 40, 40, 60, 60)],
        "000002": [("cat", 0, 20, 20, 120, 59), ("cat", 1, 1, 1, 10, 10)],  # one sticks out of the picture
        "000005": [],
    }
    for name, objects in pictures.items():
        (root / "Annotations" / f"{name}.xml").write_text(annotation(objects))
    (root / "ImageSets" / "Main" / "val.txt").write_text("\n".join(pictures) + "\n")
    return root


# In the order of scores: right, wrong, (difficult: not counted), right; two cats to find.
FOUND = """000001 0.9 1 1 10 5
000005 0.8 1 1 10 10
000002 0.7 1 1 10 10
000002 0.7 20 20 120 59
"""


def as_coco(text):
    entries = []
    for line in text.splitlines():
        image, score, *box = line.split()
        x1, y1, x2, y2 = map(float, box)
        entries.append(
            {"image_id": image, "category_id": 8, "bbox": [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]}
            | {"score": float(score)}
        )
    return json.dumps(entries)


def test_voc_by_hand_from_the_devkits_files_and_beside_it_a_coco_list(evaluate, tmp_path, voc):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "comp3_det_val_cat.txt").write_text(FOUND)
    (folder / "comp3_det_val_dog.txt").write_text("")
    (tmp_path / "r.json").write_text(as_coco(FOUND))
    results, out, _ = evaluate(
        "--dataset=voc",
        f"--data={voc.parent}",
        f"--results={folder}/comp3_det_*.txt,{tmp_path}/r.json",
    )
    figures = results["metrics"]["voc"]
    cat = figures["per_class"]["cat"]
    # Precision 1 at recall 1/2, 2/3 at recall 1.
    assert cat["ap_11"] == pytest.approx((6 + 5 * 2 / 3) / 11, abs=1e-12)
    assert cat["ap_area"] == cat["ap_raw"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)
    assert (cat["truths"], cat["detections"]) == (2, 4)
    assert figures["per_class"]["dog"] == {
        "ap_11": 0,
        "ap_area": 0,
        "ap_raw": 0,
        "truths": 1,
        "detections": 0,
    }
    assert figures["map_11"] == pytest.approx(cat["ap_11"] / 2, abs=1e-12) and figures["iou_threshold"] == 0.5
    assert len(figures["per_class"]) == 20 and figures["per_class"]["bus"]["ap_11"] is None
    assert results["other"] == results["metrics"]
    # Of the cats the best two: one right, one where there is nothing.
    kinds = {"correct": 0.5, "localisation": 0, "similar": 0, "other": 0, "background": 0.5}
    assert results["errors"] == kinds
    assert results["images"] == results["refused"] == []
    assert {"curves.png", "flags.txt", "index.html"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert "map_11" in out and len(out.splitlines()) <= 22 and "index.html" in out.splitlines()[-1]


def test_voc_strict_wants_more_than_a_half_and_a_broken_annotation_is_refused(evaluate, tmp_path, voc):
    (tmp_path / "r.json").write_text(as_coco(FOUND))
    (voc / "Annotations" / "000005.xml").write_text("<annotation><object>")
    results, _, err = evaluate(
        "--dataset=voc",
        f"--data={voc}",
        f"--results={tmp_path}/r.json",
        "--voc_strict",
        "--save_images=false",
        status=2,
    )
    assert results is None and "000005" in err  # the results name a picture that is not in the set any more
    lines = [line for line in FOUND.splitlines() if not line.startswith("000005")]
    (tmp_path / "r.json").write_text(as_coco("\n".join(lines)))
    results, _, err = evaluate(
        "--dataset=voc",
        f"--data={voc}",
        f"--results={tmp_path}/r.json",
        "--voc_strict",
        "--save_images=false",
        status=1,
    )
    # The first has IoU 0.5 just; the last is right, after one that is wrong.
    assert results["metrics"]["voc"]["per_class"]["cat"]["ap_raw"] == pytest.approx(0.5 / 2, abs=1e-12)
    assert [refused["file"] for refused in results["refused"]] == ["Annotations/000005.xml"]
    assert not list((tmp_path / "out").glob("*.png"))


def test_coco_by_hand_from_annotations_alone(evaluate, tmp_path):
    truth = {
        "images": [{"id": 9, "width": 640, "height": 480, "file_name": "000000000009.jpg"}]
        + [{"id": 4, "width": 640, "height": 480, "file_name": "b.jpg"}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 0, "image_id": 9, "category_id": 3, "bbox": [0, 0, 40, 40], "area": 1024, "iscrowd": 0},
            {
                "id": 7,
                "image_id": 4,
                "category_id": 3,
                "bbox": [100, 100, 50, 50],
                "area": 2500,
                "iscrowd": 0,
            },
        ],
    }
    found = [
        {"image_id": "000000000009", "category_id": 3, "bbox": [0, 0, 40, 40], "score": 0.9},
        {"image_id": "b", "category_id": 3, "bbox": [300, 100, 50, 50], "score": 0.8},
        {"image_id": 4, "category_id": 3, "bbox": [100, 100, 50, 32], "score": 0.7},  # IoU 0.64
    ]
    (tmp_path / "t.json").write_text(json.dumps(truth))
    (tmp_path / "r.json").write_text(json.dumps(found))
    results, _, err = evaluate(
        "--dataset=coco", f"--annotations={tmp_path}/t.json", f"--results={tmp_path}/r.json"
    )
    figures = results["metrics"]["coco"]
    half, whole = 51 / 101, (51 + 50 * 2 / 3) / 101  # up to recall 1/2; and 2/3 up to recall 1
    assert figures["AP50"] == pytest.approx(whole, abs=1e-12) and figures["AP75"] == pytest.approx(
        half, abs=1e-12
    )
    assert figures["AP"] == pytest.approx((3 * whole + 7 * half) / 10, abs=1e-12)  # 0.5, 0.55, 0.6
    assert figures["AR1"] == 0.5 and figures["AR100"] == pytest.approx((3 + 7 * 0.5) / 10, abs=1e-12)
    assert figures["APs"] == pytest.approx(1, abs=1e-12) and figures["APl"] is None
    assert figures["per_class"]["toothbrush"]["AP"] is None and figures["per_class"]["car"]["truths"] == 2
    assert "other" not in results and "keypoints are read, not scored" in err


def test_classes_of_one_name_are_told_apart_by_their_ids(evaluate, tmp_path):
    truth = {  # a root category with the name of its only child, as Roboflow exports it
        "images": [{"id": 1, "width": 64, "height": 48, "file_name": "a.jpg"}],
        "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0}
        ],
    }
    (tmp_path / "t.json").write_text(json.dumps(truth))
    # The results' own ids and names: a car is 7 there.
    (tmp_path / "categories.json").write_text(json.dumps([{"id": 7, "name": "car"}]))
    found = [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 40, 40], "score": 0.9}]
    (tmp_path / "r.json").write_text(json.dumps(found))
    results, out, err = evaluate(
        "--dataset=coco", f"--annotations={tmp_path}/t.json", f"--results={tmp_path}/r.json"
    )
    assert "share a name and are told apart by id: car (id 0), car (id 1)" in err
    assert results["metrics"]["coco"]["AP"] == pytest.approx(1)
    per_class = results["metrics"]["coco"]["per_class"]
    assert {name: row["truths"] for name, row in per_class.items()} == {"car (id 0)": 0, "car (id 1)": 1}
    assert list(results["errors_per_class"]) == ["car (id 1)"] and "AP car (id 1)" in out


def test_a_split_without_any_object_has_null_figures(evaluate, tmp_path, voc):
    for file in (voc / "Annotations").iterdir():
        file.write_text(annotation([]))
    (tmp_path / "r.json").write_text("[]")
    results, out, err = evaluate("--dataset=voc", f"--data={voc}", f"--results={tmp_path}/r.json")
    figures = results["metrics"]["voc"]
    assert [figures[name] for name in ("map_11", "map_area", "map_raw")] == [None] * 3
    assert set(results["errors"].values()) == {None} and results["errors_per_class"] == {}
    assert "aeroplane, bicycle, bird, boat, bottle and 15 more" in err
    assert ["map_11", "-"] in [line.split() for line in out.splitlines()]


POINTS = [(10 * j, 7 * j % 30) for j in range(14)]


def poses(tmp_path):
    """The folder of a pose set of two pictures that are not there."""
    from tfcnn.datasets.lsp import JOINTS

    root = tmp_path / "pose" / "val"
    root.mkdir(parents=True)
    header = ",".join(
        ["file,width,height"] + [f"{name}_{part}" for name in JOINTS for part in ("x", "y", "visible")]
    )
    row = ",".join(f"{x},{y},1" for x, y in POINTS)
    (root / "joints.csv").write_text(f"{header}\na.jpg,200,200,{row}\nb.jpg,200,200,{row}\n")
    return root.parent


def test_poses_and_guesses(evaluate, tmp_path):
    poses(tmp_path)
    pose = {
        "image_id": "a",
        "category_id": 1,
        "keypoints": [v for x, y in POINTS for v in (x, y, 1)],
        "score": 1,
    }
    (tmp_path / "p.json").write_text(json.dumps([pose]))
    results, _, _ = evaluate("--dataset=lsp", f"--data={tmp_path}/pose", f"--results={tmp_path}/p.json")
    figures = results["metrics"]["lsp"]
    assert [figures[k] for k in ("pcp_strict", "pcp_relaxed", "pdj_02", "pck_02")] == [0.5] * 4
    assert len(figures["per_limb"]) == 10 and len(figures["per_joint"]) == 14

    root = tmp_path / "tiny-imagenet-200"
    (root / "val").mkdir(parents=True)
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "val" / "val_annotations.txt").write_text("v0.JPEG\tn01\t0\t0\t9\t9\nv1.JPEG\tn02\t0\t0\t9\t9\n")
    guesses = [
        {"image_id": "v0", "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9},
        {"image_id": "v0", "category_id": 2, "bbox": [0, 0, 10, 5], "score": 0.8},
        {"image_id": "v1", "category_id": 1, "bbox": [0, 0, 10, 4], "score": 0.8},
    ]
    (tmp_path / "g.json").write_text(json.dumps(guesses))
    results, _, _ = evaluate("--dataset=tiny_imagenet", f"--data={root}", f"--results={tmp_path}/g.json")
    assert results["metrics"] == {
        "tiny_imagenet": {"top1_cls": 0.5, "top5_cls": 0, "top1_loc": 1, "top5_loc": 0.5}
    }


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset=voc", "--data={voc}"], "name either --results=FILE or --model=MODEL"),
        (["--dataset=voc", "--data={voc}", "--split=test", "--results=x"], "no split 'test': it has val"),
        (["--dataset=voc", "--data={voc}", "--results={tmp}/none.json"], "No results at"),
        (["--dataset=voc", "--data={voc}", "--results=x", "--resize=fit"], "--resize is for detectors, and"),
        (["--dataset=voc", "--data={voc}", "--results={tmp}/deep.json"], "nested too deep"),
        (
            ["--dataset=voc", "--data={voc}", "--results={tmp}/nan.json"],
            "score of entry 1 is not a finite number",
        ),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(evaluate, tmp_path, voc, flags, message):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    entry = {"image_id": "000001", "category_id": 8, "bbox": [0, 0, 1, 1], "score": float("nan")}
    (tmp_path / "nan.json").write_text(json.dumps([entry]))
    flags = [flag.format(voc=voc, tmp=tmp_path) for flag in flags]
    results, out, err = evaluate(*flags, status=2)
    assert results is None and out == "" and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "dataset, model, message",
    [
        (
            "voc",
            "digits",
            "is a classifier; evaluate measures faster_rcnn, fast_rcnn, mask_rcnn, yolo, one_stage, rcnn, hog_svm, "
            "dpm, localizer, pose",
        ),
        ("lsp", "faster_rcnn_voc", "is a faster_rcnn, measured on voc, coco, yolo, imagenet_det, not on lsp"),
    ],
)
def test_a_model_of_a_kind_that_is_not_measured_on_the_data_set_is_refused(evaluate, dataset, model, message):
    results, _, err = evaluate(f"--dataset={dataset}", "--data=nowhere", f"--model={model}", status=2)
    assert results is None and err == f"evaluate: --model={model} {message}\n"


def test_yolos_layout_is_measured_by_the_rules_of_voc_and_of_coco(evaluate, tmp_path):
    root = tmp_path / "ours"
    for part in ("images/val", "labels/val"):
        (root / part).mkdir(parents=True)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    for name in "ab":
        Image.new("RGB", (100, 50)).save(root / "images/val" / f"{name}.png")
    (root / "labels/val/a.txt").write_text("0 .2 .4 .2 .4\n")  # (10, 10, 30, 30)
    (root / "labels/val/b.txt").write_text("0 .2 .4 .2 .4\n")
    found = [
        {"image_id": "a", "category_id": 0, "bbox": [10, 10, 20, 20], "score": 0.9},
        {"image_id": "a", "category_id": 0, "bbox": [60, 10, 20, 20], "score": 0.8},
        {"image_id": "b", "category_id": 0, "bbox": [10, 10, 20, 13], "score": 0.7},  # IoU 0.65
    ]
    (tmp_path / "r.json").write_text(json.dumps(found))
    results, out, _ = evaluate("--dataset=yolo", f"--data={root}", f"--results={tmp_path}/r.json")
    metrics = results["metrics"]
    # Precision 1 at recall 1/2, 2/3 at recall 1.
    assert metrics["voc"]["map_11"] == pytest.approx((6 + 5 * 2 / 3) / 11, abs=1e-12)
    assert metrics["voc"]["per_class"]["dog"]["ap_11"] is None
    half, whole = 51 / 101, (51 + 50 * 2 / 3) / 101
    assert metrics["coco"]["AP50"] == pytest.approx(whole, abs=1e-12)
    assert metrics["coco"]["AP75"] == pytest.approx(half, abs=1e-12)
    assert results["errors"]["correct"] == 0.5 and results["errors"]["background"] == 0.5
    assert "map_11" in out and "AP50" in out and len(out.splitlines()) <= 22


def test_masks_are_measured_beside_boxes_where_truth_and_results_have_them(evaluate, tmp_path, voc):
    import numpy as np

    from tfcnn import masks

    numbers = np.zeros((80, 100), np.uint8)
    numbers[:10, :10], numbers[39:60, 39:60] = 1, 2
    numbers[10, :10] = 255  # the cat's border
    (voc / "SegmentationObject").mkdir()
    Image.fromarray(numbers, "L").save(voc / "SegmentationObject/000001.png")
    cat = np.zeros((80, 100), bool)
    cat[:11, :10] = True
    entries = json.loads(as_coco(FOUND))
    for entry, mask in zip(entries, (cat, cat, ~cat, cat[:40]), strict=True):
        runs = masks.encode(mask)
        entry["segmentation"] = {
            "size": [int(side) for side in runs["size"]],
            "counts": runs["counts"].decode(),
        }
    (tmp_path / "r.json").write_text(json.dumps(entries))
    results, out, err = evaluate("--dataset=voc", f"--data={voc}", f"--results={tmp_path}/r.json")
    segm = results["metrics"]["segm"]
    # The second picture's objects have no masks: it does not count. The cat is hit exactly, before a miss; no dog is.
    assert segm["per_class"]["cat"]["AP"] == pytest.approx(1, abs=1e-12) and segm["AP"] == pytest.approx(0.5)
    assert segm["APs"] == segm["AP"] and segm["APm"] is None  # areas are the masks'
    assert results["metrics"]["voc"]["per_class"]["cat"]["truths"] == 2
    assert "1 picture whose objects have no masks: left out" in err
    assert "AP50 of masks" in out and len(out.splitlines()) <= 22
