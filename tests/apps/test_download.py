"""download without a network, and with a file that came damaged."""

import json
import time

from tfcnn.backbones import NETS

FILE = NETS["resnet50"].weights["imagenet"].file
UNREACHABLE = {name: "http://127.0.0.1:9" for name in ("https_proxy", "HTTPS_PROXY", "http_proxy")}


def test_without_a_network_it_ends_in_time_and_says_what_to_do(run_app, tmp_path):
    run_app("download", "--version")  # what runs the apps has started
    begun = time.monotonic()
    done = run_app(
        "download",
        "--nets=resnet50",
        f"--output_dir={tmp_path / 'out'}",
        KERAS_HOME=str(tmp_path),
        **UNREACHABLE,
    )
    assert done.returncode == 2 and time.monotonic() - begun < 15
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in ("resnet50", FILE, str(tmp_path), "efficientnet_lite0"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_here_is_checked_and_what_is_there_is_listed(run_app, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / FILE).write_bytes(b"half of a file")
    out = tmp_path / "out"
    done = run_app(
        "download", "--nets=efficientnet_lite0,resnet50", f"--output_dir={out}", KERAS_HOME=str(tmp_path)
    )
    assert done.returncode == 1 and "delete it" in done.stderr
    report = json.loads((out / "results.json").read_text())
    assert [entry["status"] for entry in report["weights"]] == ["in an installed package", "damaged"]
    assert report["refused"][0]["file"].endswith(FILE)
    listed = run_app("download", f"--output_dir={out}", KERAS_HOME=str(tmp_path / "none"))
    assert listed.returncode == 0 and "to fetch" in listed.stdout and "efficientnet_lite0" in listed.stdout
    wrong = run_app("download", "--nets=resnet5", f"--output_dir={tmp_path / 'no'}")
    assert wrong.returncode == 2 and "resnet50" in wrong.stderr and not (tmp_path / "no").exists()
    none = run_app("download", "--nets=alexnet", f"--output_dir={tmp_path / 'no'}")
    assert none.returncode == 2 and "nobody offers" in none.stderr
