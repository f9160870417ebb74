"""Codes in a file: what NumPy reads again, and principal components of more than memory should hold."""

import numpy as np
import pytest

from tfcnn.errors import InputError
from tfcnn.visualization import code_file, embedding


def test_rows_are_read_again_by_numpy(tmp_path):
    rows = np.random.default_rng(0).normal(size=(137, 5)).astype(np.float32)
    with code_file.CodeFile(tmp_path / "codes.npy") as file:
        for row in rows:
            file.add(row)
        with pytest.raises(InputError, match="4 numbers"):
            file.add(rows[0, :4])
    assert file.count == 137
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), rows)
    read = code_file.read(tmp_path / "codes.npy")
    assert isinstance(read, np.memmap) and read.shape == (137, 5)


def test_chunks_hold_every_row_once_and_the_last_is_no_shorter_than_asked():
    rows = np.arange(23)[:, None]
    parts = list(code_file.chunks(rows, least=4, rows=10))
    assert [len(part) for part in parts] == [10, 13]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert [len(part) for part in code_file.chunks(rows, least=3, rows=10)] == [10, 10, 3]
    assert [len(part) for part in code_file.chunks(rows[:2], least=4, rows=10)] == [2]
    assert not list(code_file.chunks(rows[:0]))


def test_components_read_in_parts_are_those_of_all_codes(tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    codes = (random.normal(size=(600, 8)) * [9, 5, 1, 1, 1, 0.5, 0.5, 0.1] + 3).astype(np.float32)
    whole = embedding.positions(codes, "pca")
    np.save(tmp_path / "codes.npy", codes)
    monkeypatch.setattr(embedding, "_WHOLE", 100)
    monkeypatch.setattr(code_file.chunks, "__defaults__", (1, 150))
    found = embedding.positions(code_file.read(tmp_path / "codes.npy"), "pca")
    for axis in range(2):
        sign = np.sign((whole[:, axis] * found[:, axis]).sum())
        assert np.abs(found[:, axis] * sign - whole[:, axis]).max() < 0.05 * whole[:, axis].std()
