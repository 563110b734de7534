"""What the sweeper answers with one line.

CompactHydraException
SweeperError      the search cannot be run as it was asked for
TrialsFailed      it was run, and some trials failed
"""

from hydra.errors import CompactHydraException


class SweeperError(CompactHydraException):
    """The search cannot be run as it was asked for."""


class TrialsFailed(CompactHydraException):
    """All trials were run; some have no result."""

    exit_code = 1
