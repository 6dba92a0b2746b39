"""The library that parses, an optional package: imported at its first use."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from samplers.extras import how_to_install


@functools.cache
def library(name: str = "llguidance") -> Any:
    """llguidance, or a module of it. Raises: ImportError saying how to install it."""
    try:
        return import_module(name)
    except ImportError:
        raise ImportError(f"a grammar needs llguidance: {how_to_install('grammar')}") from None
