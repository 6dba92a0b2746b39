"""Files that are written whole or not at all, and files that grow line by line and survive being cut off.

What a user names follows one rule. A new file appears when it is complete. A file that is there already is replaced
only where the user says so. A link is followed. A pipe or a device is written to as it is.
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
except ImportError:  # Windows has no flock: nothing keeps two processes apart there
    fcntl = None  # type: ignore[assignment]


def check(path: Path, option: str, overwrite: bool = False) -> None:
    """Refuse, before the work that fills it, a file that `write` would refuse.

    option: the command's option that names the file, for the error.
    Raises: FileExistsError, IsADirectoryError or FileNotFoundError naming option and path.
    """
    folder = Path(os.path.realpath(path)).parent
    if path.is_dir():
        raise IsADirectoryError(f"{option} must be a file, got the folder {path}")
    if not path.exists() and not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; {option} {path} needs one that exists")
    if path.exists() and not (overwrite or is_stream(path)):
        raise is_there(path, option)


def write(path: Path, data: str | bytes, option: str, overwrite: bool = False) -> None:
    """Write a file that a user named, whole or not at all.

    Raises: as `check`, also where the file has come to be since; OSError naming the path where it can't be written.
    """
    check(path, option, overwrite)
    if is_stream(path):
        with naming(path), stream(path) as file:
            write_all(file, encoded(data))
    elif overwrite:
        replace(path, data)
    else:
        with naming(path), written_beside(path, data) as complete:
            try:
                give_name(complete, Path(os.path.realpath(path)))
            except FileExistsError:
                raise is_there(path, option) from None


def is_there(path: Path, option: str) -> FileExistsError:
    return FileExistsError(f"{option} must be a new file, got {path}, which is there already: --overwrite replaces it")


def replace(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all, whether it is there or not; its permissions stay."""
    with naming(path), written_beside(path, data) as complete:
        if path.exists():
            shutil.copymode(path, complete)
        complete.replace(os.path.realpath(path))


@contextmanager
def written_beside(path: Path, data: str | bytes) -> Iterator[Path]:
    """A complete file in the folder of path, under a name that lasts as long as the context."""
    beside = Path(os.path.realpath(path)).with_name(f".alea-{os.urandom(4).hex()}")
    try:
        with beside.open("xb") as file:
            file.write(encoded(data))
            file.flush()
            os.fsync(file.fileno())  # else its name could reach the disk before what is in it
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def give_name(complete: Path, name: Path) -> None:
    """Raises: FileExistsError where another file has the name; rename would replace it."""
    try:
        os.link(complete, name)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # links are not for every file system
        name.touch(exist_ok=False)
        complete.replace(name)


# What is written to as it is.


def is_stream(path: Path) -> bool:
    """Whether the path is there and no file to replace: a pipe, a device, or what the process has open already."""
    return path.exists() and (not stat.S_ISREG(path.stat().st_mode) or descriptor(path) is not None)


def stream(path: Path) -> BinaryIO:
    """A pipe, a device or an open file, to write to without a buffer."""
    number = descriptor(path)
    return path.open("wb", 0) if number is None else os.fdopen(os.dup(number), "wb", 0)


def descriptor(path: Path) -> int | None:
    """The number of the open file that /dev/stdout, /dev/fd/N or a link to them stands for; None for other paths.

    >>> descriptor(Path("/dev/fd/1")), descriptor(Path("files.py"))
    (1, None)
    """
    folder = Path(os.path.realpath(path.parent))
    if path.name.isdecimal() and str(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
        return int(path.name)
    return descriptor(folder / path.readlink()) if path.is_symlink() else None


# What grows.


class Lines:
    """A file of lines that one process at a time opens and adds to. Closed without a line, it is removed.

    Raises: BlockingIOError naming the path where another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = locked(path)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> list[str]:
        """The lines that end."""
        self.file.seek(0)
        return ended(self.path, self.file.read())

    def keep(self, lines: Sequence[str]) -> None:
        """Cut off what follows these, the first of the file."""
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
        """Not what another process has put in its place meanwhile."""
        if is_at(self.file, self.path):
            if fcntl is None:
                self.file.close()  # Windows removes no open file
            self.path.unlink()
        self.file.close()


def locked(path: Path) -> BinaryIO:
    """The file, made where it is missing, open to this process alone until it is closed, or the process ends."""
    while True:
        with naming(path):
            file = path.open("a+b", 0)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BlockingIOError(f"{path}: another alea is writing it") from None
        except OSError:  # locks are not for every file system
            pass
        if is_at(file, path):
            return file
        file.close()  # who had the lock has removed the file since it was opened


def is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def append(path: Path, lines: str) -> None:
    """Add whole lines at the end, all or none."""
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
    """The lines that end; what follows the last end was cut off while it was written."""
    return ended(path, path.read_bytes()) if path.exists() else []


def ended(path: Path, data: bytes) -> list[str]:
    try:
        return [line.decode() for line in data.split(b"\n")[:-1]]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text ({error})") from None


# What they share.


def encoded(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def write_all(file: BinaryIO, data: bytes) -> None:
    """To a file without a buffer, which may take less at a time than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system tells which file it is about."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"can't write to {path}: {error.strerror}" if error.strerror else str(error)) from None


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In which settings what is there is of another run than the one wanted, in words; "" where in none.

    >>> differences({"seed": 5, "top_p": 0.9}, {"seed": 6, "top_p": 0.9})
    'seed is 5, not 6'
    """
    changes = [
        f"{name} is {there.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted(there.keys() | wanted.keys())
        if there.get(name) != wanted.get(name)
    ]
    return "; ".join(changes)
