"""How to install the optional packages, for the messages about missing ones."""


def how_to_install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml.

    >>> how_to_install("study")
    "pip install 'alea-sampling[study]' (in a checkout: pip install -e '.[study]')"
    """
    return f"pip install 'alea-sampling[{extra}]' (in a checkout: pip install -e '.[{extra}]')"
