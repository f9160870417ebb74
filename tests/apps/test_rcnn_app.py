"""rcnn as a person runs it: all steps on drawn shapes, one step again, detection, and what does not fit."""

import json
import shutil

import numpy as np
import pytest

from tfcnn import datasets

DATA = ["--dataset=shapes", "--limit=10"]
NET = ["--net=tiny", "--side=32", "--context=4", "--image_size=96", "--steps=20", "--batch_size=2"]


def proposals(path, seed):
    """Boxes near the shapes of both splits and elsewhere, as propose writes them."""
    random, entries = np.random.default_rng(seed), []
    for split in ("train", "val"):
        for record in datasets.open("shapes", split=split).examples[::50]:
            near = np.repeat(record.boxes, 5, axis=0) + random.normal(0, 4, (5 * len(record.boxes), 4))
            corner = random.uniform(0, 100, (8, 2))
            boxes = np.concatenate([near, np.concatenate([corner, corner + 50], axis=1)]).clip(0, 160)
            rows = [[*box, 1 - i / 100] for i, box in enumerate(boxes.tolist())]
            entries.append({"file": record.file, "proposals": rows})
    path.write_text(json.dumps({"images": entries}))
    return path


@pytest.fixture(scope="module")
def trained(run_app, tmp_path_factory):
    """All steps: (process, output_dir, its proposals)."""
    folder = tmp_path_factory.mktemp("rcnn")
    file = proposals(folder / "proposals.json", 0)
    done = run_app("rcnn", "all", *DATA, *NET, f"--proposals_file={file}", f"--output_dir={folder / 'out'}")
    return done, folder / "out", file


def test_all_steps_leave_a_release_and_say_the_size_of_the_features(trained):
    done, out, _ = trained
    assert done.returncode == 0, done.stderr
    assert "MB in" in done.stderr and "features of" in done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["release"] == "release" and results["finetune"]["steps"] == 20
    assert 0 <= results["metrics"]["last"]["map_11"] <= 1
    card = json.loads((out / "release" / "card.json").read_text())
    assert card["kind"] == "rcnn" and card["classes"] == ["circle", "triangle", "square", "star", "ring"]
    assert results["features"]["bytes"] == sum(p.stat().st_size for p in (out / "features").glob("*.npz"))


def test_other_proposals_than_the_features_are_refused_in_a_line(run_app, trained, tmp_path):
    _, out, _ = trained
    other = proposals(tmp_path / "other.json", 1)
    done = run_app("rcnn", "svm", *DATA, *NET, f"--proposals_file={other}", f"--output_dir={out}", "--quiet")
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1
    assert "other proposals" in done.stderr


def test_features_of_another_precision_are_refused_and_a_part_of_the_validation_is_measured(run_app, trained):
    _, out, file = trained
    flags = [*DATA, *NET, f"--proposals_file={file}", f"--output_dir={out}", "--quiet"]
    done = run_app("rcnn", "features", *flags, "--runtime=litert_int8")
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1
    assert "other precision" in done.stderr
    done = run_app("rcnn", "boxes", *flags, "--validate_images=3")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "results.json").read_text())["metrics"]["last"]["images"] == 3
    done = run_app("rcnn", "boxes", *flags, "--svm_c=0.5")
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1
    assert "svm_c=0.001, not 0.5" in done.stderr


