"""A small pool of daemon threads for application code that blocks.

It grows on demand up to its limit and reuses idle threads; jobs beyond the limit wait in order, and whoever
submits one is told.
No thread exists before the first job, so a process that forks early forks with one thread.

`concurrent.futures` is no substitute: the interpreter joins its threads at exit, so a view in a
`while True` would keep the process from ever ending. Daemon threads are abandoned instead.

This module refuses to know what a job does.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

_log = logging.getLogger("devserver")

Job = Callable[[], None]


class Threads:
    """Runs jobs in at most `limit` daemon threads.

    Args:
        limit: the most threads there will ever be, at least 1.
        name: what the threads' names begin with; a number follows.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0

    def submit(self, job: Job) -> bool:
        """Have `job` called in one of the threads, soon and once; it should not raise.

        Returns whether there is a thread for it; else it waits until another job is over.
        """
        with self._lock:
            self._unfinished += 1
            waits = self._unfinished > self._limit
            grow = self._threads < min(self._unfinished, self._limit)
            if grow:
                self._threads += 1
                number = self._threads
        if grow:
            threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()
        self._jobs.put(job)
        return not waits

    def close(self) -> None:
        """Let every thread end once the jobs submitted so far are done; does not wait for it."""
        with self._lock:
            threads, self._threads = self._threads, 0
        for _ in range(threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException:
                # A job stands for user code, and SystemExit would end the thread without a word.
                _log.exception("A job failed in %s", threading.current_thread().name)
            # An idle thread must not keep the last request, and all it refers to, alive.
            del job
            with self._lock:
                self._unfinished -= 1
