"""Versions of what is installed, this project's own among them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "alea-sampling"  # this project on the package index, where `alea` is somebody else's


def installed(package: str) -> str | None:
    """Its version; None where it is not installed.

    >>> installed("no-such-package")
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None
