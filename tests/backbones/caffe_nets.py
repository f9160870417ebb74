"""The nets that people have as files of Caffe, written from their papers: the whole topology, an eighth as wide.

Each function fills a `Net` and gives the blobs to compare. Names, places of ReLU, order of pooling and normalisation
and roundings are those of the published nets; widths are not.
"""

import math

import numpy as np
from caffe_files import caffemodel

OLD_KINDS = {"InnerProduct": "INNER_PRODUCT", "LRN": "LRN"}  # all others are their names in capitals


class Net:
    """A deploy.prototxt as it grows, with random weights; of old with `layers` and types in capitals.

    `level` is the spread of the pictures that the net expects; biases follow it.
    """

    def __init__(self, size, old=False, level=60.0, seed=0):
        self.old, self.level, self.random, self.weights = old, level, np.random.default_rng(seed), {}
        self.shapes = {"data": size}
        dims = (1, *size)
        shown = (
            " ".join(f"input_dim: {side}" for side in dims)
            if old
            else f"input_shape {{ {' '.join(f'dim: {side}' for side in dims)} }}"
        )
        self.lines = ['name: "net"', f'input: "data" {shown}']

    def files(self, folder):
        """Writes both files and gives their paths."""
        paths = folder / "net.prototxt", folder / "net.caffemodel"
        paths[0].write_text("\n".join(self.lines))
        paths[1].write_bytes(caffemodel(self.weights, self.old))
        return paths

    def layer(self, kind, name, bottoms, options="", shape=None, top=None):
        """A layer of any kind; a top that is also the bottom is computed in place."""
        bottoms = bottoms.split()
        word, shown = ("layers", OLD_KINDS.get(kind, kind.upper())) if self.old else ("layer", f'"{kind}"')
        read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        top = top or name
        self.shapes[top] = shape or self.shapes[bottoms[0]]
        self.lines.append(f'{word} {{ name: "{name}" type: {shown} {read} top: "{top}" {options} }}')
        return top

    def normal(self, *shape, gain=1.0):
        return (gain * self.random.standard_normal(shape)).astype("f4")

    def conv(self, x, name, count, kernel, stride=1, pad=0, group=1, dilation=1, bias=True, gain=1.0):
        depth, *sides = self.shapes[x]
        options = f"num_output: {count} kernel_size: {kernel}"
        for option, value, usual in (
            ("pad", pad, 0),
            ("stride", stride, 1),
            ("group", group, 1),
            ("dilation", dilation, 1),
        ):
            options += f" {option}: {value}" if value != usual else ""
        options += "" if bias else " bias_term: false"
        extent = dilation * (kernel - 1) + 1
        shape = (count, *((side + 2 * pad - extent) // stride + 1 for side in sides))
        spread = gain * math.sqrt(2 / (depth // group * kernel**2))
        self.weights[name] = [self.normal(count, depth // group, kernel, kernel, gain=spread)]
        self.weights[name] += [self.normal(count, gain=gain * self.level / 6)] if bias else []
        return self.layer("Convolution", name, x, f"convolution_param {{ {options} }}", shape)

    def relu(self, x, name):
        return self.layer("ReLU", name, x, top=x)

    def conv_relu(self, x, name, relu, *args, **options):
        return self.relu(self.conv(x, name, *args, **options), relu)

    def pool(self, x, name, kernel, stride=1, pad=0, mode="MAX"):
        depth, *sides = self.shapes[x]
        counts = []
        for side in sides:
            count = -(-(side + 2 * pad - kernel) // stride) + 1
            counts.append(count - 1 if pad and (count - 1) * stride >= side + pad else count)
        options = f"pool: {mode} kernel_size: {kernel} stride: {stride}" + (f" pad: {pad}" if pad else "")
        return self.layer("Pooling", name, x, f"pooling_param {{ {options} }}", (depth, *counts))

    def lrn(self, x, name, size=5, alpha=1e-4, more=""):
        return self.layer(
            "LRN", name, x, f"lrn_param {{ local_size: {size} alpha: {alpha} beta: 0.75 {more} }}"
        )

    def dense(self, x, name, count, gain=1.0):
        size = math.prod(self.shapes[x])
        spread = gain * math.sqrt(2 / size)
        self.weights[name] = [
            self.normal(count, size, gain=spread),
            self.normal(count, gain=gain * self.level / 6),
        ]
        return self.layer("InnerProduct", name, x, f"inner_product_param {{ num_output: {count} }}", (count,))

    def dropout(self, x, name, rate=0.5):
        return self.layer("Dropout", name, x, f"dropout_param {{ dropout_ratio: {rate} }}", top=x)

    def concat(self, name, *bottoms):
        depth = sum(self.shapes[bottom][0] for bottom in bottoms)
        return self.layer("Concat", name, " ".join(bottoms), shape=(depth, *self.shapes[bottoms[0]][1:]))

    def norm(self, x, name, scale, gain=1.0):
        """BatchNorm and its Scale, both in place; the statistics are sums, and the third blob counts them."""
        count, factor = self.shapes[x][0], 7.5
        statistics = [0.5 * self.normal(count), self.random.uniform(0.5, 1.5, count).astype("f4")]
        self.weights[name] = [*(factor * each for each in statistics), np.array([factor])]
        self.weights[scale] = [
            (gain * self.random.uniform(0.5, 1.5, count)).astype("f4"),
            0.5 * self.normal(count),
        ]
        self.layer("BatchNorm", name, x, "batch_norm_param { use_global_stats: true }", top=x)
        return self.layer("Scale", scale, x, "scale_param { bias_term: true }", top=x)

    def prelu(self, x, name):
        self.weights[name] = [self.random.uniform(0, 0.5, self.shapes[x][0]).astype("f4")]
        return self.layer("PReLU", name, x, top=x)

    def classes(self, x):
        """What ends in AlexNet's three dense layers."""
        for number in (6, 7):
            x = self.relu(self.dense(x, f"fc{number}", 64), f"relu{number}")
            x = self.dropout(x, f"drop{number}")
        return self.scores(self.dense(x, "fc8", 20, 1 / self.level))

    def scores(self, logits):
        return [logits, self.layer("Softmax", "prob", logits)]


def alexnet(net, norm_first=True):
    """Krizhevsky et al. (2012) in two groups; CaffeNet pools before it normalises."""
    x = net.conv_relu("data", "conv1", "relu1", 12, 11, 4)
    for number in (1, 2):
        for kind in ("norm", "pool") if norm_first else ("pool", "norm"):
            name = f"{kind}{number}"
            x = net.lrn(x, name) if kind == "norm" else net.pool(x, name, 3, 2)
        if number == 1:
            x = net.conv_relu(x, "conv2", "relu2", 32, 5, pad=2, group=2)
    x = net.conv_relu(x, "conv3", "relu3", 48, 3, pad=1)
    x = net.conv_relu(x, "conv4", "relu4", 48, 3, pad=1, group=2)
    x = net.conv_relu(x, "conv5", "relu5", 32, 3, pad=1, group=2)
    return [x, *net.classes(net.pool(x, "pool5", 3, 2))]


def caffenet(net):
    return alexnet(net, norm_first=False)


def zf_trunk(net):
    """Zeiler and Fergus (2014) as Faster R-CNN has it: normalised within each channel, pools padded."""
    x = net.conv_relu("data", "conv1", "relu1", 12, 7, 2, 3)
    x = net.pool(net.lrn(x, "norm1", 3, 5e-5, "norm_region: WITHIN_CHANNEL"), "pool1", 3, 2, 1)
    x = net.conv_relu(x, "conv2", "relu2", 32, 5, 2, 2)
    x = net.pool(net.lrn(x, "norm2", 3, 5e-5, "norm_region: WITHIN_CHANNEL"), "pool2", 3, 2, 1)
    for number, count in ((3, 48), (4, 48), (5, 32)):
        x = net.conv_relu(x, f"conv{number}", f"relu{number}", count, 3, pad=1)
    return x


def zf(net):
    """The classifier: the same trunk with a pool of 3."""
    return ["conv5", *net.classes(net.pool(zf_trunk(net), "pool5", 3, 2))]


def vgg_trunk(net, repeats):
    x = "data"
    for block, (count, times) in enumerate(zip((8, 16, 32, 64, 64), repeats, strict=True), 1):
        for number in range(1, times + 1):
            x = net.conv_relu(x, f"conv{block}_{number}", f"relu{block}_{number}", count, 3, pad=1)
        x = net.pool(x, f"pool{block}", 2, 2) if block < 5 else x
    return x


def vgg(net, repeats):
    """Simonyan and Zisserman (2015)."""
    x = vgg_trunk(net, repeats)
    return [x, *net.classes(net.pool(x, "pool5", 2, 2))]


def vgg16(net):
    return vgg(net, (2, 2, 3, 3, 3))


def vgg19(net):
    return vgg(net, (2, 2, 4, 4, 4))


# 1x1; 3x3 reduced, 3x3; 5x5 reduced, 5x5; after the pool: Szegedy et al. (2015) table 1.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(net):
    """Szegedy et al. (2015)."""

    def conv(x, name, count, kernel, stride=1, pad=0):
        scope, _, own = name.rpartition("/")
        return net.conv_relu(x, name, f"{scope}/relu_{own}", count // 8, kernel, stride, pad)

    x = net.pool(conv("data", "conv1/7x7_s2", 64, 7, 2, 3), "pool1/3x3_s2", 3, 2)
    x = conv(conv(net.lrn(x, "pool1/norm1"), "conv2/3x3_reduce", 64, 1), "conv2/3x3", 192, 3, pad=1)
    x = net.pool(net.lrn(x, "conv2/norm2"), "pool2/3x3_s2", 3, 2)
    for block, (one, reduce3, three, reduce5, five, pooled) in INCEPTION.items():
        at = f"inception_{block}"
        x = net.concat(
            f"{at}/output",
            conv(x, f"{at}/1x1", one, 1),
            conv(conv(x, f"{at}/3x3_reduce", reduce3, 1), f"{at}/3x3", three, 3, pad=1),
            conv(conv(x, f"{at}/5x5_reduce", reduce5, 1), f"{at}/5x5", five, 5, pad=2),
            conv(net.pool(x, f"{at}/pool", 3, 1, 1), f"{at}/pool_proj", pooled, 1),
        )
        if block in ("3b", "4e"):
            x = net.pool(x, f"pool{block[0]}/3x3_s2", 3, 2)
    last = x
    x = net.dropout(net.pool(x, "pool5/7x7_s1", 7, 1, mode="AVE"), "pool5/drop_7x7_s1", 0.4)
    return ["inception_4a/output", last, *net.scores(net.dense(x, "loss3/classifier", 20, 1 / net.level))]


def squeezenet(net, first, pools, pad=0):
    """Iandola et al. (2016): no dense layer, a mean over what conv10 gives."""
    x = net.conv_relu("data", "conv1", "relu_conv1", first // 8, 7 if first == 96 else 3, 2)
    x = net.pool(x, "pool1", 3, 2)
    for fire, squeezed in zip(range(2, 10), (16, 16, 32, 32, 48, 48, 64, 64), strict=True):
        at = f"fire{fire}"
        x = net.conv_relu(x, f"{at}/squeeze1x1", f"{at}/relu_squeeze1x1", squeezed // 8, 1)
        one = net.conv_relu(x, f"{at}/expand1x1", f"{at}/relu_expand1x1", squeezed // 2, 1)
        three = net.conv_relu(x, f"{at}/expand3x3", f"{at}/relu_expand3x3", squeezed // 2, 3, pad=1)
        x = net.concat(f"{at}/concat", one, three)
        x = net.pool(x, f"pool{fire}", 3, 2) if fire in pools else x
    x = net.conv_relu(net.dropout(x, "drop9"), "conv10", "relu_conv10", 20, 1, pad=pad, gain=4 / net.level)
    net.layer("Pooling", "pool10", x, "pooling_param { pool: AVE global_pooling: true }", (20, 1, 1))
    return ["fire9/concat", *net.scores("pool10")]


def squeezenet_1_0(net):
    return squeezenet(net, 96, (4, 8), pad=1)


def squeezenet_1_1(net):
    return squeezenet(net, 64, (3, 5))


def resnet(net, units, dilated=False):
    """He et al. (2015): a block's first unit has the stride, in its 1x1 convolutions; dilated as in R-FCN."""
    x = net.conv("data", "conv1", 8, 7, 2, 3, gain=1 / net.level)
    x = net.pool(net.relu(net.norm(x, "bn_conv1", "scale_conv1"), "conv1_relu"), "pool1", 3, 2)
    for stage, count in enumerate(units, 2):
        width = 8 * 2 ** (stage - 2)
        for unit in range(count):
            letter = chr(ord("a") + unit) if count <= 6 else ("a" if unit == 0 else f"b{unit}")
            wide = dilated and stage == 5
            stride = 2 if unit == 0 and stage > 2 and not wide else 1
            spread = {"pad": 2, "dilation": 2} if wide else {"pad": 1}

            def branch(
                x, own, count, kernel, stride=1, active=True, gain=1.0, at=f"{stage}{letter}_branch", **more
            ):
                x = net.conv(x, f"res{at}{own}", count, kernel, stride, bias=False, **more)
                x = net.norm(x, f"bn{at}{own}", f"scale{at}{own}", gain)
                return net.relu(x, f"res{at}{own}_relu") if active else x

            shortcut = branch(x, "1", 4 * width, 1, stride, active=False) if unit == 0 else x
            y = branch(x, "2a", width, 1, stride)
            y = branch(y, "2b", width, 3, **spread)
            y = branch(y, "2c", 4 * width, 1, active=False, gain=0.3)
            x = net.layer("Eltwise", f"res{stage}{letter}", f"{shortcut} {y}")
            x = net.relu(x, f"res{stage}{letter}_relu")
    if dilated:
        return ["res2c", x]
    return ["res4f", x, *net.scores(net.dense(net.pool(x, "pool5", 7, 1, mode="AVE"), "fc1000", 20))]


def resnet_50(net):
    return resnet(net, (3, 4, 6, 3))


def resnet_101_dilated(net):
    return resnet(net, (3, 4, 23, 3), dilated=True)


def lenet(net):
    """LeCun et al. (1998) as Caffe's example has it."""
    x = net.pool(net.conv("data", "conv1", 20, 5), "pool1", 2, 2)
    x = net.pool(net.conv(x, "conv2", 50, 5), "pool2", 2, 2)
    return net.scores(net.dense(net.relu(net.dense(x, "ip1", 60), "relu1"), "ip2", 10))


def mtcnn(net, convs, dense, ends):
    """Zhang et al. (2016): (channels, kernel, pool) of each convolution, a dense layer and its outputs."""
    x = "data"
    for number, (count, kernel, pool) in enumerate(convs, 1):
        x = net.prelu(net.conv(x, f"conv{number}", count, kernel), f"prelu{number}")
        x = net.pool(x, f"pool{number}", pool, 2) if pool else x
    last = len(convs) + 1
    if dense:
        x = net.prelu(net.dense(x, f"conv{last}", dense), f"prelu{last}")
        last += 1
    make = net.dense if dense else lambda *args: net.conv(*args, 1)
    made = [make(x, f"conv{last}-{number}", count) for number, count in enumerate(ends, 1)]
    net.layer("Softmax", "prob1", made[0])
    return [*made, "prob1"]


def mtcnn_p(net):
    return mtcnn(net, ((10, 3, 2), (16, 3, 0), (32, 3, 0)), 0, (2, 4))


def mtcnn_r(net):
    return mtcnn(net, ((28, 3, 3), (48, 3, 3), (64, 2, 0)), 128, (2, 4))


def mtcnn_o(net):
    return mtcnn(net, ((32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)), 256, (2, 4, 10))


def cnn_m_trunk(net):
    """Chatfield et al. (2014), VGG_CNN_M: LRN over 5 channels with k 2."""
    x = net.conv_relu("data", "conv1", "relu1", 12, 7, 2)
    x = net.pool(net.lrn(x, "norm1", 5, 5e-4, "k: 2"), "pool1", 3, 2)
    x = net.conv_relu(x, "conv2", "relu2", 32, 5, 2, 1)
    x = net.pool(net.lrn(x, "norm2", 5, 5e-4, "k: 2"), "pool2", 3, 2)
    for number in (3, 4, 5):
        x = net.conv_relu(x, f"conv{number}", f"relu{number}", 64, 3, pad=1)
    return x


def faster_rcnn(net, trunk):
    """Ren et al. (2015) as their program tests it: a trunk, the RPN, and what only that program can run."""
    last = trunk(net)
    x = net.conv_relu(last, "rpn_conv/3x3", "rpn_relu/3x3", 32, 3, pad=1)
    ends = [net.conv(x, "rpn_cls_score", 18, 1), net.conv(x, "rpn_bbox_pred", 36, 1)]
    known = "\n".join(net.lines)
    net.lines.insert(2, 'input: "im_info" input_shape { dim: 1 dim: 3 }')
    shape = "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }"
    net.layer("Reshape", "rpn_cls_score_reshape", ends[0], shape)
    net.layer("Softmax", "rpn_cls_prob", "rpn_cls_score_reshape")
    net.layer("Reshape", "rpn_cls_prob_reshape", "rpn_cls_prob", shape.replace("dim: 2", "dim: 18"))
    settings = "python_param { module: 'rpn.proposal_layer' layer: 'ProposalLayer' param_str: \"'feat_stride': 16\" }"
    net.layer("Python", "proposal", "rpn_cls_prob_reshape rpn_bbox_pred im_info", settings, top="rois")
    pooled = "roi_pooling_param { pooled_w: 7 pooled_h: 7 spatial_scale: 0.0625 # 1/16\n }"
    net.layer("ROIPooling", "roi_pool5", f"{last} rois", pooled, (net.shapes[last][0], 7, 7), "pool5")
    x = net.dropout(net.relu(net.dense("pool5", "fc6", 8), "relu6"), "drop6")
    net.layer("Softmax", "cls_prob", net.dense(x, "cls_score", 21))
    net.dense(x, "bbox_pred", 84)
    return [last, *ends], known


def faster_rcnn_zf(net):
    return faster_rcnn(net, zf_trunk)


def faster_rcnn_vgg16(net):
    return faster_rcnn(net, lambda net: vgg_trunk(net, (2, 2, 3, 3, 3)))


def faster_rcnn_cnn_m(net):
    return faster_rcnn(net, cnn_m_trunk)
