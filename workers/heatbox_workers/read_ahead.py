"""Reading ahead: pictures are fetched and decoded in threads while the network works on those before."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["read_ahead"]

_READERS = 4  # a picture that comes over the network is waited for
_LEAST_AHEAD = 8  # pictures, however small the batches are

Asked = TypeVar("Asked")
Read = TypeVar("Read")


def read_ahead(
    read: Callable[[Asked], Read],
    asked: Iterable[Asked],
    size: int,
    waited: Callable[[float], object],
) -> Iterator[list[Read]]:
    """Yield what was read in batches, in order, while a few threads read what comes next.

    Who leaves early waits for nothing that is being read.

    Args:
        read: called in threads.
        asked: what is read.
        size: of a batch.
        waited: called with the seconds for which each batch was waited for.
    """
    remaining = iter(asked)
    ahead: deque[Future[Read]] = deque()
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
    try:
        while True:
            more = max(2 * size, _LEAST_AHEAD) - len(ahead)  # one batch is used while the next is read
            ahead.extend(pool.submit(read, one) for one in islice(remaining, more))
            if not ahead:
                return
            began = time.monotonic()
            batch = [ahead.popleft().result() for _ in range(min(size, len(ahead)))]
            waited(time.monotonic() - began)
            yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
