"""The image's steps in a chroot of this machine's own files, and the services of compose.yaml started in it."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile import Step, build_script, read_steps, start_script

ROOT = Path(__file__).parent.parent
STEPS = read_steps((ROOT / "docker" / "Dockerfile").read_text())
BORROWED = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SMALL = {"EPS": "0,0.1", "SEED": "0", "LOSS": "kl"}
FROM_WHERE = """
from ls_lightning.functional.native import load_library
for name in ("loss", "measure"):
    print("loop", load_library(name)._name)
"""
STRANGER = 4321  # a uid that nobody has, as `docker run --user` may give


def interpolate(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)(?::-(.*?))?\}", lambda found: variables.get(found[1], found[2] or ""), text)


def command(service: str) -> list[str]:
    return [interpolate(word, SMALL) for word in COMPOSE["services"][service]["command"]]


def test_compose_is_a_compose_file() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    checker = [sys.executable, "-m", "check_jsonschema", *schema, ROOT / "docker" / "compose.yaml"]
    done = subprocess.run(checker, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_reports_what_a_whole_sweep_left_in_the_folder_where_you_are() -> None:
    services = COMPOSE["services"]
    assert services["report"]["depends_on"] == {"sweep": {"condition": "service_completed_successfully"}}
    assert [name for name, service in services.items() if "profiles" in service] == ["watch"]
    for service in services.values():
        assert service["volumes"] == ["${PWD}:/work"]
        assert re.fullmatch(r"\$\{AS_USER:-[1-9]\d*\}", service["user"])
        assert service["image"] == services["sweep"]["image"]
    build = services["sweep"]["build"]
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).samefile(ROOT / "docker" / "Dockerfile")
    assert build["args"].keys() <= {step.text.split("=")[0] for step in STEPS if step.instruction == "ARG"}


def test_compose_passes_what_the_user_sets() -> None:
    assert command("sweep") == ["-m", "hydra.sweep.dir=sweep", "eps=0,0.1", "seed=0", "loss=kl"]
    assert command("report")[0] == command("watch")[0] == "sweep"


class Chroot:
    """The files of this machine under a layer of our own, gone with the process that mounts it.

    What pip would download is there already: the environment of the tests, appended to that of the image. It is seen
    under a name of its own, since a folder of the image may hide its place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted = folder / "mounted"
        for name in ("layer", "root", "mounted", "context"):
            (folder / name).mkdir()
        folder.chmod(0o755)

    def run(self, inside: str, *, after: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run scripts in the chroot: ``inside`` as root, each of ``after`` as a stranger, with a folder mounted."""
        layer, root = self.folder / "layer", self.folder / "root"
        lines = [
            "set -e",
            f"mount -t tmpfs tmpfs {layer}",
            f"mkdir {layer}/upper {layer}/work",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={layer}/upper,workdir={layer}/work {root}",
            f"mount --rbind /proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mkdir -p {root}{self.folder}",
            f"mount --bind {self.folder} {root}{self.folder}",
            *(f"mkdir {root}/borrowed{i}\nmount --bind {root}{x} {root}/borrowed{i}" for i, x in enumerate(BORROWED)),
            self._enter("0:0", "inside", inside),
            f"mount --bind {self.mounted} {root}/work" if after else "",
            *(self._enter(f"{STRANGER}:{STRANGER}", f"after{i}", script) for i, script in enumerate(after)),
        ]
        script = ["unshare", "--mount", "sh", "-c", "\n".join(lines)]
        return subprocess.run(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)

    def _enter(self, user: str, name: str, script: str) -> str:
        (self.folder / f"{name}.sh").write_text(script)
        path = f"{self.folder}/image/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = f"PATH={path} OMP_NUM_THREADS=1 PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=false"
        enter = f"chroot --userspec={user} --groups= {self.folder}/root env -i {environment}"
        return f"{enter} sh {self.folder}/{name}.sh"


@pytest.fixture
def chroot(tmp_path: Path) -> Chroot:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a chroot needs root on Linux; .ci/docker builds the image with podman")
    made = Chroot(tmp_path)
    if (tried := made.run("true")).returncode:
        pytest.skip(f"this machine mounts no overlay: {tried.stdout.strip()}")
    return made


def own_python(folder: Path) -> str:
    """Make the interpreter of the tests, and what is installed beside it, that of the image, for any user.

    The image has no users yet, and this machine may.
    """
    packages = f"$({folder}/image/bin/python -c 'import site; print(*site.getsitepackages())')"
    added = " ".join(f"/borrowed{i}" for i in range(len(BORROWED)))
    parents = {parent for path in (sys.executable, os.path.realpath(sys.executable)) for parent in Path(path).parents}
    return f"""
set -e
chmod o+rx {" ".join(map(str, parents | set(folder.parents)))}
{sys.executable} -m venv --without-pip {folder}/image
printf '%s\\n' {added} > "{packages}/borrowed.pth"
printf '#!/bin/sh\\nexec python -m pip "$@"\\n' > {folder}/image/bin/pip
chmod +x {folder}/image/bin/pip
rm -rf {" ".join(f"{site}/ls_lightning-*.dist-info" for site in BORROWED)}
sed -i -E '/^[^:]*:[^:]*:[1-9][0-9]{{3}}:/d' /etc/passwd /etc/group
"""


@pytest.mark.slow
def test_the_steps_build_what_sweeps_and_reports_for_a_stranger(chroot: Chroot) -> None:
    for name in {word for step in STEPS if step.instruction == "COPY" for word in step.text.split()[:-1]}:
        if not name.startswith(("-", "/")):
            target = chroot.folder / "context" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    os.chown(chroot.mounted, STRANGER, STRANGER)
    report = [f"ENTRYPOINT {COMPOSE['services']['report']['entrypoint']}".replace("'", '"')]
    done = chroot.run(
        own_python(chroot.folder) + build_script(STEPS, f"{chroot.folder}/context"),
        after=[
            start_script(STEPS, [*command("sweep"), "trainer.max_epochs=1", "hydra.launcher.n_jobs=2"]),
            start_script([*STEPS, *read_steps(report[0])], command("report")),
            start_script([*STEPS, Step("ENTRYPOINT", json.dumps(["python", "-c", FROM_WHERE]))], []),
        ],
    )
    assert done.returncode == 0, done.stdout
    assert "Successfully installed ls-lightning" in done.stdout
    assert re.findall(r"^loop (.*)-\w+\.so$", done.stdout, re.M) == ["/dist/loops/loss", "/dist/loops/measure"]
    results = list(chroot.mounted.glob("sweep/*/result.json"))
    assert len(results) == 2
    for file in (*results, chroot.mounted / "sweep" / "report" / "report.html"):
        assert file.stat().st_uid == STRANGER, file
