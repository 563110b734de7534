"""Fits that take turns of a few steps in one process, so that what else the machine does falls on all of them alike."""

import threading
import time
from collections.abc import Callable, Mapping

import lightning as L

STEPS = 8
"""In a turn; the first one, which finds the caches of another fit, is not counted."""


class Turns:
    """Passes the turn on, and keeps how much of the processor's time steps took, in their thread.

    Args:
        names: of the fits.

    Attributes:
        seconds: of each fit's steps.
    """

    def __init__(self, names: list[str]) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self._names = list(names)
        self._go = {name: threading.Semaphore(0) for name in names}
        self._steps = dict.fromkeys(names, 0)
        self._since: dict[str, float] = {}
        self._errors: list[BaseException] = []

    def run(self, fits: Mapping[str, Callable[[], None]]) -> None:
        """Run all fits to their ends."""
        threads = [threading.Thread(target=self._take_part, args=item) for item in fits.items()]
        for thread in threads:
            thread.start()
        self._go[self._names[0]].release()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def epoch_begins(self, name: str) -> None:
        """What lies between two epochs is no part of a step."""
        self._since.pop(name, None)

    def step_ended(self, name: str) -> None:
        """To be called at the end of each step of a fit; returns when it is its turn again."""
        now = time.thread_time()
        if name in self._since:
            self.seconds[name].append(now - self._since.pop(name))
        self._steps[name] += 1
        if self._steps[name] % STEPS:
            self._since[name] = time.thread_time()
            return
        after = self._names[(self._names.index(name) + 1) % len(self._names)]
        self._go[after].release()
        self._go[name].acquire()

    def _take_part(self, name: str, fit: Callable[[], None]) -> None:
        self._go[name].acquire()
        try:
            fit()
        except BaseException as error:
            self._errors.append(error)
        finally:
            after = self._names[(self._names.index(name) + 1) % len(self._names)]
            self._names.remove(name)
            self._go[after].release()


class Turn(L.Callback):
    """Lets a fit take part: a step of training is from the end of the one before to its own end.

    Args:
        name: of the fit.
    """

    turns: Turns

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.turns.epoch_begins(self.name)

    def on_train_batch_end(self, *args: object) -> None:
        self.turns.step_ended(self.name)
