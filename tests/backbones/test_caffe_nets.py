"""The nets that people have as files of Caffe, whole but thin, against OpenCV's dnn module."""

import caffe_nets
import numpy as np
import pytest
from caffe_files import caffemodel

from tfcnn.backbones.importers import caffe, caffe_reference
from tfcnn.errors import InputError

# name: (size of the picture, spread of its values, whether the files are of before 2014). Sizes and spreads are the
# published nets' own, PNet's an odd one of any.
NETS = {
    "alexnet": ((3, 227, 227), 60, True),
    "caffenet": ((3, 227, 227), 60, False),
    "zf": ((3, 224, 224), 60, False),
    "vgg16": ((3, 224, 224), 60, True),
    "vgg19": ((3, 224, 224), 60, False),
    "googlenet": ((3, 224, 224), 60, True),
    "squeezenet_1_0": ((3, 227, 227), 60, False),
    "squeezenet_1_1": ((3, 227, 227), 60, False),
    "resnet_50": ((3, 224, 224), 60, False),
    "resnet_101_dilated": ((3, 150, 113), 60, False),
    "lenet": ((1, 28, 28), 1, True),
    "mtcnn_p": ((3, 41, 52), 1, False),
    "mtcnn_r": ((3, 24, 24), 1, False),
    "mtcnn_o": ((3, 48, 48), 1, False),
}
TRUNKS = ["faster_rcnn_zf", "faster_rcnn_vgg16", "faster_rcnn_cnn_m"]


def compared(imported, paths, endpoints, size, level=60):
    """Holds an import to OpenCV's answers, each to 1e-4 of its greatest value."""
    picture = np.random.default_rng(1).normal(0, level, (1, *size[1:], size[0])).astype("f4")
    found = imported.model(picture)
    assert list(found) == endpoints
    expected = caffe_reference.answers(*paths, picture, [imported.outputs[name] for name in endpoints])
    for name, other in zip(endpoints, expected, strict=True):
        own, greatest = found[name].numpy(), np.abs(other).max()
        assert own.shape == other.shape or own.shape == other.reshape(len(other), -1).shape, name
        assert greatest > 1e-3 and np.std(other) > 1e-2 * greatest, f"{name} says nothing"
        np.testing.assert_allclose(own, other.reshape(own.shape), rtol=0, atol=1e-4 * greatest, err_msg=name)


@pytest.mark.parametrize("name", NETS)
def test_a_whole_net_answers_as_in_opencv(name, tmp_path):
    size, level, old = NETS[name]
    net = caffe_nets.Net(size, old, level)
    endpoints = getattr(caffe_nets, name)(net)
    paths = net.files(tmp_path)
    imported = caffe.load(*paths, endpoints=endpoints)
    assert {each["from"] for each in imported.layers} == set(net.weights) and not imported.left_over
    compared(imported, paths, endpoints, size, level)


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_of_faster_rcnn_answers_as_in_opencv(name, tmp_path):
    size = (3, 203, 300)
    net = caffe_nets.Net(size)
    endpoints, known = getattr(caffe_nets, name)(net)
    paths = net.files(tmp_path)
    with pytest.raises(InputError, match=r"Reshape \(rpn_cls_score_reshape\), .*, ROIPooling \(roi_pool5\)"):
        caffe.load(*paths)
    imported = caffe.load(*paths, endpoints=endpoints)
    assert imported.left_over == ["fc6", "cls_score", "bbox_pred"]
    compared(imported, _for_opencv(net, known, tmp_path), endpoints, size)


def _for_opencv(net, known, folder):
    """What OpenCV can run: without the layers of that program, and without LRN's k, which it takes for 1.

    (2 + s)^-0.75 = 2^-0.75 (1 + s / 2)^-0.75, and the factor goes into the next convolution.
    """
    weights = dict(net.weights)
    if "k: 2" in known:
        known = known.replace("alpha: 0.0005", "alpha: 0.00025").replace("k: 2", "")
        for name in ("conv2", "conv3"):
            weights[name] = [weights[name][0] * 2**-0.75, weights[name][1]]
    paths = folder / "known.prototxt", folder / "known.caffemodel"
    paths[0].write_text(known)
    paths[1].write_bytes(caffemodel(weights))
    return paths
