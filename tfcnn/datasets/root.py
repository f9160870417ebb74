"""Where a data set lies: a folder or a .zip, read by the same few calls."""

import codecs
import contextlib
import dataclasses
import os
import pathlib
import posixpath
import zipfile
from collections.abc import Callable, Iterable

from tfcnn import sources
from tfcnn.errors import InputError

# What file systems, archivers and notebooks leave beside a person's files; so does a leading dot.
HIDDEN = (
    "@eaDir",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    "__MACOSX",
    "lost+found",
    "Thumbs.db",
    "desktop.ini",
)


class Root:
    """A tree of files by names with forward slashes, relative to its own top. What is hidden is not listed.

    Reading is thread-safe: a folder's files are opened one by one, and `zipfile` locks the archive round
    each read.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        self.prefix = ""
        if self.path.is_dir():
            self._archive = None
        elif self.path.is_file():
            try:
                self._archive = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile:
                if sources.is_archive(path):
                    raise InputError(
                        f"{path}: the archive cannot be read: its end is missing, or it is damaged there"
                    ) from None
                raise InputError(
                    f"{path} is neither a folder nor a .zip: name the data set's folder"
                ) from None
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
            members = {_member(name): name for name in self._archive.namelist()}
            self._members = {name: member for name, member in members.items() if not name.endswith("/")}
            self._tree = _tree(self._members)
        else:
            raise InputError(f"No data set at {path}: name an existing folder or .zip file")

    def __str__(self) -> str:
        return posixpath.join(str(self.path), self.prefix) if self.prefix else str(self.path)

    def at(self, prefix: str) -> "Root":
        """The same tree seen from one of its folders."""
        inner = object.__new__(Root)
        inner.__dict__.update(self.__dict__)
        inner.prefix = posixpath.join(self.prefix, prefix) if prefix else self.prefix
        return inner

    def _full(self, name: str) -> str:
        return posixpath.join(self.prefix, name) if self.prefix else name

    def exists(self, name: str) -> bool:
        """Whether `name` is a file of the tree."""
        if self._archive is not None:
            return self._full(name) in self._members
        return os.path.isfile(self.path / self._full(name))  # False, too, in a folder that may not be entered

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            InputError: there is no such file, or the archive is damaged there, or unpacks to too much.
        """
        if self._archive is not None and (size := self.size(name)) > sources.MAX_MEMBER_BYTES:
            raise InputError(
                f"{self}: {name} has {size:,} bytes when unpacked, above {sources.MAX_MEMBER_BYTES:,}: "
                "unpack the archive and name its folder"
            )
        try:
            if self._archive is not None:
                return self._archive.read(self._members[self._full(name)])
            return (self.path / self._full(name)).read_bytes()
        except (KeyError, FileNotFoundError):
            raise InputError(f"{self} has no {name}") from None
        except (
            Exception
        ) as error:  # encrypted, of an unknown kind, damaged: the decompressors' errors have no base
            raise InputError(f"{self}: {name} cannot be read ({error})") from None

    def file(self, name: str) -> "File":
        """`name`, to be read when its bytes are wanted."""
        return File(self, name)

    def size(self, name: str) -> int:
        """Bytes of one file; -1 where there is none."""
        try:
            if self._archive is not None:
                return self._archive.getinfo(self._members[self._full(name)]).file_size
            return os.stat(self.path / self._full(name)).st_size
        except (KeyError, OSError):
            return -1

    def text(self, name: str) -> str:
        """One file as text; see `decoded`."""
        return decoded(self.read(name))

    def folders(self, under: str = "") -> list[str]:
        """Names of the folders right under `under`, sorted."""
        return sorted(self._children(under)[0])

    def files(self, under: str = "") -> list[str]:
        """Names of the files right under `under`, sorted, relative to `under`."""
        return sorted(self._children(under)[1])

    def walk(self, under: str = "") -> list[str]:
        """Names of all files below `under`, sorted, relative to `under`."""
        full = self._full(under).rstrip("/")
        if self._archive is None:
            folder = self.path / full
            names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        else:
            start = full + "/" if full else ""
            names = (member[len(start) :] for member in self._members if member.startswith(start))
        return sorted(name for name in names if not any(map(_hidden, name.split("/"))))

    def _children(self, under: str) -> tuple[set[str], set[str]]:
        full = self._full(under).rstrip("/")
        if self._archive is not None:
            folders, files = self._tree.get(full, (set(), set()))
        else:
            folder = self.path / full
            try:
                with os.scandir(folder) if folder.is_dir() else contextlib.nullcontext(()) as entries:
                    kinds = [(entry.name, entry.is_dir()) for entry in entries]
            except OSError as error:
                raise InputError(f"{folder} cannot be read: {error.strerror or error}") from None
            folders = {name for name, is_folder in kinds if is_folder}
            files = {name for name, is_folder in kinds if not is_folder}
        return {f for f in folders if not _hidden(f)}, {f for f in files if not _hidden(f)}


def decoded(data: bytes) -> str:
    """A text: UTF-16 where its byte order mark says so (PowerShell writes it), else UTF-8 with or without one; what
    is none becomes U+FFFD."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _member(name: str) -> str:
    """A member of an archive with forward slashes, which some programs of Windows do not write, from the top."""
    name = name if "/" in name else name.replace("\\", "/")
    return name.removeprefix("./").lstrip("/")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a `Root`: called, its bytes."""

    root: Root
    name: str

    def __call__(self) -> bytes:
        return self.root.read(self.name)

    @property
    def size(self) -> int:
        """Its bytes' number; -1 where it is missing."""
        return self.root.size(self.name)


def _tree(members: Iterable[str]) -> dict[str, tuple[set[str], set[str]]]:
    """Names of the folders and of the files right under each folder of an archive; its top is ""."""
    tree: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
    for member in members:
        folder, _, name = member.rpartition("/")
        tree.setdefault(folder, (set(), set()))[1].add(name)
        while folder:
            parent, _, name = folder.rpartition("/")
            known = tree.setdefault(parent, (set(), set()))[0]
            if name in known:
                break
            known.add(name)
            folder = parent
    return tree


def find(path: str | pathlib.Path, holds: Callable[[Root], bool], what: str) -> Root:
    """The root of a data set: `path` itself, or the one folder right under it, that `holds` what a layout
    needs.

    Args:
        path: a folder or a .zip file.
        holds: tells a data set's root from any other folder.
        what: the sign of a root in words, for the message.

    Raises:
        InputError: no root, or several.
    """
    top = Root(path)
    if holds(top):
        return top
    inside = [inner for name in top.folders() if holds(inner := top.at(name))]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise InputError(f"{path} holds several data sets ({', '.join(map(str, inside))}): name one of them")
    raise InputError(f"{path} is no such data set: neither its top nor a folder right under it has {what}")
