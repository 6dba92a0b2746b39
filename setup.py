"""Builds the optional C++ backend; everything else stands in pyproject.toml.

With no compiler the package installs without it, and `samplers.backends()` says so.
ALEA_REQUIRE_NATIVE=1 makes a failed build fatal.
"""

import os
import platform
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

# -ffp-contract=off: nothing is fused but what is written as fma.
FLAGS = ["-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
MORE = {"avx2": ["-mavx2", "-mfma"], "avx512": AVX512}  # for the files whose names end so


class BuildWithFlagsByFile(build_ext):
    def build_extension(self, ext):
        compile_one, is_x86 = self.compiler._compile, platform.machine() in ("x86_64", "AMD64")

        def compile_with_more(obj, src, ext, cc_args, flags, pp_opts):
            compile_one(
                obj, src, ext, cc_args, flags + (MORE.get(Path(src).stem.split("_")[-1], []) if is_x86 else []), pp_opts
            )

        self.compiler._compile = compile_with_more
        super().build_extension(ext)


def extension(name, folder):
    """Every .cpp of a folder as one module; the headers of the others may be included."""
    return Pybind11Extension(
        name,
        sorted(map(str, Path(folder).glob("*.cpp"))),
        depends=sorted(map(str, Path("csrc").rglob("*.h"))),
        cxx_std=17,
        extra_compile_args=FLAGS,
        optional=os.environ.get("ALEA_REQUIRE_NATIVE") != "1",
    )


setup(
    ext_modules=[extension("samplers._native", "csrc"), extension("model._native", "csrc/model")],
    cmdclass={"build_ext": BuildWithFlagsByFile},
)
