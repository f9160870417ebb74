"""One self-contained HTML page to browse layers, channels and pictures, as the Deep Visualization Toolbox does.

It works from file://, with a mouse, a finger or the keyboard; served by `live`, it shows a camera's frames.

Source: Yosinski et al., Understanding Neural Networks Through Deep Visualization, 2015 (the panes).
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfcnn import files, images, report

if TYPE_CHECKING:
    from tfcnn.visualization.activations import Sheet

_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: .8rem clamp(.6rem, 2vw, 2rem) 2rem; color: var(--ink);
  background: var(--page); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.2rem; margin: 0 0 .3rem; } h2 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
p { margin: .2rem 0 .5rem; color: var(--soft); overflow-wrap: anywhere; }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .25rem .6rem; min-height: 2.2rem; cursor: pointer; }
button[aria-pressed=true] { border-color: var(--mark); box-shadow: inset 0 0 0 1px var(--mark); }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 1px; }
.strip { display: flex; gap: .4rem; overflow-x: auto; padding: .2rem 0 .5rem; }
.strip button { flex: none; } .strip img { display: block; height: 3.4rem; border-radius: 3px; }
.strip.pictures button { padding: .15rem; }
main { display: grid; gap: 1rem; grid-template-columns: minmax(11rem, 15rem) minmax(0, 1fr) minmax(16rem, 22rem);
  align-items: start; }
section, aside { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem;
  min-width: 0; }
section img, aside img { display: block; width: 100%; border-radius: 4px; }
#detail { position: sticky; top: .5rem; max-height: calc(100vh - 1rem); overflow-y: auto; }
#detail figure { margin: 0 0 .7rem; } figcaption { color: var(--soft); font-size: .85rem; }
canvas { display: block; max-width: 100%; border-radius: 4px; touch-action: manipulation; }
#large { width: 100%; aspect-ratio: 1; }
#grid { cursor: pointer; }
ol { margin: .5rem 0 0; padding: 0; list-style: none; } li { position: relative; padding: .1rem .3rem; margin: .15rem 0;
  display: flex; justify-content: space-between; gap: .5rem; overflow-wrap: anywhere; }
li i { position: absolute; inset: 0 auto 0 0; background: var(--mark); opacity: .18; border-radius: 3px; }
li span:last-child { flex: none; }
.tools { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 .5rem; }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 .3rem; font-size: .85em; }
#beside { display: grid; gap: .6rem; }
@media (max-width: 62rem) { main { grid-template-columns: minmax(0, 1fr) minmax(15rem, 20rem); }
  #seen { grid-column: 1 / -1; display: grid; grid-template-columns: 9rem 1fr; gap: .8rem; } }
@media (max-width: 42rem) { main { grid-template-columns: minmax(0, 1fr); }
  #detail { position: static; max-height: none; } }
"""

_BODY = """
<h1></h1>
<p><kbd>&#8592;</kbd><kbd>&#8593;</kbd><kbd>&#8594;</kbd><kbd>&#8595;</kbd> channel, <kbd>u</kbd> <kbd>o</kbd> layer,
<kbd>w</kbd> <kbd>e</kbd> picture, <kbd>b</kbd> scale, <kbd>z</kbd> map or over the picture<span id="freezing" hidden>,
<kbd>f</kbd> freeze</span></p>
<nav class="strip pictures" aria-label="pictures"></nav>
<nav class="strip layers" aria-label="layers"></nav>
<main>
<section id="seen"><div><h2 id="name"></h2><img id="picture" alt=""></div>
<ol id="top" aria-label="top classes"></ol></section>
<section id="maps"><h2 id="layer"></h2><div class="tools"><button id="scale"></button></div>
<canvas id="grid" tabindex="0" role="application" aria-label="all channels; arrows move"></canvas></section>
<aside id="detail" aria-live="polite"><h2 id="channel"></h2><div class="tools"><button id="over"></button></div>
<figure><canvas id="large" width="336" height="336"></canvas><figcaption id="values"></figcaption></figure>
<div id="beside"></div></aside>
</main>
"""

