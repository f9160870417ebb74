"""One self-contained HTML page that shows what a run made: no network, opens from file://."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tfcnn import images

MOST_PICTURES = 200  # that a page embeds
LONGEST_SIDE = 320  # of an embedded picture, in pixels
SHEET_SIDE = 1600  # of a picture of the whole run

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h2 { font-size: 1rem; overflow-wrap: anywhere; margin: 2rem 0 .4rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: end; }
figure { margin: 0; } figcaption { font-size: .85rem; opacity: .75; max-width: 20rem; }
img { max-width: 100%; border-radius: 3px; display: block; }
pre { font: 13px/1.4 ui-monospace, monospace; margin: .4rem 0; white-space: pre-wrap; }
"""


@dataclasses.dataclass
class Entry:
    """A part of the page.

    Attributes:
        title: its heading.
        pictures: (caption, bytes of a picture file) pairs.
        lines: text under them, each on a line.
        link: a page that its heading leads to, relative to this one.
    """

    title: str
    pictures: Sequence[tuple[str, bytes]] = ()
    lines: Sequence[str] = ()
    link: str = ""


def gallery(title: str, entries: Sequence[Entry], lines: Sequence[str] = (), more: int = 0) -> bytes:
    """The page.

    Args:
        title: its heading.
        entries: its parts; of all their pictures the first MOST_PICTURES are embedded.
        lines: text above the parts.
        more: pictures that exist and are not among the entries'.

    Returns:
        HTML in UTF-8.
    """
    body, room = [], MOST_PICTURES
    for entry in entries:
        shown = list(entry.pictures[:room])
        room -= len(shown)
        more += len(entry.pictures) - len(shown)
        figures = "".join(
            f'<figure><img src="{_embedded(data)}" alt="{html.escape(caption)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for caption, data in shown
        )
        text = f"<pre>{html.escape(chr(10).join(entry.lines))}</pre>" if entry.lines else ""
        row = f'<div class="row">{figures}</div>' if figures else ""
        heading = html.escape(entry.title)
        if entry.link:
            heading = f'<a href="{html.escape(entry.link)}">{heading}</a>'
        body.append(f"<section><h2>{heading}</h2>{row}{text}</section>")
    lines = [*lines, *([f"{more} more pictures are in this folder or were not shown"] if more > 0 else [])]
    text = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    page = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{html.escape(title)}</h1>{text}{''.join(body)}</html>\n"
    )
    return page.encode("utf-8", "xmlcharrefreplace")


def pictures_of(page: str) -> list[tuple[str, bytes]]:
    """The (caption, bytes of a picture file) pairs that a page of `gallery` embeds."""
    found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)" alt="([^"]*)">', page)
    return [(html.unescape(caption), base64.b64decode(data)) for data, caption in found]


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
    if max(image.size) <= 64:
        return images.encode(np.asarray(image), ".png")
    image.thumbnail((longest, longest))
    return images.encode(np.asarray(image), ".jpg", quality=85)


def _embedded(data):
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
