"""One self-contained HTML page that shows what a run made: no network, opens from file://."""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import os
import re
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from tfcnn import images

MOST_PICTURES = 200  # that a page embeds
LONGEST_SIDE = 320  # of an embedded picture, in pixels
SHEET_SIDE = 1600  # of a picture of the whole run
_TINY = 64  # a picture of at most so many pixels is shown larger, each pixel sharp

COLOURS = """
:root { color-scheme: light dark; --page: #f6f5f2; --card: #fff; --ink: #1d1c1a; --soft: #6b6862; --line: #dedbd4;
  --mark: #a3350c; }
@media (prefers-color-scheme: dark) { :root { --page: #161513; --card: #211f1c; --ink: #ece9e3; --soft: #a19c92;
  --line: #37342f; --mark: #ff9f6b; } }
"""  # of every page, by day and by night
_STYLE = """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 90rem; padding: 1.5rem clamp(.8rem, 3vw, 2.5rem) 3rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.25rem; margin: 0 0 .8rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
a { color: var(--mark); } p { margin: .3rem 0; max-width: 46rem; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .4rem .6rem; margin: .8rem 0 1.2rem; }
nav a { padding: .2rem .7rem; border: 1px solid var(--line); border-radius: 99px; background: var(--card);
  text-decoration: none; }
.chapter { padding-top: 1rem; margin-bottom: 1.5rem; } .chapter > p { color: var(--soft); margin: -.6rem 0 .8rem; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.chapter .cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .9rem; min-width: 0; }
.card.wide { grid-column: 1 / -1; }
.pictures { display: grid; gap: .8rem; align-items: end;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
@media (max-width: 40rem) { .wide .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.chapter .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .5rem; align-items: start; }
.chapter .pictures figure:only-child { grid-column: 1 / -1; }
figure { margin: 0; min-width: 0; } figcaption { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
figure img { display: block; width: 100%; max-width: 480px; height: auto; border-radius: 4px; cursor: zoom-in; }
main { margin-top: 1rem; } .sheet figure img { width: auto; max-width: 100%; max-height: 85vh; }
.sheet .pictures { display: block; }
.chapter figure img { height: 6.5rem; max-width: none; object-fit: cover; }
.chapter figure:only-child img { height: 13rem; object-fit: contain; object-position: left; }
.chapter figcaption { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
img.tiny { max-width: 8rem; image-rendering: pixelated; } .chapter img.tiny { object-fit: contain; }
img:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px; }
pre { font: 13px/1.45 ui-monospace, monospace; margin: .5rem 0 0; max-height: 24rem; overflow: auto; }
.chapter pre { max-height: 13rem; } code { font: 13px/1.4 ui-monospace, monospace; color: var(--soft);
  overflow-wrap: anywhere; }
dialog { border: 0; padding: 0; margin: 0; width: 100vw; height: 100vh; max-width: none; max-height: none; color: #eee;
  background: rgb(12 11 10 / .96); overflow: hidden; }
dialog:focus { outline: none; }
dialog[open] { display: grid; grid-template: 1fr auto / auto 1fr auto; align-items: center; }
dialog img { grid-area: 1 / 1 / 2 / 4; justify-self: center; width: 100%; height: calc(100vh - 5rem);
  object-fit: contain; }
dialog p { grid-area: 2 / 2; text-align: center; max-width: none; max-height: 4.5rem; overflow: auto; }
dialog button { grid-row: 2; font-size: 1.6rem; min-width: 3.5rem; min-height: 3.5rem; border: 0; background: none;
  color: inherit; cursor: pointer; } dialog .next { grid-column: 3; }
dialog .close { position: fixed; top: 0; right: 0; }
"""

_SCRIPT = """
const pictures = [...document.querySelectorAll("figure img")], box = document.querySelector("dialog");
const large = box.querySelector("img"), words = box.querySelector("p");
let at = 0;
function show(number) {
  at = (number + pictures.length) % pictures.length;
  const picture = pictures[at], card = picture.closest(".card"), title = card.querySelector("h3");
  large.src = picture.src;
  large.style.imageRendering = picture.className ? "pixelated" : "auto";
  words.textContent = `${at + 1} / ${pictures.length}  ${title ? title.textContent : ""}  ${picture.alt}`;
  if (picture.dataset.file) {
    const whole = new Image();
    whole.onload = () => { if (pictures[at] === picture) large.src = whole.src; };
    whole.src = picture.dataset.file;
  }
}
pictures.forEach((picture, number) => {
  picture.onclick = () => { show(number); box.showModal(); box.focus(); };
  picture.onkeydown = (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); picture.click(); }
  };
});
box.onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) { event.preventDefault(); show(at + step); }
};
box.onclick = (event) => {
  const step = { previous: -1, next: 1 }[event.target.className];
  if (step) show(at + step); else box.close();
};
box.onclose = () => pictures[at].focus();
"""
_BOX = (
    '<dialog tabindex="-1" aria-label="A picture, larger"><img alt="">'
    '<button class="previous" aria-label="previous">&#8249;</button><p></p>'
    '<button class="next" aria-label="next">&#8250;</button>'
    '<button class="close" aria-label="close">&#215;</button></dialog>'
)


