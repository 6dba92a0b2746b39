"""`functools.cached_property` as it is from Python 3.12 on: before, it takes a lock that all instances share.

A process may be forked while one of its threads holds that lock, and then the child waits for it for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801
    """A method that becomes an attribute when it is first read.

    Threads that read it at the same time may each compute it; one result stays.

    >>> class Row:
    ...     @cached_property
    ...     def total(self):
    ...         print("computed")
    ...         return 3
    >>> row = Row()
    >>> row.total, row.total
    computed
    (3, 3)
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, instance: Any, owner: type) -> T:
        value = instance.__dict__[self.name] = self.compute(instance)  # found before this method from now on
        return value
