"""Activations as sheets, the page in a browser, and the page served live."""

import html
import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest
from keras import layers

from tfcnn.errors import InputError
from tfcnn.visualization import activation_page, activations
from tfcnn.visualization.live import Server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def test_answers_of_layers_with_and_without_locations():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="map")(image)
    x = layers.Dense(2, name="end")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    found = activations.answers(model, ["map", "end"])(pictures)
    assert found["map"].shape == (2, 6, 6, 4)
    np.testing.assert_allclose(found["end"][:, 0, 0], model(pictures), rtol=1e-5)
    flat = keras.Model(image, layers.Reshape((36, 4), name="rows")(model.get_layer("map").output))
    with pytest.raises(InputError, match="rows"):
        activations.answers(flat, ["rows"])


def test_each_channel_has_its_own_scale_on_a_sheet():
    maps = np.zeros((2, 3, 5), np.float32)
    maps[..., 0] = [[-1, 0, 1], [3, 2, 1]]
    maps[..., 3] = 7
    maps[1, 2, 4] = 0.01
    found = activations.sheet(maps)
    assert (found.columns, found.height, found.width) == (2, 2, 3) and found.tiles.shape == (6, 6)
    assert found.tiles[:2, :3].tolist() == [[0, 64, 128], [255, 191, 128]]
    assert found.low.tolist()[:4] == [-1, 0, 0, 7] and found.high.tolist()[:4] == [3, 0, 0, 7]
    assert (found.tiles[2:4, 3:] == 0).all() and found.tiles[5, 2] == 255, (
        "constant is black; the fifth has one light"
    )
    with pytest.raises(InputError, match="non-finite"):
        activations.sheet(maps * np.nan)
    large = activations.sheet(np.arange(64.0, dtype=np.float32).reshape(8, 8, 1), side=4)
    assert large.tiles.shape == (4, 4) and large.high == 63 and large.tiles[0, 0] == round(255 * 4.5 / 63)


def test_a_grid_shows_every_channel_with_lines_between():
    maps = np.stack([np.eye(7), 1 - np.eye(7), np.ones((7, 7))], axis=-1).astype(np.float32)
    picture = activations.grid(activations.sheet(maps))  # 2 x 2 tiles of 7 pixels, each 4 times as large
    assert picture.shape == (59, 59, 3)
    assert (
        (picture[0] == picture[29]).all()
        and (picture[1:5, 1:5] == 255).all()
        and (picture[1:5, 30:34] == 0).all()
    )
    assert activations.strongest(maps, 2) == [2, 1]


def example(live=False):
    """A page of two layers and two pictures: every channel's first pixel is the brightest."""
    random = np.random.default_rng(0)
    shapes, pictures, described = {"low": (6, 6, 20), "deep </script>": (2, 2, 40)}, [], {}
    for number in range(2):
        entries = []
        for name, shape in shapes.items():
            maps = random.uniform(0, 1, shape).astype(np.float32) * np.arange(1, shape[-1] + 1)
            sheet = activations.sheet(maps)
            described[name] = activation_page.layer_entry(name, maps, sheet)
            gradients = {3: np.full((16, 16, 3), 99, np.uint8)} if name == "low" else {}
            entries.append(activation_page.answer_entry(sheet, gradients))
        image = random.integers(0, 256, (96, 96, 3), np.uint8)
        top = [("tabby <b>", 0.75), ("lynx", 0.2)]
        pictures.append(activation_page.picture_entry(f"{number}.png", image, top, entries))
    unit = {"caption": "patches", "image": pictures[0]["image"]}
    return activation_page.page("a & b", list(described.values()), pictures, {"low": {3: [unit]}}, live)


def test_the_page_needs_no_network_and_names_end_no_script():
    page = example().decode()
    rest = re.sub(r'"data:image/\w+;base64,[^"]+"', "", page)
    assert not re.search(r"https?:|url\(|@import|<link|src=", rest)
    assert page.count("</script>") == 2 and "<b>" not in page and "<title>a &amp; b</title>" in page


