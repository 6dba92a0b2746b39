"""The commands of `alea`. A command's module is imported only when the command is chosen."""

from __future__ import annotations

import argparse
import importlib
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """A parser that imports its command's module when it is asked to parse.

    module: has add_arguments(parser) and run(arguments) -> exit status.
    """

    def __init__(self, *args: Any, module: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.module = module

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.module:
            command = importlib.import_module(self.module)
            self.module = ""
            command.add_arguments(self)
            self.set_defaults(run=command.run)
        return super().parse_known_args(args, namespace)
