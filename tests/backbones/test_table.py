"""The contract of every net: published counts of weights, declared strides and channels, gradients, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcnn
from tfcnn.backbones import NETS, backbone, classifier, endpoint_names
from tfcnn.backbones.nets import yolo
from tfcnn.backbones.table import net, preprocessing
from tfcnn.errors import InputError

# Of the papers, or counted from the authors' own files; batch norm's statistics included.
PUBLISHED = {
    "alexnet": 60_965_224,
    "zf": 62_357_608,
    "overfeat_fast": 145_920_872,
    "overfeat_accurate": 144_656_488,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_998_552,
    "inception_v3": 23_851_784,
    "resnet50": 25_636_712,
    "resnet101": 44_707_176,
    "resnet152": 60_419_944,
    "all_cnn_c": 1_369_738,
    "mobilenet_v2": 3_538_984,
    "efficientnet_lite0": 4_694_024,
    "yolo": 23_428_136,
}
LEARNED = {  # without the statistics
    "inception_v3": 23_817_352,
    "resnet50": 25_583_592,
    "resnet101": 44_601_832,
    "resnet152": 60_268_520,
    "mobilenet_v2": 3_504_872,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite2": 6_092_072,
}
CONVOLUTIONS = {"vgg16": 14_714_688, "vgg19": 20_024_384, "zf": 3_726_464}
# Maps at the net's own size, as the papers print them.
MAPS = {
    "alexnet": {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13, "conv5": 13, "pool5": 6},
    "zf": {"conv1": 110, "pool1": 55, "conv2": 26, "pool2": 13, "conv5": 13, "pool5": 6},
    "overfeat_fast": {"conv1": 56, "conv2": 24, "conv5": 12, "pool5": 6},
    "overfeat_accurate": {"conv1": 108, "conv2": 30, "conv6": 15, "pool6": 5},
    "vgg16": {"block1_conv2": 224, "block5_conv3": 14, "block5_pool": 7},
    "googlenet": {"conv1/7x7_s2": 112, "conv2/3x3": 56, "inception_3b/output": 28, "inception_4e/output": 14},
    "inception_v3": {"mixed2": 35, "mixed7": 17, "mixed10": 8},
    "resnet50": {"conv1_relu": 112, "conv5_block3_out": 7},
    "all_cnn_c": {"conv2": 32, "conv5": 16, "conv6": 8, "conv7": 6, "conv8": 6},
}
SIZES = {"inception_v3": 171, "overfeat_accurate": 113, "yolo": 64, "fast_yolo": 64}  # 96 for the others


@pytest.fixture
def unallocated():
    """Models in it have shapes, and no memory for their weights."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


@pytest.mark.parametrize("name", NETS)
def test_counts_of_weights(name, unallocated):
    model = classifier(name, weights=None)
    assert model.count_params() == NETS[name].parameters
    if name in PUBLISHED:
        assert model.count_params() == PUBLISHED[name]
    if name in LEARNED:
        assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == LEARNED[name]
    if name in CONVOLUTIONS:
        assert backbone(name, weights=None).count_params() == CONVOLUTIONS[name]
    assert model.output["logits"].shape == model.output["scores"].shape == (None, NETS[name].classes)
    assert model.input_shape == (None, NETS[name].size, NETS[name].size, 3)


def test_counts_of_variants(unallocated):
    assert classifier("googlenet", None, auxiliary=True).count_params() == 13_378_280
    assert classifier("all_cnn_c", None, classes=100).count_params() == 1_387_108
    heads = {"yolo": ((4096, "leaky"),), "fast_yolo": ((256, "linear"), (4096, "leaky"))}
    detectors = {"yolo": 271_703_550, "fast_yolo": 45_089_374}
    for name, hidden in heads.items():
        features = backbone(name, None)
        image = keras.Input((448, 448, 3))
        output = yolo.dense_head(
            keras.layers.Flatten()(features(image)[endpoint_names(name)[-1]]), 7 * 7 * 30, hidden
        )
        assert keras.Model(image, output).count_params() == detectors[name]


@pytest.mark.parametrize("name", [name for name, row in NETS.items() if row.beyond])
def test_layers_beyond_the_classifier_are_those_that_it_lacks(name, unallocated):
    own = {layer.name for layer in classifier(name, weights=None).layers}
    more = [
        layer.name for layer in backbone(name, weights=None).layers if layer.weights and layer.name not in own
    ]
    assert more == list(NETS[name].beyond)


