"""Functions in processes of their own. Oracles: process ids, and how each process was told to end."""

import os
import signal

import pytest

from bench.loading.fresh_process import in_fresh_process, interrupts_after


def test_a_failure_in_the_process_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"FileNotFoundError: .*nowhere"):
        in_fresh_process(os.listdir, tmp_path / "nowhere")
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        in_fresh_process(os._exit, 3)
    with pytest.raises(RuntimeError, match="ended with exit code -9, as when memory runs out"):
        in_fresh_process(signal.raise_signal, signal.SIGKILL)


def test_processes_are_fresh():
    assert len({os.getpid(), in_fresh_process(os.getpid), in_fresh_process(os.getpid)}) == 3


def test_a_ctrl_c_while_a_process_starts_waits_for_it():
    before, after = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), interrupts_after():
        signal.raise_signal(signal.SIGINT)
        after.append("started")
    assert after == ["started"] and signal.getsignal(signal.SIGINT) is before
