"""`functools.cached_property` without a lock, as in Python 3.12.

Earlier versions take a lock that all instances share. If a process forks while a thread holds it, the child waits for
it forever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801
    """A method that becomes an attribute when it is first read.

    Threads that read it at the same time may each compute the value; one result is kept.

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
        value = instance.__dict__[self.name] = self.compute(
            instance
        )  # from now on, Python finds this before the method
        return value
