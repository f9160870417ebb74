"""Where pictures lie: files, folders, globs, .zip archives, and the photographs that come with the packages."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import importlib.util
import os
import pathlib
import stat
import threading
import zipfile
from collections.abc import Iterable

from tfcnn.errors import InputError

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jp2 .png .apng .gif .bmp .dib .tif .tiff .webp .avif .ppm .pgm .pbm .tga".split()
)
MAX_MEMBER_BYTES = 2**30
_READING = threading.Lock()  # of members of an archive, which is open once

# Photographs that the wheels of scikit-image and scikit-learn carry, the cat first.
_PACKAGED = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a picture lies: a file, or a member of a .zip.

    Attributes:
        file: the path as the person gave it, a member's after its archive's.
        name: the path inside the folder or archive that was named; of a single file its name.
        path: the file to open.
        member: the member of the archive `path`, else None.
    """

    file: str
    name: str
    path: pathlib.Path
    member: str | None = None

    def open(self) -> bytes:
        """The file's bytes.

        Raises:
            InputError: it cannot be read.
        """
        try:
            if self.member is None:
                if not stat.S_ISREG(os.stat(self.path).st_mode):
                    raise InputError(f"{self.file}: not a regular file")
                return self.path.read_bytes()
            with _READING:
                status = os.stat(self.path)
                archive = _archive(self.path, status.st_mtime_ns, status.st_size)
                size = archive.getinfo(self.member).file_size
                if size > MAX_MEMBER_BYTES:
                    raise InputError(f"{self.file}: {size:,} bytes when unpacked, above {MAX_MEMBER_BYTES:,}")
                return archive.read(self.member)
        except OSError as error:
            raise InputError(f"{self.file}: {error.strerror or error}") from error
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            RuntimeError,
            NotImplementedError,
            KeyError,
        ) as error:
            raise InputError(
                f"{self.file}: the archive is damaged, encrypted or of an unknown kind ({error})"
            ) from error
        except (
            Exception
        ) as error:  # the decompressors' own errors (zlib.error, lzma.LZMAError) have no common base
            raise InputError(f"{self.file}: the archive is damaged ({error})") from error


@functools.lru_cache(maxsize=4)
def _archive(path, changed, size):
    """An archive, open: its list of members, read anew for each, would take longer than the pictures."""
    return zipfile.ZipFile(path)


def find(specs: Iterable[str | os.PathLike]) -> list[Source]:
    """The pictures that files, folders (recursive), globs and .zip archives name, each once, in order.

    Args:
        specs: strings or paths. Of a folder, a glob or a .zip only members with a picture's suffix are
            taken; a file named by itself is always taken.

    Returns:
        Sources; those of a folder, a glob or an archive are sorted by name.

    Raises:
        InputError: a spec names nothing, or a folder, glob or archive without a picture.
    """
    found: dict[tuple, Source] = {}
    for spec in specs:
        spec = os.fspath(spec)
        if not os.path.lexists(spec) and glob.has_magic(spec):
            members = _in_glob(spec)
        elif os.path.isdir(spec):
            members = _in_folder(spec)
        elif not os.path.exists(spec):
            raise InputError(f"{spec}: no such file or folder")
        elif spec.lower().endswith(".zip") and is_archive(spec):
            members = _in_zip(spec)
        else:
            members = [Source(spec, os.path.basename(spec), pathlib.Path(spec))]
        for source in members:
            found.setdefault((os.path.realpath(source.path), source.member), source)
    return list(found.values())


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file is a .zip, be it cut off: then the list of its members, at its end, is missing."""
    if zipfile.is_zipfile(path):
        return True
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def _is_picture(name):
    base = os.path.basename(name)
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in SUFFIXES


def _in_folder(folder):
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".")]
        names += [os.path.relpath(os.path.join(parent, each), folder) for each in files if _is_picture(each)]
    if not names:
        raise InputError(
            f"{folder}: no picture in this folder (none of its files ends in .jpg, .png or the like)"
        )
    return [Source(os.path.join(folder, n), n, pathlib.Path(folder, n)) for n in sorted(names)]


def _in_glob(pattern):
    root = pattern[: min(pattern.find(c) for c in "*?[" if c in pattern)]
    root = root[: root.rfind(os.sep) + 1]
    sources = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(path):
            with contextlib.suppress(InputError):  # a folder without pictures inside a glob is passed over
                sources += [
                    dataclasses.replace(s, name=os.path.relpath(s.file, root or "."))
                    for s in _in_folder(path)
                ]
        elif _is_picture(path):
            sources.append(Source(path, os.path.relpath(path, root or "."), pathlib.Path(path)))
    if not sources:
        raise InputError(f"{pattern}: no picture matches this pattern")
    return sources


def _in_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = [i.filename for i in archive.infolist() if not i.is_dir() and _is_picture(i.filename)]
    except (OSError, zipfile.BadZipFile) as error:
        why = str(error) if zipfile.is_zipfile(path) else "its end is missing, or it is damaged there"
        raise InputError(f"{path}: the archive cannot be read: {why}") from error
    names = [n for n in names if not n.startswith("__MACOSX/")]
    if not names:
        raise InputError(f"{path}: no picture in this archive")
    return [Source(f"{path}/{n}", n, pathlib.Path(path), n) for n in sorted(names)]


def packaged() -> list[Source]:
    """Photographs that scikit-image and scikit-learn carry, the cat first."""
    sources = []
    for package, name in _PACKAGED:
        spec = importlib.util.find_spec(package)
        path = pathlib.Path(spec.origin).parent / name if spec and spec.origin else None
        if path and path.exists():
            sources.append(Source(f"{package}/{name}", path.name, path))
    return sources