def heard(tmp_path, page, steps, width=1280):
    """What a script notes on the page in a browser without a window."""
    script = f"""<script>
      const heard = [], wait = (time) => new Promise((done) => setTimeout(done, time));
      const key = (name) => document.dispatchEvent(new KeyboardEvent("keydown", {{ key: name, cancelable: true }}));
      const lit = () => {{ const c = $("grid").getContext("2d", {{ willReadFrequently: true }});
        const values = c.getImageData(0, 0, $("grid").width, $("grid").height).data;
        return values.some((value, i) => i % 4 < 3 && value > 99); }};
      (async () => {{ await wait(800); {steps} document.title = JSON.stringify(heard); }})();
    </script></html>"""
    (tmp_path / "page.html").write_text(page.decode().replace("</html>", script))
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=15000",
        "--dump-dom",
    ]
    command += [f"--window-size={width},844", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [(tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return json.loads(html.unescape(re.search(r"<title>(.*)</title>", done.stdout).group(1)))


@browser
def test_layers_channels_and_pictures_are_browsed_by_key_and_click(tmp_path):
    steps = """
      const note = () => heard.push([$("channel").textContent, $("name").textContent, $("beside").children.length]);
      note(); heard.push(lit());
      for (let i = 0; i < 3; i++) key("ArrowRight");
      await wait(300); note(); key("e"); await wait(300); note(); key("w"); key("w"); await wait(300); note();
      key("o"); key("ArrowDown"); await wait(300); note(); heard.push(lit());
      document.querySelectorAll(".layers button")[0].click(); await wait(300); note();
      const box = $("grid").getBoundingClientRect();
      $("grid").dispatchEvent(new MouseEvent("click", { clientX: box.left + 2, clientY: box.top + 2 }));
      await wait(300); note(); key("b"); await wait(300); heard.push($("scale").textContent); key("z"); await wait(300);
      heard.push($("over").textContent, $("top").children.length, document.body.scrollWidth <= innerWidth);
      heard.push(location.hash);
    """
    found = heard(tmp_path, example(), steps)
    assert found[:2] == [
        ["low, channel 0", "0.png", 1],
        True,
    ]  # a line that says which channels have gradients
    assert found[2:5] == [
        ["low, channel 3", "0.png", 2],
        ["low, channel 3", "1.png", 2],
        ["low, channel 3", "1.png", 2],
    ]
    layer, lit, back, first = found[5:9]
    columns = int(layer[0].rpartition(" ")[2]) - 3
    assert layer[0].startswith("deep </script>, channel ") and 5 < columns < 40 and lit and layer[2] == 0
    assert back[0].startswith("low, channel ") and first[0] == "low, channel 0"
    assert found[9:] == ["all channels on one scale", "over the picture", 2, True, "#1,0,0"]


@browser
def test_on_a_phone_nothing_hangs_over_the_edge(tmp_path):
    steps = (
        "heard.push(document.documentElement.scrollWidth <= innerWidth, $('large').clientWidth > 200, lit());"
    )
    assert heard(tmp_path, example(), steps, width=390) == [True, True, True]


def fetch(address, host=None):
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def test_the_newest_frame_is_served_to_this_machine_alone():
    def describe(frame, layer, channel):
        return {"seen": frame, "asked": [layer, channel]}

    with Server(b"<p>page</p>", describe) as server:
        assert server.address.startswith("http://127.0.0.1:") and fetch(server.address) == b"<p>page</p>"
        for frame in ("first", "second"):
            server.publish(frame)
        answer = json.loads(fetch(f"{server.address}frame?layer=1&channel=5&after=0"))
        assert answer == {"number": 1, "layer": 1, "seen": "second", "asked": [1, 5]}
        for path, host, status in [
            ("frame?layer=x", None, 400),
            ("etc", None, 404),
            ("", "elsewhere.example", 403),
        ]:
            with pytest.raises(urllib.error.HTTPError) as error:
                fetch(server.address + path, host)
            assert error.value.code == status
        port = int(server.address.rstrip("/").rpartition(":")[2])
        with pytest.raises(InputError, match=str(port)):
            Server(b"", describe, port)
    with pytest.raises(urllib.error.URLError):
        fetch(server.address)


@browser
def test_a_live_page_follows_the_frames(tmp_path):
    maps = np.random.default_rng(0).uniform(0, 1, (6, 6, 20)).astype(np.float32)
    asked = threading.Event()

    def describe(frame, layer, channel):
        asked.set()
        image = np.full((32, 32, 3), 200, np.uint8)
        entry = activation_page.picture_entry(f"frame {frame}", image, [("cat", 0.5)], [])
        return {**entry, "answer": activation_page.answer_entry(activations.sheet(maps))}

    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=3000",
        "--dump-dom",
    ]
    with Server(example(live=True), describe) as server:
        server.publish(7)
        command += [f"--user-data-dir={tmp_path}", server.address]
        done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert asked.wait(60)
    page = done.communicate(timeout=60)[0]
    assert '<h2 id="name">frame 7</h2>' in page and "<h1>a &amp; b has ended</h1>" in page
