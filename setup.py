"""Builds the optional C++ backend; everything else stands in pyproject.toml.

With no compiler the package installs without it, and `samplers.backends()` says so.
ALEA_REQUIRE_NATIVE=1 makes a failed build fatal.
"""

import os
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

REQUIRED = os.environ.get("ALEA_REQUIRE_NATIVE") == "1"
# -ffp-contract=off: a fused multiply-add would round once where the definition rounds twice.
FLAGS = ["-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall"]


class OptionalBuild(build_ext):
    def run(self):
        try:
            super().run()
        except Exception as error:
            if REQUIRED:
                raise
            print(f"alea: the native backend was not built: {error}", file=sys.stderr)

    def build_extension(self, ext):
        ext.optional = not REQUIRED
        super().build_extension(ext)


sources = ["csrc/bindings.cpp"]
headers = sorted(str(path) for path in Path("csrc").glob("*.h"))
extension = Pybind11Extension("samplers._native", sources, depends=headers, cxx_std=17, extra_compile_args=FLAGS)
setup(ext_modules=[extension], cmdclass={"build_ext": OptionalBuild})
