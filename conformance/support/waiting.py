"""Waits for a state, never for a time: a deadline only ends what would go on for ever."""

import time

DEADLINE = 90


def until(what, condition, deadline=DEADLINE, every=0.1):
    """The first true value of `condition()`; `what` says in the failure what did not come."""
    end = time.monotonic() + deadline
    last = None
    while time.monotonic() < end:
        last = condition()
        if last:
            return last
        time.sleep(every)
    raise AssertionError(f"{what}: not within {deadline} s; last seen: {last!r}")
