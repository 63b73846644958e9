# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for a condition instead of sleeping for a guess."""
import os
import time

# Sanitizer builds and busy machines are slower; every deadline is multiplied by this.
SLOW = float(os.environ.get("TANDEM_SLOW", "1"))


class Timeout(AssertionError):
    """A condition did not become true in time."""


def wait_until(condition, what, timeout=30.0, step=0.01):
    """Call condition until it is true and return its value.

    Exceptions of condition count as "not yet"; the last one is told. The deadline is timeout seconds times TANDEM_SLOW.
    """
    end = time.monotonic() + timeout * SLOW
    while True:
        error = value = None
        try:
            value = condition()
        except (OSError, AssertionError, ValueError, KeyError, IndexError) as e:
            error = e
        if value:
            return value
        if time.monotonic() > end:
            text = what() if callable(what) else what
            raise Timeout(f"not within {timeout * SLOW:g} s: {text}" + (f" ({error!r})" if error else f" (last: {value!r})"))
        time.sleep(step)
