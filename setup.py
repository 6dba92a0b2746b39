"""Builds the optional C++ backend; everything else stands in pyproject.toml.

With no compiler the package installs without it, and `samplers.backends()` says so.
ALEA_REQUIRE_NATIVE=1 makes a failed build fatal.
"""

import os
import platform
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

REQUIRED = os.environ.get("ALEA_REQUIRE_NATIVE") == "1"
# -ffp-contract=off: a fused multiply-add would round once where the definition rounds twice.
FLAGS = ["-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
MORE = {"csrc/passes_avx2.cpp": ["-mavx2"], "csrc/passes_avx512.cpp": AVX512}  # for one file each


class OptionalBuild(build_ext):
    def build_extension(self, ext):
        compile_one, is_x86 = self.compiler._compile, platform.machine() in ("x86_64", "AMD64")

        def compile_with_more(obj, src, ext, cc_args, flags, pp_opts):
            compile_one(obj, src, ext, cc_args, flags + (MORE.get(src, []) if is_x86 else []), pp_opts)

        self.compiler._compile = compile_with_more
        try:
            super().build_extension(ext)
        except Exception as error:
            if REQUIRED:
                raise
            print(f"alea: the native backend was not built: {error}", file=sys.stderr)


sources, headers = (sorted(map(str, Path("csrc").glob(pattern))) for pattern in ("*.cpp", "*.h"))
extension = Pybind11Extension("samplers._native", sources, depends=headers, cxx_std=17, extra_compile_args=FLAGS)
setup(ext_modules=[extension], cmdclass={"build_ext": OptionalBuild})