_SCRIPT = """
const $ = (id) => document.getElementById(id), data = JSON.parse($("data").textContent);
const at = { picture: 0, layer: 0, channel: 0, own: true, over: false, frozen: false };
const loaded = new Map();
let tile = 40, columns = 1;
const picture = () => data.pictures[at.picture], layer = () => data.layers[at.layer];
const answer = () => picture().layers[at.layer];

function image(source) {
  if (!loaded.has(source)) {
    if (loaded.size > 400) loaded.clear();
    loaded.set(source, new Promise((done) => {
      const made = new Image();
      made.onload = () => done(made);
      made.src = source;
    }));
  }
  return loaded.get(source);
}

// The sheet with each channel on its own scale, or all on the layer's.
function scaled(sheet, found) {
  const canvas = document.createElement("canvas"), { columns, height, width } = layer();
  canvas.width = sheet.width; canvas.height = sheet.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(sheet, 0, 0);
  if (at.own) return canvas;
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height), values = pixels.data;
  const low = Math.min(...found.low), size = Math.max(...found.high) - low || 1;
  for (let y = 0, i = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++, i += 4) {
      const c = Math.floor(y / height) * columns + Math.floor(x / width);
      if (c >= found.low.length) continue;
      const value = found.low[c] + values[i] / 255 * (found.high[c] - found.low[c]);
      values[i] = values[i + 1] = values[i + 2] = 255 * (value - low) / size;
    }
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function place(c) {
  const { columns, height, width } = layer();
  return [c % columns * width, Math.floor(c / columns) * height, width, height];
}

async function draw() {
  const found = answer(), count = layer().channels;
  const room = $("maps").clientWidth - 24, ratio = window.devicePixelRatio || 1;
  tile = Math.max(26, Math.min(72, Math.floor(Math.sqrt(room * 640 / count))));
  columns = Math.max(1, Math.min(count, Math.floor(room / (tile + 2))));
  tile = Math.max(tile, Math.min(120, Math.floor(room / columns) - 2));
  const high = Math.round(tile * layer().height / layer().width), rows = Math.ceil(count / columns);
  at.channel = Math.min(at.channel, count - 1);
  $("layer").textContent = `${layer().name}: ${count} channels of ${layer().map}`;
  $("scale").textContent = at.own ? "each channel on its own scale" : "all channels on one scale";
  $("over").textContent = at.over ? "over the picture" : "the map alone";
  $("name").textContent = picture().name;
  $("picture").src = picture().image; $("picture").alt = picture().name;
  $("top").replaceChildren(...picture().top.map(([label, score]) => {
    const item = document.createElement("li"), bar = document.createElement("i");
    bar.style.width = `${100 * score}%`;
    item.append(bar, Object.assign(document.createElement("span"), { textContent: label }),
      Object.assign(document.createElement("span"), { textContent: `${(100 * score).toFixed(1)} %` }));
    return item;
  }));
  press(".pictures", at.picture); press(".layers", at.layer);
  detail(found);
  if (!found) return;
  const sheet = await image(found.sheet);
  if (answer() !== found) return;
  const source = scaled(sheet, found), canvas = $("grid"), context = canvas.getContext("2d");
  canvas.width = columns * (tile + 2) * ratio; canvas.height = rows * (high + 2) * ratio;
  canvas.style.width = `${columns * (tile + 2)}px`;
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = false;
  for (let c = 0; c < count; c++) {
    const x = c % columns * (tile + 2) + 1, y = Math.floor(c / columns) * (high + 2) + 1;
    context.drawImage(source, ...place(c), x, y, tile, high);
    if (c === at.channel) {
      context.lineWidth = 2; context.strokeStyle = "#ff7a33"; context.strokeRect(x, y, tile, high);
    }
  }
  const large = $("large").getContext("2d"), side = $("large").width;
  large.imageSmoothingEnabled = true;
  large.globalCompositeOperation = "source-over"; large.globalAlpha = 1;
  large.clearRect(0, 0, side, side);
  if (at.over) {
    large.drawImage(await image(picture().image), 0, 0, side, side);
    large.globalCompositeOperation = "multiply";
  }
  const alone = document.createElement("canvas"), { width, height } = layer();  // else neighbours show at its edges
  alone.width = width; alone.height = height;
  alone.getContext("2d").drawImage(source, ...place(at.channel), 0, 0, width, height);
  large.drawImage(alone, 0, 0, side, side);
}

function detail(found) {
  $("channel").textContent = `${layer().name}, channel ${at.channel}`;
  const number = (value) => Number(value).toPrecision(4);
  $("values").textContent = found
    ? `from ${number(found.low[at.channel])} (black) to ${number(found.high[at.channel])} (white)` : "";
  const shown = [];
  const gradient = found && found.gradients && found.gradients[at.channel];
  if (gradient) shown.push({ caption: "gradient of the channel's mean to the picture", image: gradient });
  shown.push(...((data.units[layer().name] || {})[at.channel] || []));
  const beside = $("beside");
  beside.replaceChildren(...shown.map(({ caption, image }) => {
    const figure = document.createElement("figure"), made = new Image();
    made.src = image; made.alt = caption;
    figure.append(made, Object.assign(document.createElement("figcaption"), { textContent: caption }));
    return figure;
  }));
  if (!gradient && found && found.computed && found.computed.length)
    beside.append(Object.assign(document.createElement("p"),
      { textContent: `gradients were computed for channels ${found.computed.join(", ")}` }));
}

function press(strip, number) {
  document.querySelectorAll(`${strip} button`).forEach((button, i) => {
    button.setAttribute("aria-pressed", i === number);
    if (i === number && button.offsetParent)
      button.parentNode.scrollLeft = button.offsetLeft - button.parentNode.clientWidth / 2;
  });
}

function go(changes) {
  const wrap = (value, count) => (value + count) % count;
  Object.assign(at, changes);
  at.picture = wrap(at.picture, data.pictures.length);
  at.layer = wrap(at.layer, data.layers.length);
  at.channel = Math.max(0, Math.min(layer().channels - 1, at.channel));
  if (!data.live) history.replaceState(null, "", `#${at.picture},${at.layer},${at.channel}`);
  return draw();
}

const steps = {
  ArrowLeft: () => ({ channel: at.channel - 1 }), ArrowRight: () => ({ channel: at.channel + 1 }),
  ArrowUp: () => ({ channel: at.channel - columns >= 0 ? at.channel - columns : at.channel }),
  ArrowDown: () => ({ channel: at.channel + columns < layer().channels ? at.channel + columns : at.channel }),
  u: () => ({ layer: at.layer - 1 }), o: () => ({ layer: at.layer + 1 }),
  w: () => ({ picture: at.picture - 1 }), e: () => ({ picture: at.picture + 1 }),
  b: () => ({ own: !at.own }), z: () => ({ over: !at.over }), f: () => ({ frozen: !at.frozen }),
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in steps)) return;
  event.preventDefault();
  go(steps[event.key]());
};
$("grid").onclick = (event) => {
  const box = $("grid").getBoundingClientRect(), high = $("grid").clientHeight / Math.ceil(layer().channels / columns);
  const x = Math.floor((event.clientX - box.left) / (tile + 2)), y = Math.floor((event.clientY - box.top) / high);
  const channel = y * columns + Math.min(x, columns - 1);
  if (channel < layer().channels) go({ channel });
  if (window.innerWidth < 672) $("detail").scrollIntoView({ block: "start" });
};
$("scale").onclick = () => go({ own: !at.own });
$("over").onclick = () => go({ over: !at.over });
document.querySelector("h1").textContent = document.title;
function strip(where, items, label, change) {
  document.querySelector(where).replaceChildren(...items.map((item, number) => {
    const button = document.createElement("button");
    button.append(...label(item));
    button.onclick = () => go(change(number));
    return button;
  }));
}
strip(".layers", data.layers, (item) => [item.name], (layer) => ({ layer }));
strip(".pictures", data.live ? [] : data.pictures, (item) => {
  const made = new Image();
  made.src = item.image; made.alt = item.name;
  return [made];
}, (picture) => ({ picture }));
const [first, second, third] = location.hash.slice(1).split(",").map((part) => parseInt(part) || 0);
let waiting;
window.onresize = () => { clearTimeout(waiting); waiting = setTimeout(draw, 150); };

async function follow() {
  for (let after = -1; ;) {
    try {
      const asked = `frame?layer=${at.layer}&channel=${at.channel}&after=${after}`;
      const frame = await (await fetch(asked, { cache: "no-store" })).json();
      if (frame.ended) { document.querySelector("h1").textContent = `${document.title} has ended`; return; }
      if (frame.number === undefined) continue;
      after = frame.number;
      if (at.frozen) continue;
      loaded.clear();
      const layers = [];
      layers[frame.layer] = frame.answer;
      data.pictures[0] = { name: frame.name, image: frame.image, top: frame.top, layers };
      if (frame.layer === at.layer) await draw();
    } catch (error) { document.querySelector("h1").textContent = `${document.title} has ended`; return; }
  }
}
$("freezing").hidden = !data.live;
go({ picture: data.live ? 0 : first, layer: second || 0, channel: third || 0 });
if (data.live) follow();
"""