@pytest.mark.parametrize("name", NETS)
def test_strides_and_channels_are_the_declared_ones(name, unallocated):
    row = NETS[name]
    model = backbone(name, weights=None)
    assert list(model.output) == endpoint_names(name)
    more = 2 * int(np.lcm.reduce([place.stride for place in row.endpoints.values()]))
    own = model.compute_output_shape((1, row.size, row.size, 3))
    larger = model.compute_output_shape((1, row.size + more, row.size + 2 * more, 3))
    for endpoint, place in row.endpoints.items():
        assert own[endpoint][3] == place.channels, endpoint
        assert (larger[endpoint][1] - own[endpoint][1]) * place.stride == more, endpoint
        assert (larger[endpoint][2] - own[endpoint][2]) * place.stride == 2 * more, endpoint
    for endpoint, size in MAPS.get(name, {}).items():
        assert own[endpoint][1:3] == (size, size), endpoint


DEEP = ("resnet101", "resnet152")  # the blocks of resnet50, more of them


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in DEEP)) for n in NETS])
def test_gradients_finite_outputs_and_saving(name, tmp_path):
    model = backbone(name, weights=None)
    assert not any(isinstance(layer, keras.Model | keras.layers.Lambda) for layer in model.layers)
    size = SIZES.get(name, 96)
    random = np.random.default_rng(0)
    pictures = [random.uniform(0, 255, (2, size, size, 3)).astype(np.float32)]
    pictures.append(random.uniform(0, 255, (1, size + 21, size + 46, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        outputs = model(pictures[0], training=True)
        loss = sum(tf.reduce_sum(values**2) for values in outputs.values())
    for endpoint, shape in model.compute_output_shape(pictures[0].shape).items():
        assert tuple(outputs[endpoint].shape) == shape, endpoint
    gradients = tape.gradient(loss, model.trainable_variables)
    dead = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.isfinite(gradient).all() or not np.any(gradient)
    ]
    assert not dead
    model.save(tmp_path / "model.keras")
    again = tfcnn.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.zero_rgb, model.zero_rgb)
    for picture in pictures:
        before, after = model(picture), again(picture)
        for endpoint in before:
            assert np.isfinite(before[endpoint]).all()
            np.testing.assert_array_equal(before[endpoint], after[endpoint])


@pytest.mark.parametrize("name", ["all_cnn_c", "googlenet", "tiny", "mobilenet_v2"])
def test_a_classifier_learns_in_every_weight_and_survives_saving(name, tmp_path):
    model = classifier(name, None, classes=5, **({"auxiliary": True} if name == "googlenet" else {}))
    size = NETS[name].size
    picture = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        outputs = model(picture, training=True)
        loss = sum(tf.reduce_sum(values**2) for key, values in outputs.items() if key != "scores")
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    model.save(tmp_path / "model.keras")
    before, after = model(picture), tfcnn.load_model(tmp_path / "model.keras")(picture)
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])
    np.testing.assert_allclose(np.sum(before["scores"], -1), 1, rtol=1e-5)


def test_names_do_not_depend_on_what_was_built_before(unallocated):
    first, second = (backbone("inception_v3", None, ["mixed2", "conv2d"]) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert first.output["conv2d"].shape[-1] == 32


def test_endpoints_by_the_names_of_layers(unallocated):
    model = backbone("googlenet", None, ["inception_4c/3x3", "inception_3a_output"])
    assert [shape[-1] for shape in model.compute_output_shape((1, 224, 224, 3)).values()] == [256, 256]
    assert "inception_5b_output" not in [layer.name for layer in model.layers]
    with pytest.raises(InputError, match="block4_conv3"):
        backbone("vgg16", None, ["block4_conv7"])


def test_other_sizes(unallocated):
    assert classifier("efficientnet_lite0", None, size=(None, 320)).input_shape == (None, None, 320, 3)
    assert classifier("alexnet", None, classes=3, size=99).input_shape == (None, 99, 99, 3)
    with pytest.raises(InputError, match="alexnet cannot read pictures of None x None; its own are 227"):
        classifier("alexnet", None, size=(None, None))
    with pytest.raises(InputError, match="zf cannot read pictures of 20 x 20"):
        classifier("zf", None, size=20)


def test_unknown_names():
    with pytest.raises(InputError, match="resnet50"):
        net("resnet_50")
    with pytest.raises(InputError, match="vgg16"):
        preprocessing("vgg15")
    assert preprocessing("tf").mean == (127.5, 127.5, 127.5)
    assert preprocessing("vgg19") == NETS["vgg19"].preprocessing


def test_tables_and_names_need_no_tensorflow():
    code = (
        "import sys, tfcnn, tfcnn.backbones, tfcnn.backbones.imagenet as i; tfcnn.backbones.offline('vgg16');"
        "assert len(i.class_names()) == 1000; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import sys, tfcnn; assert not {'numpy', 'tensorflow', 'keras'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_class_names():
    from tfcnn.backbones.imagenet import class_names

    names = class_names()
    assert names[0] == ("n01440764", "tench") and names[999][0] == "n15075141"
    assert [synset for synset, _ in names] == sorted(synset for synset, _ in names)
    assert [index for index, (_, label) in enumerate(names) if label == "crane"] == [134, 517]
