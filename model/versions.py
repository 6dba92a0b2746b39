"""Versions of installed packages, including this project."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "alea-sampling"  # this project's name on the package index, where `alea` is another project


def installed(package: str) -> str | None:
    """Its version; None where it is not installed.

    >>> installed("no-such-package")
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None
