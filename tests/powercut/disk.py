"""What a disk may hold after a power cut: the model behind the crash images.

A write reaches the page cache, and from there the disk at any time, or never. What is certain:

* an fsync that returned has put the file's data and size on the disk;
* an fsync of a directory has put its entries there: names that were made, removed, renamed. The file's own
  fsync does not (POSIX promises no more; ext4 happens to do it for a new file).

Everything later is in doubt, each piece on its own: none of it, all of it, or any part. A write may be torn
at 512 bytes, the sector that disks write whole; bytes beside the written range stay (SQLite calls that
powersafe overwrite, https://sqlite.org/psow.html). The page cache has one version of a sector at a time, so
an older write never comes back over a newer one, and any order in which the disk takes sectors leaves, sector
by sector, what some part of the writes leaves. Where a part is missing before the file's end there are zeros,
never another file's old bytes (ext4's default, data=ordered). Entries of a name change in order (ext4's
journal).

After an fsync that failed nothing of that file becomes certain any more: Linux marks the pages clean that it
could not write (https://wiki.postgresql.org/wiki/Fsync_Errors). Sources of the rest: Pillai et al., "All File
Systems Are Not Created Equal", OSDI 2014; https://sqlite.org/atomiccommit.html.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.powercut.oplog import Operation, What

SECTOR_BYTES: Final = 512
_REMADE: Final = "-shm"  # SQLite's index of the log, in shared memory; made again at the next start

Image = dict[str, bytes]  # file name to contents


@dataclass(slots=True, eq=False)
class File:
    """A file whatever its names: what is certain to be on the disk, and what may be."""

    certain: bytearray = field(default_factory=bytearray)
    pending: "list[Change]" = field(default_factory=list)
    distrusted: bool = False  # an fsync failed


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A write to a file, or a new size for it."""

    file: File
    offset: int  # or the size
    data: bytes | None  # None: a new size

    @property
    def sectors(self) -> int:
        """How many sectors it touches; a size changes as a whole."""
        if not self.data:
            return 1
        return (self.offset + len(self.data) - 1) // SECTOR_BYTES - self.offset // SECTOR_BYTES + 1

    def apply(self, contents: bytearray, sectors: "frozenset[int] | None" = None) -> None:
        """Make it happen; only in these of its sectors, where given."""
        if self.data is None:
            del contents[self.offset :]
            contents.extend(bytes(self.offset - len(contents)))
        elif sectors is None:
            _put(contents, self.offset, self.data)
        else:
            for sector in sorted(sectors):
                first = (self.offset // SECTOR_BYTES + sector) * SECTOR_BYTES
                low, high = max(first, self.offset), first + SECTOR_BYTES
                _put(contents, low, self.data[low - self.offset : high - self.offset])


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Directory entries that change together: names, and the files they are of then (None: of none)."""

    directory: str
    names: tuple[tuple[str, File | None], ...]


Doubt = Change | Entries
Kept = Mapping[Doubt, frozenset[int] | None]  # what reached the disk; of a torn write the sectors that did


class Disk:
    """The watched directory, operation by operation: what the program sees and what the disk may hold."""

    def __init__(self) -> None:
        self.doubts: list[Doubt] = []  # what may or may not be on the disk, in the order it was done
        self._names: dict[str, File] = {}  # as the program sees it
        self._certain: dict[str, File] = {}
        self._open: dict[int, tuple[str, File | None]] = {}  # by handle; a directory has no file

    def apply(self, operation: Operation) -> bool:
        """The program did this. Whether it could change what a crash leaves."""
        match operation.what:
            case What.OPEN:
                return self._opened(operation)
            case What.WRITE | What.TRUNCATE:
                return self._changed(operation)
            case What.SYNC:
                return self._synced(operation)
            case What.UNLINK:
                return self._renamed((operation.name, None))
            case What.RENAME:
                file = self._names.get(operation.name)
                return self._renamed((operation.name, None), (operation.data.decode(), file))
            case What.LINK:
                return self._renamed((operation.data.decode(), self._names.get(operation.name)))
            case What.MARK:
                return False

    def image(self, kept: Kept) -> Image:
        """What the disk holds when of all that is in doubt exactly `kept` has reached it."""
        names = dict(self._certain)
        contents: dict[File, bytearray] = {}
        for doubt in self.doubts:
            if doubt in kept:
                if isinstance(doubt, Entries):
                    _rename(names, doubt)
                else:
                    if doubt.file not in contents:
                        contents[doubt.file] = bytearray(doubt.file.certain)
                    doubt.apply(contents[doubt.file], kept[doubt])
        return {name: bytes(contents.get(file, file.certain)) for name, file in names.items()}

    def seen(self) -> Image:
        """What the program sees: everything it did."""
        return self.image(dict.fromkeys(self.doubts))

    def _opened(self, operation: Operation) -> bool:
        name = operation.name
        if name.endswith(_REMADE):
            return False
        if operation.created:
            self._renamed((name, File()))
        self._open[operation.handle] = name, self._names.get(name)
        return operation.created

    def _changed(self, operation: Operation) -> bool:
        file = self._open.get(operation.handle, ("", None))[1]
        if file is None or operation.failed:
            return False
        change = Change(file, operation.offset, operation.data if operation.what is What.WRITE else None)
        file.pending.append(change)
        self.doubts.append(change)
        return True

    def _synced(self, operation: Operation) -> bool:
        name, file = self._open.get(operation.handle, (_REMADE, None))
        if name.endswith(_REMADE):
            return False
        if file is None:
            if not operation.failed:
                self._certain_entries(name)
            return True
        file.distrusted = file.distrusted or operation.failed
        if not file.distrusted:
            done = set(file.pending)
            for change in file.pending:
                change.apply(file.certain)
            file.pending.clear()
            self.doubts = [doubt for doubt in self.doubts if doubt not in done]
        return True

    def _certain_entries(self, directory: str) -> None:
        rest: list[Doubt] = []
        for doubt in self.doubts:
            if isinstance(doubt, Entries) and doubt.directory == directory:
                _rename(self._certain, doubt)
            else:
                rest.append(doubt)
        self.doubts = rest

    def _renamed(self, *names: tuple[str, File | None]) -> bool:
        names = tuple((name, file) for name, file in names if not name.endswith(_REMADE))
        if not names:
            return False
        entries = Entries(names[-1][0].rpartition("/")[0], names)
        _rename(self._names, entries)
        self.doubts.append(entries)
        return True


def touched(entries: Entries) -> Iterator[str]:
    """The names that change."""
    return (name for name, _ in entries.names)


def _rename(names: dict[str, File], entries: Entries) -> None:
    for name, file in entries.names:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def _put(contents: bytearray, offset: int, data: bytes) -> None:
    if offset > len(contents):
        contents.extend(bytes(offset - len(contents)))
    contents[offset : offset + len(data)] = data
