"""Single requests become batches: whoever waits is computed together, at most so many, after at most so long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class BusyError(Exception):
    """More is waiting than may wait."""


@dataclass
class Batcher(Generic[Item, Answer]):
    """Hands what is submitted to ``compute`` in batches, one batch at a time, in a thread of its own.

    Args:
        compute: maps a list of items to as many answers.
        largest: items in a batch, at most.
        patience: seconds that the first of a batch waits for others.
        waiting: items that may wait; one more is refused with :class:`BusyError`.
    """

    compute: Callable[[list[Item]], Sequence[Answer]]
    largest: int = 16
    patience: float = 0.005
    waiting: int = 256
    batches: int = 0
    items: int = 0
    _queue: asyncio.Queue[tuple[Item, asyncio.Future[Answer]]] = field(init=False, repr=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False, repr=False)
    _thread: ThreadPoolExecutor = field(init=False, repr=False)

    async def __aenter__(self) -> Batcher[Item, Answer]:
        self._queue = asyncio.Queue(self.waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xcit-hub-network")
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def submit(self, item: Item) -> Answer:
        """Wait for the item's answer.

        Raises:
            BusyError: the queue is full.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((item, answer))
        except asyncio.QueueFull:
            raise BusyError from None
        return await answer

    async def _serve(self) -> None:
        while True:
            taken = [await self._queue.get()]
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                deadline = asyncio.get_running_loop().time() + self.patience
                while len(taken) < self.largest:
                    left = max(deadline - asyncio.get_running_loop().time(), 0)
                    taken.append(await asyncio.wait_for(self._queue.get(), left))
            await self._answer([(item, answer) for item, answer in taken if not answer.cancelled()])

    async def _answer(self, taken: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        if not taken:
            return
        self.batches += 1
        self.items += len(taken)
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self.compute, [item for item, _ in taken])
        except Exception as error:
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), value in zip(taken, answers, strict=True):
            if not answer.done():
                answer.set_result(value)
