"""Functions in fresh processes. Oracles: process ids, and the way in which each process ends."""

import os
import signal
from multiprocessing import forkserver

import pytest

from bench.loading import fresh_process
from bench.loading.fresh_process import in_fresh_process


@pytest.fixture(autouse=True, scope="module")
def nothing_to_preload():
    """The libraries, which these functions do not need, take seconds; what comes next may need them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh_process, "PRELOAD", ())
        yield
    forkserver._forkserver._stop()


def test_errors_come_back(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        in_fresh_process(os.listdir, tmp_path / "nowhere")
    for function, argument in ((os._exit, 3), (signal.raise_signal, signal.SIGKILL)):
        with pytest.raises(RuntimeError, match="the process that loads has died, as when memory runs out"):
            in_fresh_process(function, argument)


def test_processes_are_fresh():
    assert len({os.getpid(), in_fresh_process(os.getpid), in_fresh_process(os.getpid)}) == 3
