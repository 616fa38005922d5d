"""base.cache: entries are whole or made again, and a cache that cannot be written serves what it holds."""

import os
import shutil
import time
from pathlib import Path

import pytest

from base import cache
from base.errors import TspError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRONOME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counted:
    """A `make` that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "a").write_bytes(b"one")
        (folder / "sub" / "b").write_bytes(b"two")


def test_an_entry_is_made_once(root: Path):
    make = Counted()
    folders = {cache.cached("kind", "key", make) for _ in range(3)}
    assert (folders, make.calls) == ({root / "kind" / "key"}, 1)


DAMAGES = {
    "emptied": lambda entry: (entry / "a").write_bytes(b""),
    "one bit": lambda entry: (entry / "sub" / "b").write_bytes(b"twn"),
    "a file gone": lambda entry: (entry / "a").unlink(),
    "a file more": lambda entry: (entry / "c").write_bytes(b""),
    "all gone": lambda entry: [path.unlink() for path in entry.rglob("*") if path.is_file()],
    "list damaged": lambda entry: (entry / cache.LIST).write_bytes(b"{\xff"),
    "a file for its folder": lambda entry: (shutil.rmtree(entry), entry.touch()),
    "a folder for a file": lambda entry: ((entry / "a").unlink(), (entry / "a").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_made_anew(root: Path, damage, capfd: pytest.CaptureFixture[str]):
    make = Counted()
    entry = cache.cached("kind", "key", make)
    assert capfd.readouterr().err == ""
    damage(entry)
    for _ in range(2):
        assert cache.cached("kind", "key", make) == entry
        assert ((entry / "a").read_bytes(), (entry / "sub" / "b").read_bytes(), make.calls) == (b"one", b"two", 2)
    assert capfd.readouterr().err == f"note: {entry} of the cache is damaged and not used\n"


def test_an_entry_of_an_earlier_version_is_taken_as_it_is(root: Path):
    make = Counted()
    entry = cache.cached("kind", "key", make)
    (entry / cache.LIST).unlink()
    assert cache.cached("kind", "key", make) == entry and make.calls == 1
    (entry / "a").write_bytes(b"")
    cache.cached("kind", "key", make)
    assert make.calls == 2


def test_a_text_that_is_damaged_is_made_anew(root: Path):
    assert cache.cached_text("kind", "key", lambda: "é") == "é"
    (root / "kind" / "key" / "text").write_bytes(b"\xff")
    assert cache.cached_text("kind", "key", lambda: "é") == "é"


def test_a_cache_that_may_not_be_written_serves_what_it_holds(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Another user's, for example: not even the times of entries can be set, and lists are not added."""
    make = Counted()
    entry = cache.cached("kind", "key", make)
    (entry / cache.LIST).unlink()

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(cache, "_write_list", refuse)
    assert cache.cached("kind", "key", make) == entry and make.calls == 1


def test_a_missing_entry_of_a_cache_that_cannot_be_written(root: Path):
    root.mkdir()
    (root / "kind").write_text("a file, where a folder would have to be made")
    with pytest.raises(TspError, match=f"the cache folder {root} cannot be written: .*; set METRONOME_CACHE"):
        cache.cached("kind", "key", Counted())


def test_a_folder_that_runs_nothing(root: Path, monkeypatch: pytest.MonkeyPatch):
    entry = cache.cached("kind", "key", Counted())
    cache.check_executable(entry)
    real = os.statvfs(entry)
    flags = [*real[:8], real.f_flag | os.ST_NOEXEC, *real[9:]]
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(flags))
    with pytest.raises(TspError, match=f"cache folder {root}, whose disk is mounted noexec: set METRONOME_CACHE"):
        cache.check_executable(entry)


@pytest.mark.parametrize("chosen", ["~nosuchuser/x", ""])
def test_no_home_folder(chosen: str, monkeypatch: pytest.MonkeyPatch):
    """Of the user that is named, or of this one: in a container neither HOME nor an entry of passwd need be there."""
    monkeypatch.setenv("METRONOME_CACHE", chosen)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where nobody knows
    with pytest.raises(TspError, match="is in the home folder of a user that this machine does not know: set METRO"):
        cache.cache_root()


def test_a_full_disk_is_not_the_cache_s_fault(root: Path, monkeypatch: pytest.MonkeyPatch):
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write_list", full)
    with pytest.raises(OSError, match="No space left"):
        cache.cached("kind", "key", Counted())


def test_entries_that_nobody_used_are_removed(root: Path):
    old = cache.cached("kind", "old", Counted())
    past = time.time() - (cache.UNUSED_DAYS + 1) * 86400
    os.utime(old, (past, past))
    cache.cached("kind", "new", Counted())
    assert not old.exists() and (root / "kind" / "new").is_dir()
