"""Run the commands of a Markdown page as its reader would: one shell, top to bottom, in a folder like a fresh clone.

    python tests/readme_commands.py README.md

Blocks fenced as `sh` or `console` are run; of `console` blocks only what follows `$ `. The folder is temporary and
its entries are links to the clone's, so `make demo` works and leaves nothing behind. The shell starts without the
virtual environment and with a HEATBOX_HOME of its own. `heatbox up` and `heatbox serve` stay in the background until
the page ends and must then exit with 0 on SIGTERM; the page's port 9090 is replaced by a free one. `make test` and
`make check` are what called us: only their existence is checked. In the page, before a block, an HTML comment may say:

    <!-- not run: REASON -->    the block is skipped, visibly
    <!-- expect: TEXT -->       the block's output must contain the text
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1200
PORT = "9090"
MADE = {"demo-out", "site", "build", "dist"}  # by commands; a fresh clone does not have them

_BLOCK = re.compile(r"^((?:<!--[^\n]*-->\n)*)```(sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (not run|expect): (.*?) -->")
_CALLER = re.compile(r"^make (test|check)$")
_SERVER = re.compile(r"^heatbox (up|serve)\b")

_PRELUDE = """
server=
stop_server() {
  [ -n "$server" ] || return 0
  local process=$server; server=
  kill -TERM "$process" && wait "$process" || { echo "the server did not stop well: $?"; return 1; }
}
wait_for_server() {
  for _ in $(seq 240); do
    kill -0 "$server" 2>/dev/null || { echo "the server ended"; return 1; }
    "$RUNNER_PYTHON" -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$1/health')" 2>/dev/null && return 0
    sleep 0.5
  done
  echo "the server does not answer"; return 1
}
trap '[ ! -e ../output ] || cat ../output; stop_server || true' EXIT
set -eo pipefail
"""


@dataclass(frozen=True)
class Block:
    """The commands of one fenced block; `skipped` is the reason why they are not run, `expected` must be printed."""

    commands: str
    skipped: str | None = None
    expected: str | None = None


def read_blocks(text: str) -> list[Block]:
    """Return the shell blocks of a Markdown page, in order."""
    return [_block(*match.groups()) for match in _BLOCK.finditer(text)]


def as_script(blocks: Sequence[Block], port: int) -> str:
    """Return one bash script that runs the blocks that are not skipped."""
    parts = [_PRELUDE, *(_part(block) for block in blocks if block.skipped is None), "stop_server\n"]
    return "\n".join(parts).replace("@PORT@", str(port))


def run_page(page: Path) -> int:
    """Run a page's blocks and return the shell's exit code."""
    blocks = [_without_missing_programs(block) for block in read_blocks(page.read_text(encoding="utf-8"))]
    with tempfile.TemporaryDirectory(prefix="heatbox-readme-") as name:
        folder = Path(name, "clone")
        _link_clone(folder)
        code = _run(as_script(blocks, _free_port()), folder, _environment(os.environ, Path(name, "home")))
    for block in blocks:
        verdict = (
            f"not run ({block.skipped})" if block.skipped else "ran" if code == 0 else "in the failed script"
        )
        _say(f"{verdict}: {block.commands.strip().splitlines()[0]}")
    _say(f"{page.name}: {'every command ran' if code == 0 else f'failed with exit code {code}'}")
    return code


def _block(marks: str, language: str, body: str) -> Block:
    named = dict(_MARK.findall(marks))
    if language == "console":
        body = "".join(line[2:] + "\n" for line in body.splitlines() if line.startswith(("$ ", "> ")))
    return Block(body, named.get("not run"), named.get("expect"))


def _without_missing_programs(block: Block) -> Block:
    needs_curl = re.search(r"^curl ", block.commands, re.MULTILINE)
    if needs_curl and not block.skipped and shutil.which("curl") is None:
        return Block(block.commands, "curl is not installed", block.expected)
    return block


def _part(block: Block) -> str:
    shown = f"printf '%s\\n' {shlex.quote('+ ' + block.commands.strip())}"
    body = "\n".join(_command(line) for line in block.commands.replace(PORT, "@PORT@").splitlines())
    if block.expected is None:
        return f"{shown}\n{body}\n"
    expected, complaint = shlex.quote(block.expected), shlex.quote(f"the output has no {block.expected!r}")
    return (
        f"{shown}\n{{ {body}\n}} > ../output 2>&1\n"
        f"grep -qF -- {expected} ../output || {{ echo {complaint}; exit 1; }}\n"
        "head -c 2000 ../output; echo; rm ../output\n"
    )


def _command(line: str) -> str:
    if _CALLER.match(line):
        return line.replace("make ", "make -n ", 1) + " > /dev/null"
    if _SERVER.match(line):
        return f"stop_server\nHEATBOX_PORT=@PORT@ {line} &\nserver=$!\nwait_for_server @PORT@"
    return line


def _link_clone(folder: Path) -> None:
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in MADE:
            (folder / entry.name).symlink_to(entry)


def _environment(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return what the shell of somebody who has just cloned has: no virtual environment, no settings, no outer make."""
    outer = {"VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "REDIS_URL"}
    kept = {
        key: value for key, value in inherited.items() if key not in outer and not key.startswith("HEATBOX_")
    }
    path = os.pathsep.join(_outside_clone(inherited.get("PATH", os.defpath)))
    return {**kept, "PATH": path, "RUNNER_PYTHON": sys.executable, "HEATBOX_HOME": str(home)}


def _outside_clone(path: str) -> Iterator[str]:
    return (part for part in path.split(os.pathsep) if not Path(part).is_relative_to(ROOT))


def _run(script: str, folder: Path, environment: Mapping[str, str]) -> int:
    shell = subprocess.Popen(
        ["bash", "-c", script],  # noqa: S607 - the reader's bash
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return shell.wait(SECONDS)
    except subprocess.TimeoutExpired:
        _say(f"not finished after {SECONDS} s")
        return 124
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(max(run_page(Path(argument)) for argument in sys.argv[1:]))
