"""The optional packages, and what a message of a missing one says to type."""


def how_to_install(extra: str) -> str:
    """What to type for one of the extras of pyproject.toml.

    >>> how_to_install("study")
    "pip install 'alea-sampling[study]' (in a checkout: pip install -e '.[study]')"
    """
    return f"pip install 'alea-sampling[{extra}]' (in a checkout: pip install -e '.[{extra}]')"