class Shown(NamedTuple):
    """A picture on the page.

    Attributes:
        caption: text under it.
        data: the bytes of a picture file; see `reduced`.
        file: the whole picture's path relative to the page, shown instead when it is enlarged and there; or "".
    """

    caption: str
    data: bytes
    file: str = ""


@dataclasses.dataclass
class Entry:
    """A card of the page.

    Attributes:
        title: its heading.
        pictures: what it shows.
        lines: text under the pictures, each on a line.
        link: a page that its heading leads to, relative to this one.
        text: a sentence under the heading.
        command: the command that made it.
        chapter: the chapter that it stands in, with those beside it of the same; "" for none.
        sheet: whether its pictures are as wide as the page.
    """

    title: str
    pictures: Sequence[Shown] = ()
    lines: Sequence[str] = ()
    link: str = ""
    text: str = ""
    command: str = ""
    chapter: str = ""
    sheet: bool = False


def gallery(title: str, entries: Sequence[Entry], lines: Sequence[str] = (), more: int = 0) -> bytes:
    """The page: cards in a grid, in chapters with a table of contents where the entries have chapters.

    A click or a key on a picture enlarges it; arrows step, Escape closes.

    Args:
        title: its heading.
        entries: its cards; of all their pictures the first MOST_PICTURES are embedded.
        lines: text above the cards.
        more: pictures that exist and are not among the entries'.

    Returns:
        HTML in UTF-8.
    """
    body, chapters, room = [], [], MOST_PICTURES
    for chapter, members in itertools.groupby(entries, lambda entry: entry.chapter):
        cards = []
        for entry in members:
            shown, room = entry.pictures[:room], max(0, room - len(entry.pictures))
            more += len(entry.pictures) - len(shown)
            cards.append(_card(entry, shown))
        cards = f'<div class="cards">{"".join(cards)}</div>'
        if chapter:
            place = f"chapter-{len(chapters) + 1}"
            chapters.append(f'<a href="#{place}">{html.escape(chapter)}</a>')
            cards = f'<section class="chapter" id="{place}"><h2>{html.escape(chapter)}</h2>{cards}</section>'
        body.append(cards)
    lines = [*lines, *([f"{more} more pictures are in this folder or were not shown"] if more > 0 else [])]
    text = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    contents = f"<nav>{''.join(chapters)}</nav>" if chapters else ""
    viewer = f"{_BOX}<script>{_SCRIPT}</script>" if room < MOST_PICTURES else ""
    page = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{COLOURS}{_STYLE}</style>'
        f"<h1>{html.escape(title)}</h1>{text}{contents}<main>{''.join(body)}</main>{viewer}</html>\n"
    )
    return page.encode("utf-8", "xmlcharrefreplace")


def _card(entry, shown):
    parts = []
    if entry.title:
        heading = html.escape(entry.title)
        if entry.link:
            heading = f'<a href="{html.escape(entry.link)}">{heading}</a>'
        parts.append(f"<h3>{heading}</h3>")
    parts += [f"<p>{html.escape(entry.text)}</p>"] if entry.text else []
    if shown:
        parts.append(f'<div class="pictures">{"".join(_figure(*picture) for picture in shown)}</div>')
    parts += [f"<pre>{html.escape(chr(10).join(entry.lines))}</pre>"] if entry.lines else []
    parts += [f"<p><code>{html.escape(entry.command)}</code></p>"] if entry.command else []
    kind = " sheet" if entry.sheet else ""
    wide = " wide" if entry.sheet or (len(shown) > 1 and not entry.chapter) else ""
    return f'<article class="card{wide}{kind}">{"".join(parts)}</article>'


def _figure(caption, data, file=""):
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    tiny = ' class="tiny"' if kind == "png" else ""  # `reduced` keeps only tiny ones as PNG
    whole = f' data-file="{html.escape(urllib.parse.quote(os.fsencode(file)))}"' if file else ""
    words = html.escape(caption)
    return (
        f'<figure><img src="data:image/{kind};base64,{base64.b64encode(data).decode()}" alt="{words}"{tiny}{whole} '
        f'tabindex="0" role="button"><figcaption>{words}</figcaption></figure>'
    )


def pictures_of(page: str) -> list[Shown]:
    """The pictures that a page of `gallery` embeds, without their files."""
    found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)" alt="([^"]*)"', page)
    return [Shown(html.unescape(caption), base64.b64decode(data)) for data, caption in found]


def reduced(image: np.ndarray, longest: int = LONGEST_SIDE) -> bytes:
    """A picture's JPEG for the page; tiny ones stay sharp as PNG.

    Args:
        image: [H, W, 3] or [H, W], uint8, or float 0..255, or bool.
        longest: pixels of its longer side, at most.
    """
    image = np.asarray(image)
    if image.dtype == bool:
        image = image * np.uint8(255)
    image = Image.fromarray(np.rint(np.clip(image, 0, 255)).astype(np.uint8))
    if max(image.size) <= _TINY:
        return images.encode(np.asarray(image), ".png")
    image.thumbnail((longest, longest))
    return images.encode(np.asarray(image), ".jpg", quality=85)
