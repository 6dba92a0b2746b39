"""The C++ reads and writes nothing that is not its own, whatever it is given.

Oracle: the address and undefined-behaviour sanitizers; and, for the binding, that it raises instead of crashing.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplers import SamplingParams, pack
from tests.conftest import ROOT, examples, require
from tests.sanitizers import run_sanitized

ROWS = 1500


@pytest.mark.exhaustive
def test_under_sanitizers(tmp_path: Path):
    sources = [p for p in sorted((ROOT / "csrc").glob("*.cpp")) if p.stem != "bindings"]
    output = run_sanitized(tmp_path, [*sources, Path(__file__).parent / "sanitized.cpp"], ROWS)
    assert f"generic {ROWS}" in output


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
@examples(600)
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


SHORT_OF_MEMORY = """
import resource, torch
from samplers import SamplingParams, sample

torch.set_num_threads(4)
rows, params = torch.randn(1, 1 << 20).half().expand(24, -1), SamplingParams(typical_p=0.9)
sample(torch.randn(64, 8192), params, seed=1)  # makes the threads
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (30 << 20),) * 2)
try:
    sample(rows, params, seed=1)
except MemoryError:
    print("refused")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the size of the process")
def test_memory_that_a_thread_does_not_get():
    """The caller gets the error of any thread; the process lives on."""
    require("native")
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "100000"}
    command = [sys.executable, "-c", SHORT_OF_MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | malloc, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")
