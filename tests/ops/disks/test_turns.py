"""The switch interval of the interpreter is short while disks are looked for, and as before afterwards."""

import sys
import threading

import pytest

from stemstore.ops.disks.turns import INTERVAL, short_turns


def test_the_last_one_puts_it_back():
    """Threads may come and go in any order, and errors change nothing."""
    before = sys.getswitchinterval()
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with short_turns():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=stay)

    def fail():
        with short_turns():
            other.start()
            assert inside.wait(10)
            assert sys.getswitchinterval() == pytest.approx(INTERVAL)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sys.getswitchinterval() == pytest.approx(INTERVAL)
    leave.set()
    other.join()
    assert sys.getswitchinterval() == before


def test_a_shorter_one_stays():
    """Who asked for shorter turns keeps them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(INTERVAL / 5)
    try:
        with short_turns():
            assert sys.getswitchinterval() == pytest.approx(INTERVAL / 5)
        assert sys.getswitchinterval() == pytest.approx(INTERVAL / 5)
    finally:
        sys.setswitchinterval(before)
