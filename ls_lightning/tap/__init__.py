"""The one place that reaches into a foreign module: see the classification losses that a step calls.

However a loss of torch is called, under any name, from any file, by ``nn.CrossEntropyLoss``, a partial or a closure,
the call ends in one of four native functions, which ``torch.nn.functional`` looks up by name every time. For the
duration of a step these names lead here. That sees every call and costs the others nothing.

Compiled code does not look them up: for dynamo ``F.cross_entropy`` is a single operation. Twins of the Python
functions, which dynamo traces into, take their place wherever the module's attributes and any file hold them. A twin
does what the original does, so one that is kept beyond the step does no harm; what the compiler takes past the twins
is an error. Nothing is written to the module that is not taken back at the end of the step.
"""

from ls_lightning.tap.call import KINDS, Kind, LossCall, Select, smoothing_modules
from ls_lightning.tap.seam import is_checkpointed
from ls_lightning.tap.tap import Tap

__all__ = ["KINDS", "Kind", "LossCall", "Select", "Tap", "is_checkpointed", "smoothing_modules"]
