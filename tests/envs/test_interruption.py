import signal
import time
import weakref

import pytest

from envs.interruption import interruptible


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_raises_and_names_the_exit_code(number):
    before = signal.getsignal(number)
    with interruptible() as interruption, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert interruption.exit_code == 128 + number
    assert signal.getsignal(number) is before


class Freed:
    def __del__(self):
        _come()


def _come(*_):
    signal.raise_signal(signal.SIGTERM)
    sum(range(10))


def test_a_signal_that_comes_while_an_object_is_freed_is_not_lost():
    with interruptible() as interruption, pytest.raises(KeyboardInterrupt):
        freed = Freed()
        del freed
        time.sleep(10.0)
    assert interruption.exit_code == 128 + signal.SIGTERM


def test_a_signal_that_comes_in_a_callback_of_a_weak_reference_is_not_lost():
    with interruptible(), pytest.raises(KeyboardInterrupt):
        kept = weakref.finalize(target := type("Target", (), {})(), _come)
        del target
        assert not kept.alive
        time.sleep(10.0)
