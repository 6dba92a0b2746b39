"""A process is forked while its threads sample. Oracle for the child's draws: those of its parent."""

import faulthandler
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from samplers import SamplingParams, filter_logits, sample

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

ROWS = torch.randn(16, 32000, generator=torch.Generator().manual_seed(0))  # enough for the threads of the C++ backend
ROW = ROWS[:1, :500]
SECONDS = 20  # in which a child must have sampled
RIGHT, WRONG, RAISED = 0, 2, 3  # how a child ends; 1: it hung


def draws() -> list[Any]:
    """Every way through a call, with parameters that no other call has laid out."""
    p = SamplingParams(top_k=5)
    changed = SamplingParams(repetition_penalty=1.3, frequency_penalty=0.1, logit_bias={1: 2.0})
    changes: dict[str, Any] = dict(history=[[1, 2, 3]], allowed=np.arange(500) % 3 > 0)
    outputs = [
        sample(ROW, p, seed=1),
        sample(ROWS, p, seed=1),
        sample(ROW, changed, seed=1, **changes),
        sample(ROW.numpy(), changed, seed=1, **changes, backend="reference"),
    ]
    return [out.tokens.tolist() for out in outputs] + [filter_logits(ROW, p).argmax(-1).tolist()]


@pytest.fixture
def sampling_threads() -> Iterator[None]:
    """Four of them. Python switches between them as often as it can, so that a fork finds them anywhere in a call."""
    stop, threads, interval = threading.Event(), torch.get_num_threads(), sys.getswitchinterval()

    def run() -> None:
        while not stop.is_set():
            draws()

    torch.set_num_threads(2)
    sys.setswitchinterval(1e-5)
    workers = [threading.Thread(target=run) for _ in range(4)]
    for worker in workers:
        worker.start()
    yield
    stop.set()
    for worker in workers:
        worker.join()
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("forks", [10, pytest.param(300, marks=pytest.mark.exhaustive)])
def test_forked_while_other_threads_sample(sampling_threads: None, forks: int):
    """A lock that a thread holds at the fork stays locked in the child; so sampling may wait for none."""
    expected = draws()
    for _ in range(forks):
        child = os.fork()
        if child == 0:
            end_as_child(expected)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == RIGHT


def end_as_child(expected: list[Any]) -> NoReturn:
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=2)  # ends a child that hangs, and shows where
    code = RAISED
    try:
        code = RIGHT if draws() == expected else WRONG
    finally:
        os._exit(code)


@pytest.mark.exhaustive
def test_a_first_sample_imports_nothing():
    """A module's lock would stay locked in a child that is forked meanwhile."""
    code = """
import sys, torch, samplers
known = set(sys.modules)
samplers.sample(torch.zeros(4, 9), samplers.SamplingParams(top_k=3), seed=0)
print(*set(sys.modules) - known)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
