"""Reading docker/: the stages of the Dockerfile, and what `docker compose` makes of compose.yaml.

`docker-compose` is Docker's own program in a wheel; `config` needs no engine.
"""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
PROGRAMS = Path(sys.executable).parent
ANSWERS = {
    "PICTURES": "/srv/pictures",
    "LABEL_STUDIO_USERNAME": "first@heatbox.example",
    "LABEL_STUDIO_TOKEN": "0123456789abcdef0123456789abcdef01234567",
}


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile with what it takes from the stages below it, in order.

    Attributes:
        image: that the lowest one is made from.
        steps: (instruction, its text in one line), for example ("RUN", "uv venv /opt/heatbox").
    """

    image: str
    steps: tuple[tuple[str, str], ...]

    def last(self, instruction: str) -> str:
        """Return the text of the last instruction of this kind, empty if there is none."""
        return next((text for name, text in reversed(self.steps) if name == instruction), "")

    def all(self, instruction: str) -> list[str]:
        """Return the texts of all instructions of this kind."""
        return [text for name, text in self.steps if name == instruction]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = [pair for text in self.all("ENV") for pair in shlex.split(text)]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def command(self) -> list[str]:
        """What a container runs."""
        return [*json.loads(self.last("ENTRYPOINT")), *json.loads(self.last("CMD"))]

    @property
    def healthcheck(self) -> list[str]:
        """What asks whether the container is well."""
        return [str(word) for word in json.loads(self.last("HEALTHCHECK").partition(" CMD ")[2])]


def stages() -> dict[str, Stage]:
    """Return the stages of docker/Dockerfile by name."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    name = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = found.get(base, Stage(base, ()))
        elif instruction:
            found[name] = Stage(
                found[name].image, (*found[name].steps, (instruction, " ".join(rest.split())))
            )
    return found


def example() -> dict[str, str]:
    """Return the variables that docker/.env.example asks for, with usable values."""
    names = re.findall(r"^([A-Z_]+)=$", (DOCKER / ".env.example").read_text(), re.MULTILINE)
    return {name: ANSWERS.get(name, f"secret{number}") for number, name in enumerate(names)}


def compose(variables: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `docker compose` on compose.yaml with these variables and no others."""
    files = [] if arguments[0] == "--file" else ["--file", "compose.yaml"]
    command = [PROGRAMS / "docker-compose", "--env-file", "/dev/null", *files, *arguments]
    return subprocess.run(
        command, cwd=DOCKER, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


def composed(*files: str) -> dict[str, Any]:
    """Return what compose.yaml and these files on top of it say, with usable values for all variables."""
    named = [word for file in ("compose.yaml", *files) for word in ("--file", file)]
    done = compose(example(), *named, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    project: dict[str, Any] = json.loads(done.stdout)
    return project
