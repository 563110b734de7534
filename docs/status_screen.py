"""Draw README's picture of a running sweep: ``python docs/status_screen.py`` writes docs/sweep.svg.

Runs a real sweep in a terminal of its own, kills one of its jobs as a machine short of memory would, and keeps the
screen that shows most states at once.
"""

import contextlib
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMAND = "python -m ls_lightning.train -m eps=0,0.05,0.1,0.2 seed=0,1 trainer=cpu hydra.launcher.n_jobs=2"
WIDTH, HEIGHT = 104, 24
STATES = ("done", "running", "queued", "failed", "left", "epoch")
_REDRAWN = re.compile(r"\r?(?:\x1b\[2K)?(?:\x1b\[1A\x1b\[2K)+")  # up over the frame before


def record(folder: str) -> str:
    """Everything that the terminal was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    words = [sys.executable, *COMMAND.split()[1:], "hydra.sweep.dir=sweep"]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": str(HEIGHT)}
    process = subprocess.Popen(words, cwd=folder, stdout=theirs, stderr=subprocess.DEVNULL, env=env)
    os.close(theirs)
    text, killed = b"", False
    with contextlib.suppress(OSError):  # the end of a pty
        while block := os.read(ours, 65536):
            text += block
            killed = killed or kill_job(folder, 2)
    process.wait()
    return text.decode()


def kill_job(folder: str, num: int) -> bool:
    """Whether the job has come so far that it could be killed."""
    if not (Path(folder) / "sweep" / str(num) / "metrics.csv").exists():
        return False
    found = subprocess.run(
        ["pgrep", "-f", f"ls_lightning.train .*hydra.job.num={num} "], capture_output=True, text=True
    )
    for pid in found.stdout.split():
        if "_supervise" not in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(int(pid), signal.SIGKILL)
    return True


def draw(screen: str) -> str:
    """An SVG, without the fonts that rich would fetch from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(screen.replace("\r", "").strip("\n")))
    svg = console.export_svg(title=COMMAND)
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        frames = _REDRAWN.split(record(folder))
    best = max(frames, key=lambda frame: sum(word in frame for word in STATES))
    (Path(__file__).parent / "sweep.svg").write_text(draw(best))
    print(Text.from_ansi(best.replace("\r", "")).plain)
