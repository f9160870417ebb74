"""Faster R-CNN: the region proposal network and Fast R-CNN on one backbone, in one network with four losses.

Letters: N images, A anchors, R regions of an image, S sampled regions, M padded ground-truth boxes, K classes.

Source: Ren, He, Girshick, Sun, "Faster R-CNN", 2015; He et al., "Deep residual learning", 2015, appendix B (context);
Lin et al., "Feature pyramid networks", 2017 (fpn; pyramid and the sum of maps from the top down).
"""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import layers

from tfcnn.detection import endpoints, fast_rcnn, rpn
from tfcnn.detection.endpoints import endpoints_at
from tfcnn.errors import InputError, unknown

SIZES = (18.0, 32.0, 56.0, 96.0, 165.0, 280.0)  # anchors of one map, for pictures of 320 px
PYRAMID_SIZES = ((24.0, 38.0), (60.0, 95.0), (151.0, 240.0))  # two sizes a map of strides 8, 16, 32
FPN_SIZES = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))  # the paper's, of strides 4 to 64
RATIOS = (0.5, 1.0, 2.0)
# How the names of layers begin that are the detector's and not the backbone's.
OWN_LAYERS = ("neck_", "rpn_", "position_", "region_", "mask_", "class_logits", "box_deltas")


@keras.saving.register_keras_serializable(package="tfcnn")
class UpsampleLike(keras.layers.Layer):
    """Each location twice in both directions, cut to the size of the second map: [small map, map] to the map's size."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        small, like = inputs
        # A location's four copies lie side by side in its channels first: LiteRT's fast kernels know both operations.
        big = tf.nn.depth_to_space(tf.concat([small] * 4, axis=-1), 2)
        if big.shape[1:3].is_fully_defined() and big.shape[1:3] == like.shape[1:3]:
            return big
        return big[:, : tf.shape(like)[1], : tf.shape(like)[2]]

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        small, like = inputs
        return keras.KerasTensor((*like.shape[:3], small.shape[-1]), small.dtype)


def top_down(maps: Sequence[keras.KerasTensor], channels: int = 128) -> list[keras.KerasTensor]:
    """Maps of falling resolution brought to the same channels, each with the sum of those above it.

    The coarsest map also gets the mean of the whole picture (ThunderNet's context enhancement). A 5x5 separable
    convolution makes each sum one map again.

    Args:
        maps: KerasTensors [N, h, w, C], each half the size of the one before.

    Returns:
        list of KerasTensors [N, h, w, channels], in the same order.
    """
    lateral = [
        layers.Conv2D(channels, 1, kernel_initializer="he_normal", name=f"neck_lateral{i}")(x)
        for i, x in enumerate(maps)
    ]
    whole = layers.GlobalAveragePooling2D(keepdims=True, name="neck_mean")(maps[-1])
    whole = layers.Conv2D(channels, 1, kernel_initializer="he_normal", name="neck_whole")(whole)
    sums = [layers.Add(name="neck_top")([lateral[-1], whole])]
    for i in reversed(range(len(maps) - 1)):
        above = UpsampleLike(name=f"neck_up{i}")([sums[0], lateral[i]])
        sums.insert(0, layers.Add(name=f"neck_sum{i}")([lateral[i], above]))
    return [
        layers.SeparableConv2D(
            channels,
            5,
            padding="same",
            activation="relu",
            pointwise_initializer="he_normal",
            name=f"neck_out{i}",
        )(x)
        for i, x in enumerate(sums)
    ]


def feature_pyramid(maps: Sequence[keras.KerasTensor], channels: int = 256) -> list[keras.KerasTensor]:
    """Lin et al.'s feature pyramid: each map with the sum of those above it, smoothed, and one of half the size more.

    Args:
        maps: KerasTensors [N, h, w, C] of strides 4, 8, 16 and 32 (C2 to C5).
        channels: of each map of the pyramid.

    Returns:
        list of KerasTensors [N, h, w, channels] of strides 4 to 64 (P2 to P6).

    Source: Lin et al. 2017, section 3; P6, every second location of P5, is of footnote 1.
    """

    def convolution(side, name):
        return layers.Conv2D(
            channels, side, padding="same", kernel_initializer="lecun_uniform", name=f"neck_{name}"
        )

    sums = [convolution(1, f"lateral{i}")(x) for i, x in enumerate(maps)]
    for i in reversed(range(len(maps) - 1)):
        above = UpsampleLike(name=f"neck_up{i}")([sums[i + 1], sums[i]])
        sums[i] = layers.Add(name=f"neck_sum{i}")([sums[i], above])
    found = [convolution(3, f"out{i}")(x) for i, x in enumerate(sums)]
    return [*found, layers.MaxPooling2D(1, 2, name="neck_half")(found[-1])]


def faster_rcnn(
    backbone: keras.Model,
    classes: int,
    *,
    neck: str = "top_down",
    head: str = "position",
    pooling: str = "align",
    context: bool = False,
    class_agnostic: bool = True,
    sizes: Sequence | None = None,
    ratios: Sequence[float] = RATIOS,
    rounded_anchors: bool = False,
    channels: int | None = None,
    rpn_channels: int | None = None,
    bin_channels: int = 8,
    units: int = 1024,
    proposals: int = 300,
    before_nms: int = 2000,
    min_file_size: float = 0.0,
    box_means: Sequence = fast_rcnn.BOX_MEANS,
    box_stds: Sequence = fast_rcnn.BOX_STDS,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> keras.Model:
    """One functional inference model: picture in, detections out.

    Args:
        backbone: keras.Model from image to a dict of endpoints (tfcnn.backbones.backbone).
        classes: K.
        neck: "none", the paper's: everything on the deepest map of stride 16; "top_down": maps of strides 8, 16, 32
            summed from the top, proposals on stride 16, regions pooled from strides 8 and 16 side by side; "pyramid":
            proposals on all three maps and each region pooled from the one that fits its size; "fpn": the same with
            Lin et al.'s pyramid, proposals on strides 4 to 64, regions from 4 to 32.
        head: "position" (position-sensitive pooling and one dense layer, after ThunderNet), "light" (two separable
            convolutions and a dense layer), "dense" (VGG's two layers of 4096), "mlp" (Lin et al.'s two layers) or
            "backbone" (the backbone's own layers after stride 16, as ResNet's conv5; with neck="none").
        pooling: "align" or "max" (the paper's); of the heads other than "position".
        context: each region also sees the code of the whole picture.
        class_agnostic: four box deltas a region instead of four a class.
        sizes: anchors' sizes in pixels; for a pyramid a tuple of sizes a map. None: six from 18 to 280, of "fpn" one a
            map from 32 to 512.
        ratios: anchors' height over width.
        rounded_anchors: sides rounded as py-faster-rcnn's generate_anchors does; with sizes 128, 256, 512 the paper's.
        channels: of the neck; None: 128, of "fpn" the paper's 256.
        rpn_channels: of the region proposal network (the paper: 256 for ZF, 512 for VGG-16); None: twice `channels`, of
            "fpn" as many.
        bin_channels: channels a bin of position-sensitive pooling, for each map.
        units: of the dense layers of the position, light and mlp heads.
        proposals: R, after suppression; 0 builds Fast R-CNN: no region proposal network, and the regions [N, R, 4] in
            pixels (rows of zeros are padding) are the second input.
        before_nms: best boxes that enter suppression at test (py-faster-rcnn's 6000).
        min_file_size: least side of a proposal in pixels of the file (py-faster-rcnn's 16).
        box_means, box_stds: of the box targets: 4 numbers, or [K, 4] as `fast_rcnn_training.box_statistics` measures.
        score_threshold, nms_threshold, max_detections: of the detections. py-faster-rcnn suppresses at 0.3; where
            classes share a box, 0.5 does better (VOC 2007 val, 800 pictures: 65.4 instead of 64.1 mAP).

    Returns:
        keras.Model from image [N, H, W, 3], float32 0..255, any H and W, to a dict: boxes [N, D, 4] in pixels of that
        image, scores [N, D], labels int32 [N, D] (-1 is padding), count int32 [N].

    Raises:
        InputError: the backbone has no endpoint of a stride that is needed, or a choice is unknown.
    """
    _check("neck", neck, ("none", "top_down", "pyramid", "fpn"))
    _check("head", head, ("position", "light", "dense", "mlp", "backbone"))
    _check("pooling", pooling, ("align", "max"))
    if head == "backbone" and neck != "none":
        raise InputError(
            "head='backbone' goes with neck='none': it goes on where the backbone's map was cut."
        )
    image, levels = backbone.inputs[0], neck in ("pyramid", "fpn")
    channels = channels or (256 if neck == "fpn" else 128)
    if neck == "none":
        names, map_strides = endpoints_at(backbone, [16]), [16]
        maps = [backbone.output[names[0]]]
        propose_on, pool_from = slice(0, 1), slice(0, 1)
    elif neck == "fpn":
        names, map_strides = endpoints_at(backbone, [4, 8, 16, 32]), [4, 8, 16, 32, 64]
        maps = feature_pyramid([backbone.output[name] for name in names], channels)
        propose_on, pool_from = slice(0, 5), slice(0, 4)
    else:
        names, map_strides = endpoints_at(backbone, [8, 16, 32]), [8, 16, 32]
        maps = top_down([backbone.output[name] for name in names], channels)
        propose_on, pool_from = (
            (slice(0, 3), slice(0, 3)) if neck == "pyramid" else (slice(1, 2), slice(0, 2))
        )
    if proposals:
        sizes = sizes or {"pyramid": PYRAMID_SIZES, "fpn": FPN_SIZES}.get(neck, SIZES)
        sizes = sizes if levels else (sizes,)
        grid = rpn.AnchorGrid(
            tuple(map(tuple, sizes)), tuple(ratios), tuple(map_strides[propose_on]), rounded_anchors
        )
        objectness, deltas = rpn.rpn_head(
            maps[propose_on],
            grid.per_location,
            rpn_channels or (channels if neck == "fpn" else 2 * channels),
            separable=neck in ("top_down", "pyramid"),
        )
        regions = rpn.Proposals(
            grid.sizes,
            grid.ratios,
            grid.strides,
            count=proposals,
            before_nms=before_nms,
            rounded=rounded_anchors,
            min_file_size=min_file_size,
            name="proposals",
        )([objectness, deltas, image, *maps[propose_on]])
    else:
        regions = keras.Input((None, 4), name="regions")

    pool_maps = maps[pool_from]
    if head == "position":
        pool_maps = [
            layers.Conv2D(49 * bin_channels, 1, kernel_initializer="he_normal", name=f"position_map{i}")(x)
            for i, x in enumerate(pool_maps)
        ]
    pooled = fast_rcnn.RegionPool(
        map_strides[pool_from],
        size=14 if head == "backbone" else 7,
        method="position" if head == "position" else pooling,
        context=context,
        levels=levels,
        name="region_pool",
    )([regions, *pool_maps])
    if head == "position":
        code = fast_rcnn.position_head(pooled, units)
    elif head == "light":
        code = fast_rcnn.light_head(pooled, channels, units)
    elif head == "dense":
        code = fast_rcnn.dense_head(pooled)
    elif head == "mlp":
        code = fast_rcnn.dense_head(pooled, units, dropout=0.0)
    else:
        code = later_layers(backbone, names[0], pooled)
    if context:
        code = fast_rcnn.JoinContext(name="context")([code, regions])
    logits, box_deltas = fast_rcnn.predictors(code, classes, class_agnostic)
    outputs = fast_rcnn.DetectionOutput(
        score_threshold, nms_threshold, max_detections, box_means, box_stds, name="detections"
    )([logits, box_deltas, regions, image])
    if proposals:
        model = keras.Model(image, outputs, name="faster_rcnn")
    else:
        model = keras.Model([image, regions], outputs, name="fast_rcnn")
    return endpoints.remember(model, backbone)


def later_layers(backbone: keras.Model, endpoint: str, pooled: keras.KerasTensor) -> keras.KerasTensor:
    """The backbone's own layers after an endpoint, on pooled regions, and their mean over locations: [., C].

    Raises:
        InputError: the endpoint is the backbone's last.
    """
    last = list(backbone.output.values())[-1]
    if backbone.output[endpoint] is last:
        raise InputError(f"The backbone {backbone.name} has no layers after {endpoint}; take another head.")
    later = keras.Model(backbone.output[endpoint], last)
    x = later.call(pooled)  # the same layers, where later(pooled) would be a model in a model
    return layers.GlobalAveragePooling2D(name="region_mean")(x)


def _check(what, value, allowed):
    if value not in allowed:
        raise unknown(what, value, allowed)
