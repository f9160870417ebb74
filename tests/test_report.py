"""The page: self-contained, bounded, and safe against names that look like HTML."""

import base64
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tfcnn import images, report


def test_the_page_embeds_at_most_its_number_and_says_how_many_more():
    tiny = report.reduced(np.zeros((4, 4, 3), np.uint8))
    entries = [
        report.Entry(f"picture {i}", [report.Shown("a", tiny), report.Shown("b", tiny)]) for i in range(150)
    ]
    page = report.gallery("all", entries, more=7).decode()
    assert page.count('<img src="data:') == report.MOST_PICTURES == 200
    assert "107 more pictures" in page
    assert page.count("<h3>") == 150
    assert "more pictures" not in report.gallery("few", entries[:100]).decode()


def test_nothing_is_fetched_and_text_is_no_html():
    picture = report.reduced(np.full((500, 1000, 3), 90, np.uint8))
    entry = report.Entry(
        '<script>alert("x")</script>', [report.Shown("a < b & c", picture)], ["line <1>", "2"]
    )
    page = report.gallery("t & <t>", [entry], lines=["\udcff odd name"]).decode()
    assert '<script>alert("x")' not in page and "&lt;script&gt;" in page and "a &lt; b &amp; c" in page
    rest = re.sub(r'src="data:image/jpeg;base64,[^"]+"', "", page)
    assert not re.search(r"(src|href)=|https?:|url\(|@import", rest)
    shown = re.search(r"base64,([^\"]+)", page).group(1)
    assert images.read(base64.b64decode(shown)).shape == (160, 320, 3)


def test_a_file_whose_name_is_no_utf8_is_linked_by_its_bytes():
    tiny = report.reduced(np.zeros((4, 4, 3), np.uint8))
    page = report.gallery("t", [report.Entry("odd", [report.Shown("odd", tiny, "bild_\udcff_\u00fc.png")])])
    assert 'data-file="bild_%FF_%C3%BC.png"' in page.decode()


def test_small_pictures_stay_sharp():
    random = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert (images.read(report.reduced(random)) == random).all()
    assert images.read(report.reduced(np.full((100, 400), 300.0))).tolist()[0][0] == [255, 255, 255]


def test_chapters_have_a_table_of_contents():
    cards = [
        report.Entry(name, chapter=chapter) for name, chapter in [("a", "art"), ("b", "art"), ("c", "x & y")]
    ]
    page = report.gallery("all", cards).decode()
    assert re.findall(r"<nav>(.*)</nav>", page) == [
        '<a href="#chapter-1">art</a><a href="#chapter-2">x &amp; y</a>'
    ]
    chapters = re.findall(r'<section class="chapter" id="([^"]+)"><h2>([^<]+)</h2>(.*?)</section>', page)
    assert [(place, name, cards.count("<article")) for place, name, cards in chapters] == [
        ("chapter-1", "art", 2),
        ("chapter-2", "x &amp; y", 1),
    ]


def test_pictures_are_found_again_on_a_page():
    shown = [report.Shown("a < b", report.reduced(np.zeros((4, 4, 3), np.uint8)), "a b.png")]
    page = report.gallery("all", [report.Entry("a", shown)]).decode()
    assert 'data-file="a%20b.png"' in page
    assert report.pictures_of(page) == [report.Shown("a < b", shown[0].data)]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def in_browser(page, folder, script, *flags):
    """What a script leaves in document.title, as JSON, when headless Chromium shows a page from a file."""
    (folder / "index.html").write_text(page.replace("</html>", f"<script>{script}</script></html>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", *flags]
    command += ["--dump-dom", f"--user-data-dir={folder / 'profile'}", (folder / "index.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return json.loads(html.unescape(re.search(r"<title>(.*)</title>", done.stdout).group(1)))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize(
    "width, columns, dark", [(390, 1, False), (390, 1, True), (1440, 4, False), (1440, 4, True)]
)
def test_cards_fill_a_phones_and_a_desks_width_in_light_and_dark(tmp_path, width, columns, dark):
    wide = report.Shown("wide", report.reduced(np.zeros((40, 3000, 3), np.uint8)))
    entries = [report.Entry(f"card {i} {'x' * 200}", [wide], ["a line of words " * 30]) for i in range(6)]
    page = report.gallery("all", entries, lines=["one", "y" * 300]).decode()
    script = """
      const cards = [...document.querySelectorAll("article")].map(card => card.getBoundingClientRect());
      const light = colour => Math.max(...colour.match(/[\\d.]+/g).slice(0, 3).map(Number)) > 127;
      const body = getComputedStyle(document.body);
      document.title = JSON.stringify({
        columns: new Set(cards.map(card => card.left)).size,
        light: light(body.backgroundColor),
        words: light(body.color),
        fits: document.documentElement.scrollWidth <= innerWidth && cards.every(card => card.right <= innerWidth),
      });"""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    seen = in_browser(page, tmp_path, script, f"--window-size={width},900", scheme)
    assert seen == {"columns": columns, "light": not dark, "words": dark, "fits": True}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_picture_is_enlarged_by_click_or_key_and_stepped_by_arrows(tmp_path):
    random = np.random.default_rng(0)
    pictures = [
        report.Shown(name, report.reduced(random.integers(0, 256, (99, 99, 3), np.uint8)), f"{name}.png")
        for name in ("one", "two", "three")
    ]
    images.write(tmp_path / "three.png", random.integers(0, 256, (999, 50, 3), np.uint8))
    script = """
      const heard = [], key = (where, name) => where.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
      const note = () => heard.push(box.open ? words.textContent.trim() : "closed");
      key(pictures[0], "Enter"); note(); key(box, "ArrowLeft"); note();
      setTimeout(() => {
        heard.push(large.naturalHeight); key(box, "ArrowRight"); note(); large.click(); note(); pictures[1].click();
        note(); box.querySelector(".next").click(); note(); heard.push(document.body.scrollWidth <= innerWidth);
        document.title = JSON.stringify(heard);
      }, 1000);"""
    page = report.gallery("all", [report.Entry("card", pictures)]).decode()
    heard = in_browser(page, tmp_path, script, "--window-size=390,844")
    steps = ["1 / 3  card  one", "3 / 3  card  three", 999, "1 / 3  card  one", "closed", "2 / 3  card  two"]
    assert heard == [*steps, "3 / 3  card  three", True]
