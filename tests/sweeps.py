"""A small Hydra app for sweeps, without torch, and a look at the processes that a sweep leaves behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

APP = """
import os, signal, subprocess, sys, time
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(config_path=".", config_name="app", version_base="1.3")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    with (folder / "ran").open("a") as file:
        file.write(f"{cfg.ckpt_path}\\n")
    if cfg.do in ("ranks", "leave") or (cfg.do == "interrupt" and cfg.ckpt_path is None):
        # A rank in the job's process group, and a service that has left it.
        for apart in (False, True):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=apart)
    (folder / "up").touch()
    last = folder / "checkpoints" / "last.ckpt"
    if cfg.do == "raise":
        raise ValueError(f"x={cfg.x} does not work")
    if cfg.do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.do == "bad":
        print("error: x must be good", file=sys.stderr)
        sys.exit(2)
    if cfg.do == "once" and cfg.ckpt_path is None:
        last.parent.mkdir()
        last.touch()
        sys.exit(1)
    if cfg.do == "best" and len((folder / "ran").read_text().split()) == 1:
        last.parent.mkdir()
        (last.parent / "best.ckpt").touch()
        sys.exit(1)
    if cfg.do == "interrupt" and cfg.ckpt_path is None:
        try:
            time.sleep(300)
        except KeyboardInterrupt:
            last.parent.mkdir()
            last.touch()
            sys.exit(130)
    if cfg.do == "environment":
        names = ("CUDA_VISIBLE_DEVICES", "MASTER_PORT", "OMP_NUM_THREADS", "RANK", "PL_GLOBAL_SEED")
        time.sleep(0.5)
        return {name: os.environ.get(name) for name in names}
    if cfg.do in ("hang", "ranks"):
        time.sleep(300)
    time.sleep(cfg.seconds)
    return (cfg.x - 3) ** 2

if __name__ == "__main__":
    main()
"""
CONFIG = """
defaults: [_self_, {override hydra/launcher: process}]
x: 0
do: return
seconds: 0
ckpt_path: null
hydra: {output_subdir: null, sweep: {dir: sweep}}
"""
SWEEPER = '''
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

@dataclass
class Conf:
    _target_: str = "hydra_plugins.descent.Descent"

ConfigStore.instance().store(group="hydra/sweeper", name="descent", node=Conf)

class Descent(Sweeper):
    """Two batches; the second depends on what the first returned."""
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)
    def sweep(self, arguments):
        best, num = 0, 0
        for step in (2, 1):
            batch = [[*arguments, f"x={best + change}"] for change in (-step, step)]
            found = self.launcher.launch(batch, initial_job_idx=num)
            values = [job.return_value for job in found]
            print("values", values, [job.cfg.x for job in found])
            best, num = found[values.index(min(values))].cfg.x, num + 2
        print("best", best)
'''


def write_app(folder):
    """The app and its plugin. Returns the script."""
    (folder / "hydra_plugins").mkdir(parents=True)
    (folder / "hydra_plugins" / "descent.py").write_text(SWEEPER)
    (folder / "app.yaml").write_text(CONFIG)
    (folder / "app.py").write_text(APP)
    return folder / "app.py"


class Sweep:
    """A sweep in processes that carry a mark in their environment.

    Args:
        folder: where it is started.
        command: after the interpreter.
    """

    def __init__(self, folder, *command, env=None):
        self.mark = uuid.uuid4().hex
        self.folder = Path(folder)
        clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        self.process = subprocess.Popen(
            [sys.executable, *(str(word) for word in command)],
            cwd=folder,
            env={**clean, "SWEEP_MARK": self.mark, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, timeout=300):
        """Wait for it. Returns (exit code, stdout, stderr)."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def members(self):
        """Living processes of the sweep, the launcher included, as {pid: command}."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return found

    def gone(self, within=10.0):
        """Whether no process is left after a while."""
        return wait_for(lambda: not self.members(), within)

    def kill(self):
        """Kill -9 of the launcher alone. Returns what it had printed."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.communicate(timeout=30)[0]


def wait_for(condition, within=60.0):
    """Whether it came true in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
