"""Where units run: in worker processes of one thread each, or in this process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from loky import ProcessPoolExecutor

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""With small networks two threads in one process are many times slower than one."""


class Slot(Protocol):
    """A place where one unit runs at a time."""

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future:
        """Start a unit."""

    def kill(self) -> None:
        """End the running unit, whatever it does; the slot can be used again."""

    def close(self) -> None:
        """End the slot."""


class WorkerProcess:
    """A slot in a process of its own: a unit that hangs, crashes or eats the memory takes nothing else with it."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future:
        """Start a unit; the process is made on first use and kept for the next unit."""
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                max_workers=1, env=ONE_THREAD, initializer=_die_with_parent, initargs=(os.getpid(),)
            )
        future: Future = self._executor.submit(function, *arguments)
        return future

    def kill(self) -> None:
        """Kill the process."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def close(self) -> None:
        """Kill the process: a slot is closed when it is idle, or when all is to end."""
        self.kill()


class InThisProcess:
    """A slot in the calling process: for debugging and tests. A unit that hangs cannot be ended."""

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future:
        """Run a unit to its end."""
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # the caller reads it from the future, as with a process
            future.set_exception(error)
        return future

    def kill(self) -> None:
        """Nothing runs any more."""

    def close(self) -> None:
        """Nothing to end."""


def _die_with_parent(parent: int) -> None:
    """End this worker when the process that made it is gone, so that a killed run leaves nobody behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
