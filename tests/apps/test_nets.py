"""The app `nets` prints the factory's table."""

import json

from tfcnn.backbones import NETS


def test_nets_prints_the_table(run_app, tmp_path):
    done = run_app("nets", f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(NETS) + 2 and lines[-1].startswith("see ")
    (row,) = (line.split() for line in lines if line.startswith("efficientnet_lite0"))
    assert row[1:4] == ["224", "4,694,024", "1000"] and row[-1] == "here"
    nets = json.loads((tmp_path / "results.json").read_text())["nets"]
    assert [net["name"] for net in nets] == list(NETS)
    vgg = next(net for net in nets if net["name"] == "vgg16")
    assert vgg["endpoints"]["block3_conv3"] == {"stride": 4, "channels": 256}
    assert vgg["weights"]["imagenet"]["file"] == "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
