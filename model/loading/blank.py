"""Modules without values yet, for weights that are about to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class WithoutFirstValues(TorchFunctionMode):
    """Leaves every tensor that `torch.nn.init` would fill as it is.

    Not for the time of filling: on the meta device that makes torch import its compiler, a second at every start.
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
    """What is made within has shapes and no values: it lies on the meta device.

    >>> with blank():
    ...     layer = torch.nn.Linear(3, 2)
    >>> layer.weight.device, layer.weight.shape
    (device(type='meta'), torch.Size([2, 3]))
    """
    with torch.device("meta"), WithoutFirstValues():
        yield
