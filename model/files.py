"""Files that are written whole or not at all, and files that grow line by line and survive an interruption.

Files named by a user follow these rules. A new file appears when it is complete. An existing file is replaced only if
the user says so. A link is followed. A pipe or a device is written to directly.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no flock: there two processes may write one file
    fcntl = None  # type: ignore[assignment]


def check(path: Path, option: str, overwrite: bool = False) -> None:
    """Refuse a file that `write` would refuse, before any work is done.

    option: of the command, for the error.
    Raises: FileExistsError, IsADirectoryError or FileNotFoundError naming option and path.
    """
    folder = Path(os.path.realpath(path)).parent
    if path.is_dir():
        raise IsADirectoryError(f"{option} must be a file, got the folder {path}")
    if not path.exists() and not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; {option} {path} needs one that exists")
    if path.exists() and not (overwrite or is_stream(path)):
        raise already_exists(path, option)


def write(path: Path, data: str | bytes, option: str, overwrite: bool = False) -> None:
    """Write a file that a user named, whole or not at all.

    Raises: as `check`, even if the file was created since; OSError naming the path if it can't be written.
    """
    check(path, option, overwrite)
    if is_stream(path):
        with naming(path), stream(path) as file:
            write_all(file, encoded(data))
    elif overwrite:
        replace(path, data)
    else:
        with naming(path), temporary_file(path, data) as complete:
            try:
                give_name(complete, Path(os.path.realpath(path)))
            except FileExistsError:
                raise already_exists(path, option) from None


def already_exists(path: Path, option: str) -> FileExistsError:
    return FileExistsError(f"{option} must be a new file, got {path}, which already exists: --overwrite replaces it")


def replace(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all, whether it exists or not; its permissions stay."""
    with naming(path), temporary_file(path, data) as complete:
        if path.exists():
            shutil.copymode(path, complete)
        complete.replace(os.path.realpath(path))


@contextmanager
def temporary_file(path: Path, data: str | bytes) -> Iterator[Path]:
    """A complete file in the same folder, under a temporary name."""
    temporary = Path(os.path.realpath(path)).with_name(f".alea-{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as file:
            file.write(encoded(data))
            file.flush()
            os.fsync(file.fileno())  # else its name could reach the disk before its content
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def give_name(complete: Path, name: Path) -> None:
    """Raises: FileExistsError if another file has the name, which rename would replace."""
    try:
        os.link(complete, name)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # a file system without links
        name.touch(exist_ok=False)
        complete.replace(name)


# Pipes and devices.


def is_stream(path: Path) -> bool:
    """Whether the path is a pipe, a device, or a file that this process has open."""
    return path.exists() and (not stat.S_ISREG(path.stat().st_mode) or descriptor(path) is not None)


def stream(path: Path) -> BinaryIO:
    """Open a pipe, a device or an open file for unbuffered writing."""
    number = descriptor(path)
    return path.open("wb", 0) if number is None else os.fdopen(os.dup(number), "wb", 0)


def descriptor(path: Path) -> int | None:
    """The number of the open file behind /dev/stdout, /dev/fd/N or a link to them; None for other paths.

    >>> descriptor(Path("/dev/fd/1")), descriptor(Path("files.py"))
    (1, None)
    """
    folder = Path(os.path.realpath(path.parent))
    if path.name.isdecimal() and str(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
        return int(path.name)
    return descriptor(folder / path.readlink()) if path.is_symlink() else None


# Files that grow.


class Lines:
    """A file of lines, open to one process at a time. If it is empty when closed, it is removed.

    Raises: BlockingIOError naming the path if another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = locked(path)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> list[str]:
        """The complete lines."""
        self.file.seek(0)
        return complete_lines(self.path, self.file.read())

    def keep(self, lines: Sequence[str]) -> None:
        """Cut the file after these, its first lines."""
        self.file.truncate(sum(len(line.encode()) + 1 for line in lines))

    def add(self, lines: Iterable[str]) -> None:
        """All of them or none."""
        with naming(self.path):
            add_all(self.file, "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        if not self.file.closed and size(self.file) == 0:
            self.remove()
        self.file.close()

    def remove(self) -> None:
        """Remove the file, unless another process has replaced it."""
        if is_at(self.file, self.path):
            if fcntl is None:
                self.file.close()  # Windows removes no open file
            self.path.unlink()
        self.file.close()


def locked(path: Path) -> BinaryIO:
    """The file, created if missing, open to this process alone until it is closed or the process ends."""
    while True:
        with naming(path):
            file = path.open("a+b", 0)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BlockingIOError(f"{path}: another alea is writing it") from None
        except OSError:  # a file system without locks
            pass
        if is_at(file, path):
            return file
        file.close()  # the former owner of the lock removed the file after it was opened here


def is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def append(path: Path, lines: str) -> None:
    """Add lines at the end, all or none."""
    with naming(path), path.open("ab", 0) as file:
        add_all(file, lines)


def add_all(file: BinaryIO, text: str) -> None:
    before = size(file)
    try:
        write_all(file, encoded(text))
    except BaseException:
        file.truncate(before)
        raise


def size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def whole_lines(path: Path) -> list[str]:
    """The complete lines. The rest was cut off while it was written."""
    return complete_lines(path, path.read_bytes()) if path.exists() else []


def complete_lines(path: Path, data: bytes) -> list[str]:
    try:
        return [line.decode() for line in data.split(b"\n")[:-1]]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text ({error})") from None


# Shared.


def encoded(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def write_all(file: BinaryIO, data: bytes) -> None:
    """To an unbuffered file, which may accept only a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the path in system errors."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"can't write to {path}: {error.strerror}" if error.strerror else str(error)) from None


def differences(old: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings that differ from those wanted, in words; "" if none.

    >>> differences({"seed": 5, "top_p": 0.9}, {"seed": 6, "top_p": 0.9})
    'seed is 5, not 6'
    """
    changes = [
        f"{name} is {old.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted(old.keys() | wanted.keys())
        if old.get(name) != wanted.get(name)
    ]
    return "; ".join(changes)
