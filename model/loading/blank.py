"""Modules without values, to be filled with weights that are read afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class WithoutFirstValues(TorchFunctionMode):
    """Turns the functions of `torch.nn.init` off.

    On the meta device they would import torch's compiler, which takes about a second at start-up.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@contextmanager
def blank() -> Iterator[None]:
    """Modules made in this context have shapes but no values: they are on the meta device.

    >>> with blank():
    ...     layer = torch.nn.Linear(3, 2)
    >>> layer.weight.device, layer.weight.shape
    (device(type='meta'), torch.Size([2, 3]))
    """
    with torch.device("meta"), WithoutFirstValues():
        yield
