"""The page: self-contained, bounded, and safe against names that look like HTML."""

import base64
import re

import numpy as np

from tfcnn import images, report


def test_the_page_embeds_at_most_its_number_and_says_how_many_more():
    tiny = report.reduced(np.zeros((4, 4, 3), np.uint8))
    entries = [report.Entry(f"picture {i}", [("a", tiny), ("b", tiny)]) for i in range(150)]
    page = report.gallery("all", entries, more=7).decode()
    assert page.count("<img") == report.MOST_PICTURES == 200
    assert "107 more pictures" in page
    assert page.count("<h2>") == 150
    assert "more pictures" not in report.gallery("few", entries[:100]).decode()


def test_nothing_is_fetched_and_text_is_no_html():
    picture = report.reduced(np.full((500, 1000, 3), 90, np.uint8))
    entry = report.Entry('<script>alert("x")</script>', [("a < b & c", picture)], ["line <1>", "2"])
    page = report.gallery("t & <t>", [entry], lines=["\udcff odd name"]).decode()
    assert "<script" not in page and "&lt;script&gt;" in page and "a &lt; b &amp; c" in page
    rest = re.sub(r'src="data:image/jpeg;base64,[^"]+"', "", page)
    assert not re.search(r"(src|href)=|https?:|url\(|@import", rest)
    shown = re.search(r"base64,([^\"]+)", page).group(1)
    assert images.read(base64.b64decode(shown)).shape == (160, 320, 3)


def test_small_pictures_stay_sharp():
    random = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert (images.read(report.reduced(random)) == random).all()
    assert images.read(report.reduced(np.full((100, 400), 300.0))).tolist()[0][0] == [255, 255, 255]
