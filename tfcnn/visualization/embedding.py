"""Pictures as points in the plane: codes of a layer, PCA and t-SNE, and what shows them.

N pictures, D numbers of a code, K classes, S side of a thumbnail in pixels.
"""

import io
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from tfcnn import draw, images
from tfcnn.backbones import tap
from tfcnn.backbones.graph import INPUT, made_by
from tfcnn.errors import InputError
from tfcnn.visualization import code_file

COMPONENTS = 50  # of PCA before t-SNE
_SPRITE = 8192  # pixels that the projector's sprite may have on a side
_WHOLE = 2**24  # numbers of all codes up to which they are read at once
_FEW = 3000  # points that one thread is enough for
_MARGIN = 0.03  # of a sheet's side round the points


def last_code(model: keras.Model) -> str:
    """Names what a classifier's last layer with weights reads, for `tap`: the code that its classes are linear in.

    Args:
        model: a classifier with the output `logits`, or `scores` alone.
    """
    outputs = model.output
    call = made_by(outputs.get("logits", outputs.get("scores")))
    while not getattr(call.operation, "weights", None):
        if not call.inputs:
            raise InputError(f"{model.name} has no layer with weights")
        call = made_by(call.inputs[0])
    return call.operation.name + INPUT


def codes(model: keras.Model, layer: str, channels: Sequence[int] | None = None) -> Callable:
    """Gives a compiled function from pictures to codes.

    Args:
        model: a flat functional model.
        layer: one of its layers or endpoints; of a map the mean over locations is the code.
        channels: of the layer; None takes all.

    Returns:
        f(images [N, H, W, 3] float32 0..255) -> float32 [N, D].

    Raises:
        InputError: there is no such layer.
    """
    model = tap(model, [layer])

    @tf.function(reduce_retracing=True)
    def code(pictures):
        answer = tf.cast(model(pictures, training=False)[layer], tf.float32)
        if len(answer.shape) > 2:
            answer = tf.reduce_mean(answer, axis=list(range(1, len(answer.shape) - 1)))
        return answer if channels is None else tf.gather(answer, list(channels), axis=-1)

    return code


