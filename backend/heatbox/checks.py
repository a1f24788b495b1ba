"""The checks of `heatbox doctor`: each looks at one thing that heatbox stands on and says what it found.

torch is asked in a process of its own: a broken installation is then a finding, not the doctor's death.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from heatbox.errors import HeatboxError
from heatbox.ledger import Ledger
from heatbox.plugins import (
    BOX_FITTERS,
    EXPLAINERS,
    describe_plugins,
    make_box_fitter,
    make_explainer,
    parse_options,
)
from heatbox.remote_store import open_store
from heatbox.runs.checks import Check, label_studio, queues, runs
from heatbox.settings import Settings

__all__ = ["Check", "run_checks"]

_FREE_BYTES = 2 * 2**30

_ASK_TORCH = """
import json, torch, torchvision
cpu = "cpu " + torch.backends.cpu.get_cpu_capability()
print(json.dumps({
    "versions": f"torch {torch.__version__}, torchvision {torchvision.__version__}",
    "threads": torch.get_num_threads(),
    "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else cpu,
}))
"""


def run_checks(settings: Settings) -> list[Check]:
    """Return all checks, in the order of the table; a check that raises is an error with its remedy."""
    checks: list[Callable[[Settings], Check]] = [
        _versions,
        _torch,
        _ledger,
        _model_store,
        _active_model,
        _redis,
        queues,
        runs,
        label_studio,
        _plugins,
        _service,
        _local_roots,
    ]
    return [_guarded(check, settings) for check in checks]


def _guarded(check: Callable[[Settings], Check], settings: Settings) -> Check:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return check(settings)
    except HeatboxError as error:
        return Check(name, "error", error.sentence, error.remedy)
    except Exception as error:  # noqa: BLE001 - an edge: what one check meets must not cost the others
        return Check(name, "error", f"{type(error).__name__}: {error}", "Read what it says; else report it.")


def _versions(_: Settings) -> Check:
    names = ("heatbox", "rq", "redis", "opencv-python-headless", "pillow")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return Check("versions", "ok", f"Python {platform.python_version()}, {found}")


def _torch(_: Settings) -> Check:
    asked = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=120, check=False
    )
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        return Check("torch", "warning", last, "Install it: pip install 'heatbox[torch]'.")
    said = json.loads(asked.stdout)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{said['versions']}; {said['device']}, {said['threads']} threads on {cores} cores"
    return Check("torch", "ok", found)


def _ledger(settings: Settings) -> Check:
    Ledger(settings.ledger_url).close()
    free = shutil.disk_usage(settings.home).free if settings.home.exists() else _FREE_BYTES
    backend = settings.ledger_url.partition(":")[0]
    found = f"{backend} ledger opens; {settings.home} has {free / 2**30:.1f} GiB free"
    if free < _FREE_BYTES:
        return Check("ledger", "warning", found, "Free some space, or set HEATBOX_HOME to another disk.")
    return Check("ledger", "ok", found)


def _model_store(settings: Settings) -> Check:
    store = open_store(settings)
    store.require_reachable()
    cards = store.cards()
    with store.incoming() as folder, tempfile.TemporaryFile(dir=folder):
        pass
    missing = [card.id for card in cards if not store.has_weights(card)]
    if missing:
        return Check(
            "model store",
            "error",
            f"no weights for {', '.join(missing)}",
            f"Delete their folders in {store.place} and add these models again.",
        )
    return Check("model store", "ok", f"{len(cards)} models in {store.place}")


def _active_model(settings: Settings) -> Check:
    active = settings.model or _activated(settings)
    if not active:
        remedy = "heatbox models add mobilenet_v2 --activate, or heatbox demo"
        return Check("active model", "warning", "none: the service has nothing to answer with", remedy)
    return Check("active model", "ok", open_store(settings).find(active).id)


def _activated(settings: Settings) -> str | None:
    with closing(Ledger(settings.ledger_url)) as ledger:
        return ledger.active_model()


def _redis(settings: Settings) -> Check:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    from heatbox.queueing.redis_server import find_redis_server

    if not settings.redis_url:
        return Check("redis", "ok", f"`heatbox up` starts {find_redis_server()}")
    once = Retry(NoBackoff(), 0)
    try:
        with Redis.from_url(
            settings.redis_url, retry=once, socket_timeout=3, socket_connect_timeout=3
        ) as redis:
            server = redis.info("server")
    except (RedisError, ValueError) as error:  # ValueError: the URL is none
        found = f"no answer: {type(error).__name__}"
        return Check("redis", "error", found, "Check HEATBOX_REDIS_URL and that it runs.")
    return Check("redis", "ok", f"redis {server['redis_version']} answers")


def _plugins(_: Settings) -> Check:
    found = describe_plugins(EXPLAINERS) + describe_plugins(BOX_FITTERS)
    broken = [f"{plugin.name}: {plugin.error}" for plugin in found if plugin.error]
    if broken:
        return Check("plugins", "warning", "; ".join(broken), "See `heatbox explainers`.")
    return Check("plugins", "ok", f"{len(found)} usable: {', '.join(plugin.name for plugin in found)}")


def _service(settings: Settings) -> Check:
    """Make what the service annotates with, as its workers will."""
    make_explainer(settings.explainer, parse_options(settings.explainer_options))
    make_box_fitter(settings.fitter, parse_options(settings.fitter_options))
    chosen = (settings.explainer, *settings.explainer_options, settings.fitter, *settings.fitter_options)
    return Check("service", "ok", f"explains and fits with {' '.join(chosen)}")


def _local_roots(settings: Settings) -> Check:
    missing = [str(root) for root in settings.local_roots if not Path(root).is_dir()]
    if missing:
        return Check(
            "local roots", "error", f"not folders: {', '.join(missing)}", "Correct HEATBOX_LOCAL_ROOTS."
        )
    if not settings.local_roots:
        return Check(
            "local roots", "warning", "none: tasks may name no local files", "heatbox up --root FOLDER"
        )
    return Check("local roots", "ok", ", ".join(map(str, settings.local_roots)))
