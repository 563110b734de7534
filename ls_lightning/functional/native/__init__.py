"""Loops in C for what torch's operations take several passes over: built once on a machine that has a compiler.

Without one, or with `LS_LIGHTNING_NATIVE=0`, torch's operations give the same to rounding, in more time. Which way is
taken depends on the machine and on dtypes and options, never on the values: one run does not mix the two.
"""

from ls_lightning.functional.native.build import load_library

__all__ = ["load_library"]
