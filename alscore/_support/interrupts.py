"""Ctrl-C, deferred until the running half-sweep is complete."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer the first Ctrl-C inside: the yielded function tells whether it came. A second Ctrl-C acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python delivers signals to the main thread alone
        return
    interrupted = False
    previous = signal.getsignal(signal.SIGINT)

    def note(signum: int, frame: Any) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, previous)

    if previous is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: interrupted
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, previous)
