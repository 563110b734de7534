"""A Dockerfile as a list of steps, and the steps as a shell script for the root of a file system."""

import json
import re
import shlex
from typing import NamedTuple


class Step(NamedTuple):
    instruction: str
    text: str


def read_steps(dockerfile: str) -> list[Step]:
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Step(*re.split(r"\s+", line.strip(), maxsplit=1)) for line in joined.splitlines()]


def build_script(steps: list[Step], context: str) -> str:
    """What a builder does in the root of the image; the folder of the sources is ``context``. Stages share the root."""
    lines = ["set -eu"]
    for instruction, text in steps:
        words = [word for word in shlex.split(text) if not word.startswith("--")]
        if instruction in {"ARG", "ENV"}:
            lines += [f"export {shlex.quote(word)}" for word in words if "=" in word]
        elif instruction == "WORKDIR":
            lines += [f"mkdir -p {text}", f"cd {text}"]
        elif instruction == "COPY" and "--from=" not in text:
            *sources, target = words
            into = target if target.endswith("/") else f"-T {target}"
            lines += [f"cp -r {' '.join(f'{context}/{source}' for source in sources)} {into}"]
        elif instruction == "RUN":
            without_options = re.sub(r"^(--\S+\s+)*", "", text)
            lines.append(f"({without_options})")
    return "\n".join(lines) + "\n"


def start_script(steps: list[Step], command: list[str]) -> str:
    """What an engine does in a container: the environment, the folder and the entry of the image."""
    said = {step.instruction: step.text for step in steps}
    variables = [word for step in steps if step.instruction == "ENV" for word in shlex.split(step.text)]
    entry = shlex.join([*json.loads(said["ENTRYPOINT"]), *command])
    return f"cd {said['WORKDIR']} && exec env {shlex.join(variables)} {entry}\n"
