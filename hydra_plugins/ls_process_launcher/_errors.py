"""What the launcher answers with one line.

CompactHydraException
LauncherError       the sweep cannot be run; no job was started
JobFailed           one job failed; an optimising sweeper may go on
"""

from hydra.errors import CompactHydraException


class LauncherError(CompactHydraException):
    """The sweep cannot be run as it was asked for."""


class JobFailed(CompactHydraException):
    """A job ended without a result."""

    exit_code = 1