def reduced(codes: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """Gives codes by their first principal components.

    Args:
        codes: float32 [N, D]; where they are more than 2^24 numbers (64 MiB) they are read in parts, and the
            components are the incremental ones, which differ little.
        components: at most.

    Returns:
        float32 [N, at most components].

    Source: Ross et al., "Incremental learning for robust visual tracking", 2008, for the incremental components.
    """
    from sklearn.decomposition import PCA, IncrementalPCA

    components = min(components, *codes.shape)
    if codes.size <= _WHOLE:
        return PCA(components, svd_solver="full").fit_transform(codes).astype(np.float32)
    growing = IncrementalPCA(components)
    for part in code_file.chunks(codes, least=components):
        growing.partial_fit(part)
    found = np.empty((len(codes), components), np.float32)
    first = 0
    for part in code_file.chunks(codes):
        found[first : first + len(part)] = growing.transform(part)
        first += len(part)
    return found


def positions(
    codes: np.ndarray, method: str = "tsne", *, perplexity: float = 30.0, seed: int = 0
) -> np.ndarray:
    """Puts codes into the plane.

    Args:
        codes: float32 [N, D].
        method: "pca", the first two principal components; or "tsne", of the first 50, by openTSNE where it is
            installed, else by scikit-learn.
        perplexity: of t-SNE, about the number of neighbours that each keeps; at most (N - 1) / 3.
        seed: of t-SNE.

    Returns:
        float32 [N, 2].

    Raises:
        InputError: too few pictures: t-SNE needs 5, PCA 2.

    Source: van der Maaten and Hinton, Visualizing Data using t-SNE, 2008; van der Maaten 2014 (Barnes-Hut, after PCA
        to 50).
    """
    least = 5 if method == "tsne" else 2
    if len(codes) < least:
        fewer = "; method=pca needs 2" if 2 <= len(codes) < least else ""
        raise InputError(
            f"method={method} needs {least} pictures at least, and there are {len(codes)}{fewer}"
        )
    small = reduced(codes, COMPONENTS if method == "tsne" else 2)
    if method == "tsne":
        small = _tsne(small, min(perplexity, (len(codes) - 1) / 3), seed)
    flat = np.zeros([len(codes), 2], np.float32)
    flat[:, : small.shape[1]] = small
    return flat


def _tsne(codes, perplexity, seed):
    try:
        from openTSNE import TSNE
    except ImportError:
        from sklearn.manifold import TSNE

        start = "pca" if codes.shape[1] > 1 else "random"
        return TSNE(
            2, perplexity=perplexity, init=start, learning_rate="auto", random_state=seed
        ).fit_transform(codes)
    return np.asarray(TSNE(2, perplexity=perplexity, random_state=seed).fit(codes))


def _few_threads(points):
    """One thread for few points: where cores are busy, threads that wait for each other took 40 times as long."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if points <= _FEW else None)


def agreement(points: np.ndarray, labels: np.ndarray, neighbours: int = 10) -> float:
    """Gives the mean share of a point's nearest neighbours that have its label.

    Args:
        points: [N, D], codes or positions; neighbours by Euclidean distance.
        labels: [N].
        neighbours: how many, at most N - 1; the point itself is none.

    Returns:
        0..1.
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(neighbours, len(points) - 1)
    with _few_threads(len(points)):
        found = NearestNeighbors(n_neighbors=count).fit(points).kneighbors(return_distance=False)
    return float((labels[found] == labels[:, None]).mean())


def cells(points: np.ndarray, side: int) -> np.ndarray:
    """Gives each cell of a square grid a picture near it, no picture twice, the squared distances least in all.

    Args:
        points: [N, 2], N at least side * side; the grid is stretched over them.
        side: cells a row.

    Returns:
        int [side, side], indices of pictures; the first row has the least y.

    Source: Karpathy's cnnembed, whose cells take their nearest in turn; here by linear assignment.
    """
    from scipy import optimize
    from scipy.spatial import distance

    line = np.linspace(0, 1, side) if side > 1 else np.array([0.5])
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    cost = distance.cdist(grid, in_unit_square(points), "sqeuclidean")
    return optimize.linear_sum_assignment(cost)[1].reshape(side, side)


def in_unit_square(points: np.ndarray) -> np.ndarray:
    """Gives points shifted and scaled, each axis for itself, to 0..1; an axis without extent to 0.5."""
    low, high = points.min(0), points.max(0)
    extent = np.where(high > low, high - low, 1)
    return np.where(high > low, (points - low) / extent, 0.5)


# ------------------------------------------------------------------------------------------ pictures


def scatter(
    points: np.ndarray, labels: np.ndarray | None = None, names: Sequence[str] = (), side: int = 1000
) -> np.ndarray:
    """Draws points as dots, a colour a class, with the classes' names at the right.

    Args:
        points: [N, 2].
        labels: [N], 0..K-1; None draws all alike.
        names: [K]; those that occur are written, at most 40.
        side: of the square of dots, pixels.

    Returns:
        uint8 [side, side or more, 3].
    """
    twice = 2 * side
    sheet = Image.new("RGB", (twice, twice), "white")
    canvas = ImageDraw.Draw(sheet)
    radius = max(5, round(twice / 150 * min(1, 40 / math.sqrt(len(points)))))
    colours = [draw.colour(int(label)) for label in (np.zeros(len(points)) if labels is None else labels)]
    for (x, y), colour in zip(_spread(points, twice, radius), colours, strict=True):
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    dots = np.array(sheet.resize((side, side), Image.Resampling.LANCZOS))
    if labels is None or not len(names):
        return dots
    shown = sorted(set(labels.tolist()))[:40]
    squares = [np.full((12, 200, 3), draw.colour(label), np.uint8) for label in shown]
    legend = draw.grid(squares, 1, [names[label] for label in shown])[:side]
    sheet = np.full((side, side + legend.shape[1], 3), 255, np.uint8)
    sheet[:, :side], sheet[: len(legend), side:] = dots, legend
    return sheet


def pictures_at(points: np.ndarray, thumbnails: np.ndarray, side: int = 1600) -> np.ndarray:
    """Lays pictures at their places, the later on top.

    Args:
        points: [N, 2].
        thumbnails: uint8 [N, S, S, 3].
        side: of the sheet, pixels.

    Returns:
        uint8 [side, side, 3].
    """
    sheet = np.full((side, side, 3), 255, np.uint8)
    half = thumbnails.shape[1] // 2
    for (x, y), picture in zip(_spread(points, side, half).round().astype(int), thumbnails, strict=True):
        sheet[y - half : y - half + picture.shape[0], x - half : x - half + picture.shape[1]] = picture
    return sheet


def _spread(points, side, inset):
    """Points in pixels of a square sheet, `inset` and a margin away from its edge."""
    edge = inset + 1 + _MARGIN * side
    return edge + in_unit_square(points) * (side - 2 * edge)


def in_cells(indices: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Lays pictures out in a grid without gaps.

    Args:
        indices: int [rows, columns], of pictures, as `cells` gives them.
        thumbnails: uint8 [N, S, S, 3].

    Returns:
        uint8 [rows * S, columns * S, 3].
    """
    side = thumbnails.shape[1]
    laid = thumbnails[indices].swapaxes(1, 2)  # [rows, S, columns, S, 3]
    return laid.reshape(indices.shape[0] * side, indices.shape[1] * side, 3)


def projector(
    codes: np.ndarray, points: np.ndarray, files: Sequence[str], labels: Sequence[str], thumbnails: np.ndarray
) -> dict[str, bytes]:
    """Gives the files of a folder that TensorBoard's projector shows (tensorboard --logdir FOLDER).

    Args:
        codes: [N, D]; of more than 50 numbers the first 50 principal components are written.
        points: [N, 2].
        files: [N], names of the pictures.
        labels: [N], names of their classes.
        thumbnails: uint8 [N, S, S, 3].

    Returns:
        {file: its bytes}: the vectors codes.tsv and positions.tsv, metadata.tsv, sprite.png, projector_config.pbtxt.
    """
    columns = math.ceil(math.sqrt(len(codes)))
    side = min(thumbnails.shape[1], _SPRITE // columns)
    small = np.stack([images.resize(each, side)[0] for each in thumbnails])
    places = np.minimum(np.arange(columns * columns), len(codes) - 1).reshape(columns, columns)
    rows = ["file\tlabel", *("\t".join(map(_field, pair)) for pair in zip(files, labels, strict=True))]
    dimension = f"single_image_dim: {side}"
    parts = [
        f'embeddings {{\n  tensor_name: "{name}"\n  tensor_path: "{name}.tsv"\n  metadata_path: "metadata.tsv"\n'
        f'  sprite {{ image_path: "sprite.png" {dimension} {dimension} }}\n}}\n'
        for name in ("codes", "positions")
    ]
    return {
        "codes.tsv": _table(reduced(codes) if codes.shape[1] > COMPONENTS else codes),
        "positions.tsv": _table(points),
        "metadata.tsv": ("\n".join(rows) + "\n").encode(errors="backslashreplace"),
        "sprite.png": images.encode(in_cells(places, small)),
        "projector_config.pbtxt": "".join(parts).encode(),
    }


def _field(text):
    return " ".join(str(text).split()) or "-"


def _table(values):
    text = io.StringIO()
    np.savetxt(text, values, fmt="%.6g", delimiter="\t")
    return text.getvalue().encode()
