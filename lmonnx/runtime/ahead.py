"""Items made in another thread while the one before is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")

#: Seconds between looks whether anybody still wants the next item.
_LOOK = 0.1


class _End(Generic[_T]):
    """Behind the last item: the error that ended them, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[_T]) -> Iterator[_T]:
    """The items of ``items``, each made while its predecessor is used; two are in memory beside that one, at most.

    An error is raised where its item would have been. When the iterator is closed, ``items`` is left where it is.
    """
    ready: queue.Queue[_T | _End[_T]] = queue.Queue(maxsize=1)
    unwanted = threading.Event()

    def put(item: _T | _End[_T]) -> bool:
        while not unwanted.is_set():
            try:
                ready.put(item, timeout=_LOOK)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:
            put(_End(error))
        else:
            put(_End(None))

    threading.Thread(target=make, name="lmonnx-ahead", daemon=True).start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
