"""The model of the disk: what is certain after a power cut, and what is not."""

from random import Random

from tests.powercut.cuts import cuts
from tests.powercut.disk import Disk, Image
from tests.powercut.oplog import Operation, What

FILE = 1
DIRECTORY = 2


def operation(what: What, name: str = "", data: bytes = b"", handle: int = FILE, **more: int) -> Operation:
    """One call."""
    created, failed = bool(more.get("created")), bool(more.get("failed"))
    return Operation(what, handle, more.get("offset", 0), name, data, created, failed)


def created(durable: bool = True) -> Disk:
    """A new, empty file "a", its entry durable or not."""
    disk = Disk()
    disk.apply(operation(What.OPEN, "a", created=1))
    disk.apply(operation(What.OPEN, "", handle=DIRECTORY))
    if durable:
        disk.apply(operation(What.SYNC, handle=DIRECTORY))
    return disk


def images(disk: Disk) -> list[Image]:
    """Very many of the images that a cut may leave now."""
    return [disk.image(kept) for kept in cuts(disk, Random(1), 400)]  # noqa: S311 - the same every time


def test_what_was_synced_is_in_every_image() -> None:
    disk = created()
    disk.apply(operation(What.WRITE, data=b"one"))
    disk.apply(operation(What.SYNC))
    assert images(disk) == [{"a": b"one"}]
    disk.apply(operation(What.WRITE, data=b"two", offset=3))
    assert {each["a"] for each in images(disk)} == {b"one", b"onetwo"}


def test_writes_that_were_not_synced_are_dropped_reordered_and_torn_at_sectors() -> None:
    disk = created()
    for offset in (0, 512):
        disk.apply(operation(What.WRITE, data=b"x" * 512, offset=offset))
    disk.apply(operation(What.WRITE, data=b"y" * 1024, offset=256))
    left = {each["a"] for each in images(disk)}
    x, y, zero = (letter * 256 for letter in (b"x", b"y", b"\0"))
    assert {b"", x + x, x + y + y + y + y, zero + zero + x + x, x + y + x + x, zero + y} <= left
    assert x + x + y + x not in left  # within a sector nothing is torn


def test_a_new_size_may_be_missing() -> None:
    disk = created()
    disk.apply(operation(What.WRITE, data=b"one"))
    disk.apply(operation(What.SYNC))
    disk.apply(operation(What.TRUNCATE, offset=1))
    assert {each["a"] for each in images(disk)} == {b"one", b"o"}


def test_a_name_is_certain_only_after_the_directory_was_synced() -> None:
    disk = created(durable=False)
    disk.apply(operation(What.WRITE, data=b"one"))
    disk.apply(operation(What.SYNC))
    assert {*map(len, images(disk))} == {0, 1}
    disk.apply(operation(What.SYNC, handle=DIRECTORY))
    assert images(disk) == [{"a": b"one"}]
    disk.apply(operation(What.UNLINK, "a"))
    assert {*map(len, images(disk))} == {0, 1}


def test_a_rename_happens_whole_or_not_at_all() -> None:
    disk = created()
    disk.apply(operation(What.RENAME, "a", b"b"))
    assert {tuple(each) for each in images(disk)} == {("a",), ("b",)}


def test_a_removed_name_does_not_come_back_under_its_successor() -> None:
    """The entries of one name change in order."""
    disk = created()
    disk.apply(operation(What.WRITE, data=b"old"))
    disk.apply(operation(What.SYNC))
    disk.apply(operation(What.UNLINK, "a"))
    disk.apply(operation(What.OPEN, "a", handle=3, created=1))
    disk.apply(operation(What.WRITE, data=b"new", handle=3))
    disk.apply(operation(What.SYNC, handle=3))
    assert {each.get("a") for each in images(disk)} == {b"old", None, b"new"}


def test_after_a_failed_fsync_nothing_of_the_file_becomes_certain() -> None:
    disk = created()
    disk.apply(operation(What.WRITE, data=b"one"))
    disk.apply(operation(What.SYNC, failed=1))
    disk.apply(operation(What.SYNC))
    assert {each["a"] for each in images(disk)} == {b"", b"one"}
