"""Triton's interpreter, made several times faster: it prepares triton.language anew at each call of a function."""

from triton.runtime import interpreter

prepared: set[str] = set()


def patch_once() -> None:
    """Once for each of Triton's own modules is enough; for ours, the launch of their kernel has done it."""
    interpreter.InterpretedFunction.__call__ = call


def call(function, *arguments, **keywords):
    module = function.fn.__module__
    if module.startswith("triton.") and module not in prepared:
        prepared.add(module)
        interpreter._patch_lang(function.fn)
    return function.rewrite()(*arguments, **keywords)
