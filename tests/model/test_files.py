"""Files that commands write. Oracles: what the file system holds afterwards, what a reader at the other end gets."""

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import report
from model import files


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file can grow beyond 1,000 bytes: the write that would is cut off there, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(path: Path, overwrite: bool = False) -> None:
    files.write(path, "new\n", "--out", overwrite)


# A file of its own.


def test_a_new_file(tmp_path):
    write(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "new\n" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "other").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("overwrite", [False, True])
def test_whole_or_not_at_all(tmp_path, small_disk, overwrite):
    path = tmp_path / "a"
    if overwrite:
        path.write_text("old")
    before = list(tmp_path.iterdir())
    with pytest.raises(OSError, match=f"can't write to {path}: File too large"):
        files.write(path, "x" * 2000, "--out", overwrite)
    assert list(tmp_path.iterdir()) == before and (not overwrite or path.read_text() == "old")


def test_what_is_there_is_refused_and_replaced_where_asked_for(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    message = f"--out must be a new file, got {path}, which already exists: --overwrite replaces it"
    with pytest.raises(FileExistsError, match=message):
        files.check(path, "--out")
    with pytest.raises(FileExistsError, match=message):
        write(path)
    assert path.read_text() == "old"
    write(path, overwrite=True)
    assert path.read_text() == "new\n" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_to_be_meanwhile_is_left_alone(tmp_path, monkeypatch, links):
    """Also on a file system that knows no links."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "free")
    assert (tmp_path / "free").read_text() == "new\n"
    path = tmp_path / "a"
    monkeypatch.setattr(os, "fsync", lambda _: path.write_text("theirs"))  # after the check, before the name is taken
    with pytest.raises(FileExistsError, match="--out must be a new file"):
        write(path)
    assert path.read_text() == "theirs" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(tmp_path, there):
    (tmp_path / "folder").mkdir()
    link, real = tmp_path / "link", tmp_path / "folder" / "real"
    link.symlink_to("folder/real")
    if there:
        real.write_text("old")
        with pytest.raises(FileExistsError):
            write(link)
    write(link, overwrite=there)
    assert link.is_symlink() and real.read_text() == "new\n"
    assert [len(list(folder.iterdir())) for folder in (tmp_path, tmp_path / "folder")] == [2, 1]


@pytest.mark.parametrize("name", ["missing/a", "file/a", "link", "folder", "."])
@pytest.mark.parametrize("overwrite", [False, True])
def test_where_no_file_can_be(tmp_path, monkeypatch, name, overwrite):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    Path("link").symlink_to("missing/a")
    message = (
        "--out must be a file, got" if name in (".", "folder") else "(missing|file): no such folder; --out .* needs"
    )
    with pytest.raises((FileNotFoundError, IsADirectoryError), match=message):
        files.check(Path(name), "--out", overwrite)
    with pytest.raises((FileNotFoundError, IsADirectoryError), match=message):
        write(Path(name), overwrite)


def test_pages_that_are_renewed_in_place(tmp_path, monkeypatch, small_disk):
    """The tables of `alea bench report`: a page that can't be written whole stays as it was."""
    page = tmp_path / "page.md"
    page.write_text("old")
    monkeypatch.setattr(report, "TABLES", {"one": lambda: "row\n" * 500})
    page.write_text("<!-- table: one -->\nold\n<!-- end -->\n")
    before = page.read_text()
    arguments = type("Arguments", (), {"pages": [page], "plots": None})
    with pytest.raises(OSError, match="can't write to"):
        report.run(arguments)
    assert page.read_text() == before


# Pipes, devices, open files.


def test_a_pipe_is_written_to(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write(path)
    reader.join()
    assert got == [b"new\n"] and path.is_fifo()


def test_a_device_is_written_to():
    """A terminal, the device that every user can have."""
    reader, terminal = os.openpty()
    try:
        write(Path(os.ttyname(terminal)))
        assert os.read(reader, 100) == b"new\r\n"
    finally:
        os.close(reader)
        os.close(terminal)


def test_a_device_keeps_its_node_and_its_error_names_it(tmp_path):
    """As /dev/full: it is not read, which would never end, and not replaced."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("only root makes devices")
    for overwrite in (False, True):
        with pytest.raises(OSError, match=f"can't write to {path}: No space left on device"):
            write(path, overwrite)
    assert stat.S_ISCHR(path.stat().st_mode) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_open_file_is_written_to_where_it_stands(tmp_path, overwrite):
    """As /dev/stdout behind `>> file`, and a link to it."""
    path = tmp_path / "log"
    path.write_text("old\n")
    with path.open("a") as file:
        write(Path(f"/dev/fd/{file.fileno()}"), overwrite)
        link = tmp_path / "link"
        link.symlink_to(f"/dev/fd/{file.fileno()}")
        write(link, overwrite)
    assert path.read_text() == "old\nnew\nnew\n" and link.is_symlink()


# Lines.


def test_lines_are_kept_and_added(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one\n\xc3\xa4\nthree\nhal")
    with files.Lines(path) as lines:
        there = lines.read()
        assert there == ["one", "ä", "three"]
        lines.keep(there[:2])
        lines.add(["four", "five"])
    assert path.read_text() == "one\nä\nfour\nfive\n" and files.whole_lines(path) == ["one", "ä", "four", "five"]


def test_lines_that_were_never_written_leave_no_file(tmp_path):
    with files.Lines(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lines_are_added_whole_or_not_at_all(tmp_path, small_disk):
    path = tmp_path / "a"
    with files.Lines(path) as lines:
        lines.add(["one"])
        with pytest.raises(OSError, match=f"can't write to {path}: File too large"):
            lines.add(["x" * 600, "y" * 600])
        lines.add(["two"])
    with pytest.raises(OSError, match=f"can't write to {path}: File too large"):
        files.append(path, "z" * 1000 + "\n")
    files.append(path, "three\n")
    assert path.read_text() == "one\ntwo\nthree\n"


HOLD = """
import sys, time
from pathlib import Path
from model import files
with files.Lines(Path(sys.argv[1])) as lines:
    lines.add(["one"])
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_has_the_lines(tmp_path):
    """And none once it is killed, however."""
    path = tmp_path / "a"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(BlockingIOError, match=f"{path}: another alea is writing it"):
        files.Lines(path)
    other.kill()
    other.wait()
    with files.Lines(path) as lines:
        assert lines.read() == ["one"]
        with pytest.raises(BlockingIOError):
            files.Lines(path)
    files.Lines(path).close()


@pytest.mark.parametrize("again", [False, True])
def test_who_waited_too_long_opens_the_file_anew(tmp_path, monkeypatch, again):
    """Another process, done in the moment between opening and locking, has removed the file; a third has made it."""
    path, lock = tmp_path / "a", files.fcntl.flock
    made = []

    def flock(file, how):
        if not made:
            path.unlink()
            if again:
                path.touch()
        made.append(file)
        lock(file, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.Lines(path) as lines:
        lines.add(["one"])
    assert len(made) == 2 and path.read_text() == "one\n"


def test_what_took_its_place_meanwhile_is_not_removed(tmp_path):
    path = tmp_path / "a"
    lines = files.Lines(path)
    lines.add(["one"])
    path.rename(tmp_path / "b")
    lines.add(["two"])
    path.write_text("theirs")
    lines.remove()
    assert path.read_text() == "theirs" and (tmp_path / "b").read_text() == "one\ntwo\n"
