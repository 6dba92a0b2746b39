"""The C++ reads and writes nothing that is not its own, whatever it is given.

Oracle: the address and undefined-behaviour sanitizers; and, for the binding, that it raises instead of crashing.
"""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplers import SamplingParams, pack
from tests.conftest import ROOT, examples, require

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
ROWS = 1500


def flags() -> tuple[list[str], dict[str, list[str]]]:
    """What setup.py compiles with: for all files, and more for some."""
    names = {"os": None, "Path": Path}
    text = (ROOT / "setup.py").read_text()
    exec("\n".join(re.findall(r"^(?:FLAGS|AVX512|MORE) = .*$", text, re.MULTILINE)), names)
    return names["FLAGS"], names["MORE"]


@pytest.mark.exhaustive
def test_under_sanitizers(tmp_path: Path):
    common, more = flags()
    sources = [p for p in sorted((ROOT / "csrc").glob("*.cpp")) if p.stem != "bindings"]
    sources.append(Path(__file__).parent / "sanitized.cpp")
    objects = []
    for source in sources:
        extra = more.get(f"csrc/{source.name}", [])
        compiled = tmp_path / f"{source.stem}.o"
        options = [flag for flag in common if flag != "-O3"] + extra + SANITIZE
        command = ["g++", "-std=c++17", *options, f"-I{ROOT / 'csrc'}", "-c", str(source), "-o", str(compiled)]
        objects.append((compiled, command))
    program = tmp_path / "sanitized"
    try:
        for _, command in objects:
            subprocess.run(command, check=True, capture_output=True, text=True)
        link = ["g++", *SANITIZE, *(str(compiled) for compiled, _ in objects), "-o", str(program)]
        subprocess.run(link, check=True, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no compiler: {error}")
    except subprocess.CalledProcessError as error:
        if "asan" in error.stderr or "x86" in error.stderr:
            pytest.skip(f"no sanitizers here: {error.stderr[-300:]}")
        raise AssertionError(error.stderr) from None
    done = subprocess.run([str(program), str(ROWS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"generic {ROWS}" in done.stdout


def arrays() -> st.SearchStrategy[np.ndarray]:
    """Arrays of any type, shape and layout that a caller could mean as logits, seeds or anything."""
    dtypes = st.sampled_from(["f4", "f2", "f8", "i2", "i4", "i8", "u2", "u8", "?", "c8", "S3"])
    shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)

    def make(dtype: str, shape: tuple[int, ...], step: int, transposed: bool) -> np.ndarray:
        array = np.zeros(tuple(n * step for n in shape), dtype)[tuple(slice(None, None, step) for _ in shape)]
        return array.T if transposed else array

    return st.builds(make, dtypes, shapes, st.integers(1, 2), st.booleans())


ANYTHING = st.one_of(arrays(), st.none(), st.integers(-(2**70), 2**70), st.text(max_size=2), st.floats())


@pytest.mark.filterwarnings("ignore")
@examples(1500)
@given(data=st.data(), logits=ANYTHING)
def test_the_binding_refuses_what_does_not_fit(data, logits):
    """Whatever its arguments, the extension draws tokens of the vocabulary or raises a ValueError or TypeError."""
    require("native")
    from samplers import _native

    rows = data.draw(st.integers(0, 4))
    parameters = _native.Parameters(pack([SamplingParams(top_k=2, top_p=0.9)] * rows or None).table)
    seed, position, stream = (data.draw(st.one_of(st.just(1), st.none(), ANYTHING)) for _ in range(3))
    try:
        penalties = None
        if data.draw(st.booleans()):
            given = [data.draw(st.one_of(arrays(), st.none(), st.just(np.zeros(1, np.int64)))) for _ in range(7)]
            penalties = _native.Penalties(*given)
        tokens = _native.sample(logits, parameters, penalties, seed, position, stream, data.draw(st.booleans()), 2)[0]
        assert ((tokens >= -1) & (tokens < logits.shape[1])).all()
        filtered, _ = _native.filter_logits(logits, parameters, penalties, 1)
        assert filtered.shape == logits.shape
    except (TypeError, ValueError):
        pass