def layer_entry(name: str, maps: np.ndarray, sheet: Sheet) -> dict:
    """What the page wants to know of a layer, from its maps [h, w, C] and sheet for any picture."""
    height, width, channels = maps.shape
    size = {"columns": sheet.columns, "height": sheet.height, "width": sheet.width}
    return {"name": name, "channels": channels, "map": f"{height} x {width}", **size}


def answer_entry(sheet: Sheet, gradients: Mapping[int, np.ndarray] | None = None) -> dict:
    """A layer's answer to a picture for the page.

    Args:
        sheet: of the layer.
        gradients: uint8 [H, W, 3] pictures of channels' gradients, of those channels that have one.
    """
    found = {
        channel: embedded(report.reduced(picture, 224)) for channel, picture in (gradients or {}).items()
    }
    short = [[float(f"{value:.4g}") for value in values.tolist()] for values in (sheet.low, sheet.high)]
    return {
        "sheet": embedded(images.encode(sheet.tiles)),
        "low": short[0],
        "high": short[1],
        "gradients": found,
        "computed": sorted(found),
    }


def picture_entry(
    name: str, image: np.ndarray, top: Sequence[tuple[str, float]], answers: Sequence[dict]
) -> dict:
    """A picture for the page.

    Args:
        name: of its file.
        image: uint8 [H, W, 3], as the net saw it.
        top: labels and scores, 0..1, the best first.
        answers: of each layer, as `answer_entry` gives them.
    """
    top = [[label, round(float(score), 6)] for label, score in top]
    return {"name": name, "image": embedded(report.reduced(image)), "top": top, "layers": list(answers)}


def embedded(data: bytes) -> str:
    """A PNG or JPEG as a data: address."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def page(
    title: str,
    layers: Sequence[dict],
    pictures: Sequence[dict],
    units: Mapping[str, Mapping[int, Sequence[dict]]] | None = None,
    live: bool = False,
) -> bytes:
    """The page.

    Args:
        title: its heading.
        layers: as `layer_entry` gives them, from the picture on.
        pictures: as `picture_entry` gives them, each with an answer a layer.
        units: {layer: {channel: [{"caption", "image"}]}}, pictures of channels that other methods made, as data:
            addresses.
        live: it asks its server for the frames, see `live.Server`; `pictures` has one, the first to be seen.

    Returns:
        HTML in UTF-8.
    """
    data = {"layers": list(layers), "pictures": list(pictures), "units": units or {}, "live": live}
    text = files.to_json(data, indent=None).replace("<", "\\u003c")  # no name can end the script
    document = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{report.COLOURS}{_STYLE}</style>{_BODY}"
        f'<script type="application/json" id="data">{text}</script><script>{_SCRIPT}</script></html>\n'
    )
    return document.encode("utf-8", "xmlcharrefreplace")
