"""Be inside of a step of the module, and of nothing else that a Trainer does with a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import lightning as L

Step = Literal["train", "val", "test"]


def enter_with_step(
    trainer: L.Trainer, step: Step, context: Callable[[], AbstractContextManager[None]]
) -> Callable[[], None]:
    """Enter ``context()`` around every training, validation or test step of ``trainer``.

    Lightning enters its precision plugin's context there, in all strategies. The plugin's method is wrapped on the
    instance; the LightningModule is not touched.

    Returns:
        What undoes it.
    """
    plugin = trainer.precision_plugin
    name = f"{step}_step_context"
    inner = getattr(plugin, name)
    own = vars(plugin).get(name)

    @contextmanager
    def both() -> Iterator[None]:
        with inner(), context():
            yield

    def undo() -> None:
        if vars(plugin).get(name) is both:
            delattr(plugin, name)
            if own is not None:
                setattr(plugin, name, own)

    setattr(plugin, name, both)
    return undo
