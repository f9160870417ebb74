"""Show the kernels of convolutions as pictures, and how well Gabor functions fit them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw
from tfcnn.cli.flags import refuse
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.visualization.filters import Gabor

GROUP, SUMMARY = "looking inside", "show a layer's kernels as pictures, and how regular they are"

LAYER = flags.DEFINE_list(
    "layer",
    [],
    "Convolutions with kernels above 1 x 1; none takes the first, a middle one and the last, e.g. --layer=stem_conv",
)
CHANNEL = flags.DEFINE_list(
    "channel", [], "Filters of each --layer; none takes all, or the strongest ones, e.g. --channel=0,7"
)
FITS = flags.DEFINE_integer(
    "fits",
    32,
    "Fit a Gabor function to so many filters of a layer, the strongest ones; 0 fits none, e.g. --fits=64",
    lower_bound=0,
)
INPUTS = flags.DEFINE_integer(
    "inputs",
    24,
    "Input channels of a deeper filter that are shown, the strongest ones, e.g. --inputs=64",
    lower_bound=1,
)

SIDE = 56  # pixels at least of a kernel's picture
MOST = 256  # filters of a layer on its sheet; of a deeper layer, whose filters have a row each, an eighth
SHOWN = 6  # best and worst fits on a sheet


def main(run: cli.Run) -> None:
    net = run.load_net("any")
    from tfcnn.visualization import filters

    there = filters.convolutions(net.model)
    if not there:
        raise InputError(f"{net.name} has no convolution with kernels above 1 x 1")
    names = LAYER.value or list(dict.fromkeys([there[0], there[len(there) // 2], there[-1]]))
    layers = {name: filters.kernels(net.model, name) for name in names}
    if all(values.shape[-1] in (1, 3) for values in layers.values()):
        refuse(["inputs"], f"is for filters of many input channels, and {', '.join(names)} has 1 or 3")
    chosen = {name: wanted(name, values) for name, values in layers.items()}

    rows = []
    for name, values in layers.items():
        with run.item(name, name.replace("/", "_")) as item:
            described = {"layer": name, "shape": values.shape[1:], "filters": len(values)}
            item.entry |= described | {"channels": chosen[name]}
            seen = values[chosen[name]]
            words = "x".join(map(str, values.shape[1:]))
            if seen.shape[-1] in (1, 3):
                sheet = in_colours(seen)
                item.save(
                    sheet,
                    "",
                    f"{len(seen)} of {len(values)} filters, {words}, each on its own scale",
                    main=True,
                )
            else:
                shown = seen[: MOST // 8]
                sheet = in_rows(shown)
                caption = f"{len(shown)} of {len(values)} filters, {words}: a row each, its strongest input channels"
                item.save(sheet, "", caption, main=True)
            gabor = regularity(run, seen, chosen[name], item) if FITS.value else {}
            item.entry |= gabor
            row = [gabor.get("explained_median"), gabor.get("explained_of_noise")]
            rows.append([name, words, len(values), *("" if each is None else f"{each:.1%}" for each in row)])
    run.table(["layer", "kernel", "filters", "Gabor explains", "of noise"], rows)


def wanted(name: str, values: np.ndarray) -> list[int]:
    """The filters of a layer that are shown: --channel's, all, or the strongest."""
    for channel in CHANNEL.value:
        if not channel.strip().isdecimal() or int(channel) >= len(values):
            raise InputError(f"--channel={channel}: {name} has filters 0 to {len(values) - 1}")
    if CHANNEL.value:
        return list(dict.fromkeys(int(channel) for channel in CHANNEL.value))
    most = MOST if values.shape[-1] in (1, 3) else MOST // 8
    return sorted(strongest(values)[:most].tolist())


def strongest(values: np.ndarray) -> np.ndarray:
    """Filters in falling order of their norm."""
    return np.argsort(-np.square(values).sum(axis=tuple(range(1, values.ndim))), kind="stable")


def in_colours(values: np.ndarray) -> np.ndarray:
    """A sheet of filters [n, k, k, 3], in colours, or [n, k, k, 1], in grey."""
    from tfcnn.visualization import filters

    shown = filters.pictures(values if values.shape[-1] == 3 else values[..., 0])
    return draw.grid([enlarged(each) for each in shown])


def in_rows(values: np.ndarray) -> np.ndarray:
    """A sheet of filters [n, k, k, C], a row each: their planes over the strongest input channels, on one scale."""
    from tfcnn.visualization import filters

    planes = []
    for kernel in np.moveaxis(values, -1, 1):  # [C, k, k]
        order = np.sort(strongest(kernel)[: INPUTS.value])
        planes += [enlarged(each) for each in filters.pictures(kernel[order], together=True)]
    return draw.grid(planes, min(INPUTS.value, values.shape[-1]))


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A small picture with each of its pixels as a square."""
    times = -(-SIDE // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def regularity(run: cli.Run, values: np.ndarray, channels: list[int], item: cli.Item) -> dict:
    """Fit Gabor functions to filters [n, k, k, C], and show the best and the worst beside their fits.

    Of a deeper layer each filter's strongest input channel is fitted.
    """
    from tfcnn.visualization import filters

    order = strongest(values)[: FITS.value]
    planes, fits = [], []
    with run.progress(len(order), f"Gabor, {item.name}", "fits") as progress:
        for index in order:
            kernel = values[index]
            if kernel.shape[-1] not in (1, 3):
                kernel = kernel[..., strongest(np.moveaxis(kernel, -1, 0))[:1]]
            planes.append(kernel)
            fits.append(filters.fit_gabor(kernel))
            progress.advance()
    known = [place for place, fit in enumerate(fits) if fit.explained is not None]
    if not known:
        return {"explained": [], "explained_median": None, "explained_of_noise": None}
    known.sort(key=lambda place: -fits[place].explained)
    pairs = known[:SHOWN] + known[max(SHOWN, len(known) - SHOWN) :]
    sheet, captions = [], []
    for place in pairs:
        sheet += [colours(planes[place]), colours(fits[place].picture)]
        captions += [f"{channels[order[place]]}", f"{fits[place].explained:.0%}"]
    item.save(
        draw.grid(sheet, 4, captions),
        "gabor",
        "filters, and the Gabor functions fitted: the best, then the worst",
    )
    shares = [fits[place].explained for place in known]
    return {
        "explained": [described(channels[order[place]], fits[place]) for place in known],
        "explained_median": float(np.median(shares)),
        "explained_of_noise": filters.explained_of_noise(planes[0].shape, seed=run.flags.seed),
    }


def colours(kernel: np.ndarray) -> np.ndarray:
    """The picture of a kernel [k, k, 3] or [k, k, 1]."""
    from tfcnn.visualization import filters

    return enlarged(filters.pictures((kernel if kernel.shape[-1] == 3 else kernel[..., 0])[None])[0])


def described(channel: int, fit: Gabor) -> dict:
    """A fit for results.json: pixels, radians, waves a pixel."""
    numbers = {name: getattr(fit, name) for name in ("x", "y", "along", "across", "angle", "frequency")}
    return {"channel": channel, "explained": fit.explained, **numbers}


if __name__ == "__main__":
    cli.start(main, pictures=False, image_size=None)
