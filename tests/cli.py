"""Run the command line, in this process or as a user does."""

import json
import os
import subprocess
import sys
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from ls_lightning.train import main

WITH_PICTURES = ["trainer.max_epochs=2", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
QUICK = ["trainer.max_epochs=2", "~callbacks.pictures", *WITH_PICTURES[1:]]  # drawing takes longer than all the rest


def run_here(monkeypatch, folder, *overrides):
    """In process. Returns the exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["ls_lightning.train", *overrides])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as main does, but taken back after the test
    GlobalHydra.instance().clear()
    try:
        main()
    except SystemExit as error:
        return error.code or 0
    return 0


def start(folder, *overrides, env=None, **kwargs):
    """In a process of its own. Returns the Popen."""
    return subprocess.Popen(
        [sys.executable, "-m", "ls_lightning.train", *overrides],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def run(folder, *overrides, env=None, timeout=300):
    """As a user. Returns (exit code, stdout, stderr)."""
    process = start(folder, *overrides, env=env)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def result(folder):
    return json.loads((Path(folder) / "result.json").read_text())
