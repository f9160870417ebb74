"""activations as a person runs it: pictures with a page, other runs' pictures beside, a video in a camera's place."""

import json

import numpy as np
import pytest

import tfcnn
from tfcnn import images
from tfcnn.video import Film, open_video


@pytest.fixture(scope="module")
def run(run_app, tmp_path_factory):
    """A run on a release with patches of the same net beside it: (process, output_dir)."""
    out = tmp_path_factory.mktemp("activations")
    common = ["--model=digits", "--limit=2"]
    done = run_app("patches", *common, "--layer=relu2", "--channel=3", f"--output_dir={out / 'patches'}")
    assert done.returncode == 0, done.stderr
    done = run_app(
        "activations",
        *common,
        "--layer=relu1,relu2",
        f"--units={out / 'patches'}",
        f"--output_dir={out / 'here'}",
    )
    return done, out / "here"


def test_grids_and_a_page(run):
    done, out = run
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "results.json").read_text())
    first, second = report["images"]
    assert first["page"] == report["page"] == "activations.html" and report["pictures_on_page"] == 2
    assert (
        first["files"] == ["chelsea_relu1.png", "chelsea_relu2.png"] and first["picture"] == first["files"][0]
    )
    assert len(first["predictions"]) == 5 and first["layers"][1]["channels"] == 32
    assert len(first["layers"][1]["strongest"]) == 2
    page = (out / "activations.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [layer["name"] for layer in data["layers"]] == ["relu1", "relu2"]
    assert [layer["channels"] for layer in data["layers"]] == [16, 32]
    shown = data["pictures"][0]["layers"][1]
    assert sorted(map(int, shown["gradients"])) == sorted(first["layers"][1]["strongest"])
    assert [each["caption"] for each in data["units"]["relu2"]["3"]] == ["patches"]
    assert 'href="activations.html#1"' in (out / "index.html").read_text()


def test_a_net_without_classes_names_its_strongest_channels(run_app, tmp_path):
    import keras

    net = tfcnn.load_model("digits")
    keras.Model(net.input, net.get_layer("relu2").output).save(tmp_path / "body.keras")
    done = run_app(
        "activations",
        f"--model={tmp_path / 'body.keras'}",
        "--layer=relu1,relu2",
        "--limit=1",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    strongest = json.loads((tmp_path / "out/results.json").read_text())["images"][0]["layers"][1]["strongest"]
    assert "strongest channels of relu2" in done.stdout and ", ".join(map(str, strongest)) in done.stdout


def test_a_video_in_the_cameras_place(run_app, tmp_path):
    film = Film(tmp_path / "in.mp4", 25)
    for shade in range(6):
        film.add(np.full((48, 64, 3), 40 * shade, np.uint8))
    film.close()
    done = run_app(
        "activations", "--model=digits", "--layer=relu1", f"--video={tmp_path / 'in.mp4'}", "--limit=4", "--port=0",
        f"--output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1:" in done.stderr
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    assert entry["frames"] == 4 and entry["picture"] == "in_activations.mp4"
    with open_video(tmp_path / "out" / entry["picture"]) as made:
        frames = list(made)
    assert len(frames) == 4 and frames[0].shape == (448, 896, 3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layer=relu9"], ["relu9", "--list_layers"]),
        (["--channel=500"], ["--channel=500", "0 to 127"]),
        (["--camera=0", "--video=a.mp4"], ["--video and --camera"]),
        (["--video=none.mp4"], ["none.mp4"]),
        (["--units=none"], ["--units=none"]),
        (["--port=80"], ["--port is for --camera and --video"]),
        (["--video=a.mp4", "--channel=2"], ["--channel is for pictures"]),
        (["--channel=1", "--gradients=2"], ["--gradients is for no --channel"]),
    ],
)
def test_wrong_commands(run_app, tmp_path, flags, words):
    done = run_app("activations", "--model=digits", *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in words), line


def test_units_of_another_net_are_refused(run, run_app, tmp_path):
    _, out = run
    done = run_app("activations", f"--units={out.parent / 'patches'}", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and "digits" in done.stderr and "efficientnet_lite0" in done.stderr
    assert images.read(out / "chelsea_relu1.png").ndim == 3
