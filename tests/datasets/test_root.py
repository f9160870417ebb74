"""A folder and a .zip answer alike."""

import concurrent.futures
import zipfile

import dataset_layouts as layouts
import pytest

from tfcnn import sources
from tfcnn.datasets.root import Root, find
from tfcnn.errors import InputError


@pytest.fixture
def pair(tmp_path):
    folder = layouts.write(tmp_path / "set", {"a.txt": "A", "deep/er/b.txt": "B", "deep/c.txt": "\ufeffC"})
    return Root(folder), Root(layouts.zipped(folder, tmp_path / "set.zip")).at("set")


def test_folder_and_zip_alike(pair):
    for root in pair:
        assert root.files() == ["a.txt"] and root.folders() == ["deep"]
        assert root.files("deep") == ["c.txt"] and root.folders("deep") == ["er"]
        assert root.files("absent") == [] == root.folders("absent")
        assert root.walk() == ["a.txt", "deep/c.txt", "deep/er/b.txt"]
        assert root.walk("deep") == ["c.txt", "er/b.txt"]
        assert root.exists("deep/er/b.txt") and not root.exists("deep/er") and not root.exists("b.txt")
        assert root.at("deep").read("er/b.txt") == b"B"
        assert root.text("deep/c.txt") == "C"
        with pytest.raises(InputError, match="has no nothing.txt"):
            root.read("nothing.txt")


def test_what_is_hidden_is_not_listed(tmp_path):
    files = [
        "a.png",
        ".b.png",
        "@eaDir/c.png",
        ".git/d",
        "in/._a.png",
        "in/.ipynb_checkpoints/x.png",
        "in/Thumbs.db",
    ]
    folder = layouts.write(tmp_path / "set", dict.fromkeys(files, ""))
    for root in (Root(folder), Root(layouts.zipped(folder, tmp_path / "set.zip")).at("set")):
        assert root.files() == ["a.png"] and root.folders() == ["in"]
        assert root.files("in") == root.folders("in") == [] and root.walk() == ["a.png"]


def test_backslashes_in_a_zip_are_folders(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set\\cat\\0.png", b"00")
        archive.writestr("./set/dog/1.png", b"1")
    root = Root(path)
    assert root.walk() == ["set/cat/0.png", "set/dog/1.png"]
    assert root.at("set").folders() == ["cat", "dog"]
    assert root.read("set/cat/0.png") == b"00" and root.file("set/cat/0.png").size == 2


def test_a_member_that_unpacks_to_too_much_is_refused(pair, monkeypatch):
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 3)
    folder, archive = pair
    assert folder.read("deep/c.txt") == archive.path.parent.joinpath("set/deep/c.txt").read_bytes()
    assert archive.read("a.txt") == b"A"
    with pytest.raises(InputError, match="deep/c.txt has 4 bytes when unpacked, above 3"):
        archive.read("deep/c.txt")


def test_find(tmp_path):
    layouts.write(tmp_path, {"in/sign": "", "more/data": ""})
    assert find(tmp_path / "in", lambda r: r.exists("sign"), "sign").prefix == ""
    assert find(tmp_path, lambda r: r.exists("sign"), "sign").prefix == "in"
    with pytest.raises(InputError, match="has a hat"):
        find(tmp_path, lambda r: r.exists("hat"), "a hat")
    layouts.write(tmp_path, {"more/sign": ""})
    with pytest.raises(InputError, match="several data sets.*in.*more"):
        find(tmp_path, lambda r: r.exists("sign"), "sign")


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match="No data set at"):
        Root(tmp_path / "absent")
    (tmp_path / "file.zip").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="neither a folder nor a .zip"):
        Root(tmp_path / "file.zip")


def test_damaged_member(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"content that is checked")
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    with pytest.raises(InputError, match="a cannot be read"):
        Root(path).read("a")


def test_an_encrypted_member_is_one_line(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"content")
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of encryption, in the member's header and in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="a cannot be read .*encrypted"):
        Root(path).read("a")


def test_threads_read_a_zip_at_once(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(50):
            archive.writestr(f"{index}", bytes([index]) * 20000)
    root = Root(path)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(root.read, [str(index % 50) for index in range(400)]))
    assert all(data == bytes([index % 50]) * 20000 for index, data in enumerate(read))


def test_what_may_not_be_read_is_a_line(tmp_path, monkeypatch):
    folder = layouts.write(tmp_path / "set", {"a.txt": "A"})
    archive = layouts.zipped(folder, tmp_path / "set.zip")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    root = Root(folder)
    monkeypatch.setattr("os.scandir", denied)
    monkeypatch.setattr("zipfile.ZipFile", denied)
    monkeypatch.setattr("pathlib.Path.stat", denied)
    with pytest.raises(InputError, match="set cannot be read: Permission denied"):
        root.folders()
    assert root.exists("a.txt")
    monkeypatch.setattr("os.stat", denied)
    assert not root.exists("a.txt")
    monkeypatch.undo()
    monkeypatch.setattr("zipfile.ZipFile", denied)
    with pytest.raises(InputError, match="set.zip cannot be read: Permission denied"):
        Root(archive)


def test_an_archive_that_is_cut_off_is_said_to_be_one(tmp_path):
    folder = layouts.write(tmp_path / "set", {"a.txt": "A" * 100})
    data = layouts.zipped(folder, tmp_path / "set.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut\.zip: the archive cannot be read: its end is missing"):
        Root(tmp_path / "cut.zip")
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(InputError, match=r"notes\.txt is neither a folder nor a \.zip"):
        Root(tmp_path / "notes.txt")
