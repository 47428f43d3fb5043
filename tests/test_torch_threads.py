"""torch beside threads of our own: one each within, and as before in the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from featkit.torch_threads import limit_threads, one_thread_each


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def in_a_thread(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_threads_have_one_each_within() -> None:
    found: list[int] = []

    def work() -> None:
        limit_threads()
        found.append(torch.get_num_threads())

    with one_thread_each():
        work()
        in_a_thread(work)
        with one_thread_each():
            in_a_thread(work)
        in_a_thread(work)
    assert found == [1, 1, 1, 1]
    assert torch.get_num_threads() == 3
    work()
    in_a_thread(work)
    assert found[4:] == [3, 3]


def test_an_error_inside_changes_nothing_of_that() -> None:
    def fail() -> None:
        with one_thread_each():
            limit_threads()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert torch.get_num_threads() == 3


def test_what_does_not_use_torch_does_not_load_it() -> None:
    program = (
        "import sys; from featkit.torch_threads import one_thread_each\n"
        "with one_thread_each(): pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
