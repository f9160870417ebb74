"""Files whole or not at all, strict JSON, and lines of text as people save them."""

import json
import pathlib

import numpy as np
import pytest

from tfcnn import files
from tfcnn.errors import InputError


def test_a_file_is_replaced_whole(tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    files.write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "größer"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    files.write_bytes(tmp_path / "a.txt", b"old")
    with pytest.raises(OSError), files.written(tmp_path / "a.txt") as part:
        assert part.parent == tmp_path and part.suffix == ".txt"
        part.write_bytes(b"half")
        raise OSError("disk full")
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_longest_name_that_a_file_may_have_is_written(tmp_path):
    name = "n" * 251 + ".txt"
    files.write_text(tmp_path / name, "there")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert files.beside(tmp_path / name) != files.beside(tmp_path / name)


def test_json_is_strict_and_plain():
    content = {
        1: np.float32(0.5),
        "count": np.int64(3),
        "boxes": np.array([[1.0, np.nan]], np.float32),
        "lost": float("inf"),
        "there": (True, np.bool_(False), None),
        "path": pathlib.Path("a") / "b",
    }
    expected = {
        "1": 0.5,
        "count": 3,
        "boxes": [[1.0, None]],
        "lost": None,
        "there": [True, False, None],
        "path": "a/b",
    }
    assert json.loads(files.to_json(content), parse_constant=pytest.fail) == expected
    assert "\n" not in files.to_json(content, indent=None)


@pytest.mark.parametrize(
    "data",
    [b"cat\ndog", b"\xef\xbb\xbfcat\ndog\n", b"cat\r\ndog\r\n\r\n", b"cat\rdog\r \n"],
    ids=["plain", "byte order mark", "Windows", "old Mac, blank lines at the end"],
)
def test_labels_are_read_however_they_were_saved(tmp_path, data):
    (tmp_path / "names.txt").write_bytes(data)
    assert files.read_labels(tmp_path / "names.txt", 2) == ["cat", "dog"]


def test_only_line_breaks_end_a_line(tmp_path):
    (tmp_path / "names.txt").write_bytes("a\u2028b\x0cc\n".encode())
    assert files.read_lines(tmp_path / "names.txt") == ["a\u2028b\x0cc"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("caf\u00e9\nna\u00efve\n".encode("cp1252"), "line 1 is not UTF-8"),
        ("cat\ndog\n".encode("utf-16"), "not UTF-8"),
        (b"c\0a\0t\0\n\0", "not a text file"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"cat\n", "has 1 names, and there are 2 classes"),
        (None, "No such file"),
    ],
    ids=["cp1252", "utf-16", "binary", "hole", "too few", "missing"],
)
def test_labels_that_cannot_be_used_are_answered_in_one_line(tmp_path, data, message):
    path = tmp_path / "names.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        files.read_labels(path, 2)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_an_empty_file_and_a_folder_are_no_labels(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\n")
    for path in (tmp_path / "names.txt", tmp_path):
        with pytest.raises(InputError):
            files.read_labels(path)


@pytest.mark.parametrize(
    ("text", "why"), [("[" * 100_000, "nested too deep"), ("{", "Expecting"), (b"\xff", "utf-8")]
)
def test_what_is_no_json_is_one_line(text, why):
    with pytest.raises(InputError, match=f"^a.json is not JSON.*{why}"):
        files.from_json(text, "a.json")