@pytest.mark.parametrize(
    ("step", "flags", "said"),
    [
        ("all", ["--side=48"], "--side=32 there, --side=48 here"),
        ("all", ["--learning_rate=0.1", "--regions=16"], "--regions as its default there, --regions=16 here"),
        ("finetune", ["--proposals=10"], "other proposals"),
        ("features", ["--context=8"], "--context=4.0 there, --context=8.0 here"),
        ("boxes", ["--weights=none"], "--weights=none here"),
    ],
)
def test_other_settings_than_the_fine_tuned_nets_are_refused_in_a_line(run_app, trained, step, flags, said):
    _, out, file = trained
    where = [f"--proposals_file={file}", f"--output_dir={out}"]
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    done = run_app("rcnn", step, *DATA, *NET, *where, *flags)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr and "--resume=false" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == files


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--features=spp", "--runtime=litert"], "with spp take --runtime=tf"),
        (["--freeze_stride=16"], "--freeze_stride is for --features=spp"),
    ],
)
def test_what_the_features_do_not_have_is_refused_before_any_work(run_app, trained, tmp_path, flags, said):
    _, _, file = trained
    done = run_app(
        "rcnn", "all", *DATA, *NET, f"--proposals_file={file}", f"--output_dir={tmp_path / 'new'}", *flags
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr and not (tmp_path / "new").exists()


def test_a_step_without_the_nets_flags_and_flags_of_later_steps_go_on(run_app, trained):
    """The step svm knows the net from its release; all with another C trains no net anew."""
    _, out, file = trained
    where = [f"--proposals_file={file}", f"--output_dir={out}"]
    done = run_app("rcnn", "svm", *DATA, "--image_size=96", *where)
    assert done.returncode == 0, done.stderr
    done = run_app("rcnn", "all", *DATA, *NET, "--svm_c=0.01", *where)
    assert done.returncode == 0 and "Going on from step 20" in done.stderr, done.stderr


def test_without_resuming_all_steps_begin_anew(run_app, trained, tmp_path):
    _, out, file = trained
    shutil.copytree(out, tmp_path / "out")
    where = [f"--proposals_file={file}", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("rcnn", "all", *DATA, *NET, "--side=48", "--steps=2", "--resume=false", *where)
    assert done.returncode == 0 and "Going on" not in done.stderr, done.stderr
    card = json.loads((tmp_path / "out" / "finetune" / "release" / "card.json").read_text())
    assert card["side"] == 48 and card["steps"] == 2


def test_svms_that_do_not_tell_their_features_are_refused_in_a_line(run_app, trained, tmp_path):
    _, out, file = trained
    shutil.copytree(out, tmp_path / "out")
    with np.load(out / "svm.npz") as archive:
        np.savez(tmp_path / "out" / "svm.npz", weights=archive["weights"], biases=archive["biases"])
    flags = [*DATA, *NET, f"--proposals_file={file}", f"--output_dir={tmp_path / 'out'}"]
    done = run_app("rcnn", "boxes", *flags)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "which features" in done.stderr


def test_detect_takes_the_releases_own_values_and_those_of_its_flags(run_app, trained, tmp_path):
    """A release of NMS at 0.9 and two proposals; then labels, size and a number of proposals by flags."""
    _, out, file = trained
    shutil.copytree(out / "release", tmp_path / "release")
    card = json.loads((out / "release" / "card.json").read_text())
    (tmp_path / "release" / "card.json").write_text(json.dumps(card | {"proposals": 2}))
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{name}\n" for name in "abcde"))

    def detect(*flags):
        model = f"--model={tmp_path / 'release'}"
        where = f"--output_dir={tmp_path / 'out'}"
        done = run_app("rcnn", "detect", model, "--limit=1", "--score_threshold=0", where, *flags)
        assert done.returncode == 0, done.stderr
        (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
        return entry["detections"], done.stdout

    plain, said = detect()
    assert plain and said.splitlines()[1].split()[1] == "2"
    more, said = detect("--proposals=5", f"--labels={labels}")
    assert said.splitlines()[1].split()[1] == "5"
    assert {each["label"] for each in more} <= set("abcde")
    for flag in ("--image_size=64", "--resize=stretch"):
        assert [each["score"] for each in detect(flag)[0]] != [each["score"] for each in plain], flag


def test_detect_suppresses_as_its_release_says(run_app, trained, tmp_path):
    """A release with NMS at 1, which drops nothing, has as many detections as with the flag given so."""
    _, out, file = trained
    flags = [*DATA, *NET, f"--proposals_file={file}"]
    shutil.copytree(out, tmp_path / "out")
    done = run_app("rcnn", "boxes", *flags, "--nms_threshold=1", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    found = []
    for more in ([], ["--nms_threshold=1"], ["--nms_threshold=0.3"]):
        model = [f"--model={tmp_path / 'out' / 'release'}", "--limit=1", "--score_threshold=0"]
        done = run_app("rcnn", "detect", *model, *more, f"--output_dir={tmp_path / 'detect'}")
        assert done.returncode == 0, done.stderr
        (entry,) = json.loads((tmp_path / "detect" / "results.json").read_text())["images"]
        found.append(entry["detections"])
    assert found[0] == found[1] != found[2]


def test_the_release_detects_with_proposals_of_its_own(run_app, trained, tmp_path):
    _, out, file = trained
    flags = [f"--model={out / 'release'}", "--limit=1", "--proposals=20"]
    done = run_app("rcnn", "detect", *flags, f"--output_dir={tmp_path / 'a'}")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "a" / "results.json").read_text())["images"]
    assert {each["label"] for each in entry["detections"]} <= {"circle", "triangle", "square", "star", "ring"}
    assert (tmp_path / "a" / "detections.json").exists() and (tmp_path / "a" / entry["picture"]).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetune", *DATA], "--proposals_file"),
        (["svm", *DATA, "--proposals_file=no.json"], "no.json"),
        (["svm", *DATA, "--proposals_file=no.json", "--resize=stretch"], "svm sees pictures by letterbox"),
        (["finetune", *DATA, "--init=digits", "--proposals_file=no.json"], "--init is for other trainers"),
        (["all", *DATA, "--model=digits", "--proposals_file=no.json"], "--model is what the step detect"),
        (["detect"], "--model is missing"),
        (["detect", "--model=faster_rcnn_voc"], "no R-CNN"),
        (["detect", "--model={release}", "--resize=crop"], "cut objects off"),
        (["detect", "--model={release}", "--labels=no.txt"], "no.txt"),
    ],
)
def test_a_wrong_command_is_one_line(run_app, trained, tmp_path, arguments, said):
    arguments = [argument.format(release=trained[1] / "release") for argument in arguments]
    done = run_app("rcnn", *arguments, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr and not (tmp_path / "out").exists()
