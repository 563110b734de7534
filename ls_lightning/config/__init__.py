"""The command line's configuration: its schema, its rules, and one clear line for every mistake.

Imports neither torch nor lightning: a wrong value is answered before they are loaded.
"""

from ls_lightning.config.explain import explain, plain_help
from ls_lightning.config.rules import check_eps
from ls_lightning.config.schedule import build_schedule
from ls_lightning.config.schema import register_schema
from ls_lightning.config.settle import settle
from ls_lightning.config.targets import check_targets

__all__ = ["build_schedule", "check_eps", "check_targets", "explain", "plain_help", "register_schema", "settle"]
