"""Maps a function over many items in this process or in several, in order and with flat memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.errors import DataError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 8  # items that travel together: a message costs about as much as a fifth of a file
_AHEAD = 3  # chunks per process that are under way or wait to be taken

_function: Callable[[Any], Any]  # what a worker process was started for


def map_in_order(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Generator[Result, None, None]:
    """Yield ``function(item)`` in the order of the items.

    With several processes only a few chunks of items per process are ever under way, so what is held does not grow
    with the number of items, also when the results are taken slowly.

    Args:
        function: Picklable if there are several processes.
        items: Small; each is picklable if there are several processes.
        jobs: Number of processes; 1 works in this one.

    Raises:
        DataError: A process died.
        UsageError: ``jobs`` is not positive.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; expected at least 1")
    keep_freed_memory()
    if jobs == 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(jobs, initializer=_start, initargs=(function,))
    pending: deque[Future[list[Result]]] = deque()
    try:
        for chunk in _chunks(items):
            pending.append(pool.submit(_work, chunk))
            if len(pending) == _AHEAD * jobs:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(f"a reading process died (out of memory?); try fewer than --jobs {jobs}") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends them in order
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a killed parent leaves its workers waiting for ever: they hold the queue open for one another
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(chunk: list[Any]) -> list[Any]:
    return [_function(item) for item in chunk]
