"""A thread for everything that must happen in the same one."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class OneThread:
    """Runs functions one after the other in a thread of its own; with `here`, in the one that made it."""

    def __init__(self, *, here: bool = False) -> None:
        self._pool = None if here else ThreadPoolExecutor(max_workers=1, thread_name_prefix="chips")
        self._own = self._pool.submit(threading.get_ident).result() if self._pool else threading.get_ident()

    def submit(self, function: Callable, *arguments: Any) -> Future:
        """Let a function run."""
        if self._pool:
            return self._pool.submit(function, *arguments)
        done: Future = Future()
        done.set_result(self.call(function, *arguments))
        return done

    def call(self, function: Callable, *arguments: Any) -> Any:
        """What a function returns. May be called in the thread itself."""
        if threading.get_ident() == self._own:
            return function(*arguments)
        if self._pool is None:
            raise RuntimeError("what belongs to one thread was called in another")
        return self._pool.submit(function, *arguments).result()

    def shutdown(self) -> None:
        """End the thread, once all functions have returned."""
        if self._pool:
            self._pool.shutdown()
