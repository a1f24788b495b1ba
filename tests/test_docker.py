"""docker/ without an engine: what the files say holds, and every command in them runs here, outside a container.

Where a test cannot have a path or a port of a container it puts one of its own in its place; nothing else is changed.
"""

import fnmatch
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress

import httpx
import pytest
from fixtures_docker import DOCKER, PROGRAMS, ROOT, compose, composed, example, stages
from fixtures_redis import wait_until
from redis import Redis
from redis.exceptions import RedisError

from heatbox.processes import stop
from heatbox.queueing.queues import listening_pids
from heatbox.settings import read_settings
from heatbox.studio.switches import switches

OURS = {"heatbox": "web", "worker": "worker"}
STUDIO = ROOT / ".venv-studio"
PAGES = (DOCKER / "README.md", ROOT / "docs" / "how-to" / "docker.md")


@pytest.fixture(scope="module")
def services():
    return composed()["services"]


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listens(port):
    with suppress(ConnectionRefusedError), closing(socket.create_connection(("127.0.0.1", port), 1)):
        return True
    return False


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


# What the files say


def test_the_linter_finds_nothing():
    assert not run([PROGRAMS / "hadolint", DOCKER / "Dockerfile"])


def test_nothing_starts_before_every_secret_is_set():
    asked = compose({}, "config", "--quiet")
    assert asked.returncode != 0
    assert set(re.findall(r"required variable (\w+)", asked.stderr)) == set(example())


def test_the_example_names_every_variable():
    named = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    assert set(re.findall(r"^#?([A-Z_]+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE)) == named


def test_workers_may_have_the_cards_of_the_machine():
    worker = composed("compose.cuda.yaml")["services"]["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", ["label-studio", "redis", "postgres", "heatbox", "worker"])
def test_a_service_is_nobodys_root_comes_back_and_says_how_it_is(services, name):
    service, stage = services[name], stages().get(OURS.get(name))
    user = service.get("user") or stage.last("USER")
    assert int(user.split(":")[0]) > 0
    assert service["restart"] == "unless-stopped"
    assert service.get("healthcheck") or stage.healthcheck
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service.get("read_only") or name == "label-studio"
    images = [service["image"], *([stage.image] if stage else [])]
    assert all(re.search(r":\d+\.\d+", image) for image in images), images


def test_what_is_waited_for_is_healthy_and_what_is_kept_has_a_volume(services):
    for name in OURS:
        waited = {on: how["condition"] for on, how in services[name]["depends_on"].items()}
        assert waited == {"redis": "service_healthy", "postgres": "service_healthy"}
    kept = {name: [volume["source"] for volume in service["volumes"]] for name, service in services.items()}
    assert kept["redis"] + kept["postgres"] == ["redis", "postgres"]
    assert "label-studio" in kept["label-studio"]
    assert "models" in kept["heatbox"]
    assert kept["heatbox"] == kept["worker"]


def test_only_label_studio_and_heatbox_are_reached_from_outside_and_by_this_machine_only(services):
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(ports) == {"label-studio", "heatbox"}
    assert {port["host_ip"] for some in ports.values() for port in some} == {"127.0.0.1"}
    assert composed()["networks"]["data"]["internal"] is True
    assert set(services["label-studio"]["networks"]) == {"studio"}


def test_label_studio_may_call_heatbox_and_no_other_private_address(services):
    address = services["heatbox"]["networks"]["studio"]["ipv4_address"]
    environment = services["label-studio"]["environment"]
    assert {name: environment[name] for name in switches(address)} == switches(address)


def test_label_studio_takes_the_name_of_heatbox_for_a_webhook(services):
    if not STUDIO.exists():
        pytest.skip("no Label Studio: run make studio-env")
    (name,) = services["heatbox"]["networks"]["studio"]["aliases"]
    check = (
        "from django.conf import settings; settings.configure(USE_I18N=False)\n"
        "from django.core.validators import URLValidator; URLValidator()('http://%s:9090/webhook')"
    )
    run([STUDIO / "bin" / "python", "-c", check % name])
    assert any(name in page.read_text() for page in PAGES)


def test_label_studio_knows_each_variable_that_it_is_given(services):
    if not STUDIO.exists():
        pytest.skip("no Label Studio: run make studio-env")
    sources = [path.read_text() for path in STUDIO.glob("lib/*/site-packages/label_studio/**/*.py")]
    known = set(re.findall(r"get_(?:bool_)?env(?:_list)?\(\s*'(\w+)'", "".join(sources)))
    given = set(services["label-studio"]["environment"])
    assert not {
        name for name in given if name not in known and name.removeprefix("LABEL_STUDIO_") not in known
    }


@pytest.mark.parametrize(("name", "target"), OURS.items())
def test_heatbox_knows_each_variable_that_it_is_given(services, name, target):
    given = {**stages()[target].environment, **services[name]["environment"]}
    settings = read_settings({name: str(value) for name, value in given.items()})
    assert settings.studio_url == "http://label-studio:8080"
    assert settings.redis_url.startswith("redis://:secret")
    assert (
        settings.local_roots[0].as_posix()
        == services["label-studio"]["environment"]["LOCAL_FILES_DOCUMENT_ROOT"]
    )
    assert settings.studio_api_key.get_secret_value() == example()["LABEL_STUDIO_TOKEN"]


def test_the_places_of_a_container_are_those_of_the_image(services):
    for name, target in OURS.items():
        stage = stages()[target]
        made = next(text for text in stage.all("RUN") if "install -d" in text)
        uid, gid = stage.last("USER").split(":")
        assert f"install -d -o {uid} -g {gid} " in made
        assert f"--uid {uid} --gid {gid}" in made
        assert all(volume["target"] in made for volume in services[name]["volumes"])
        assert stage.environment["HEATBOX_STORE"] in made
        assert any(
            f"{stage.environment['HOME']}:uid={uid},gid={gid}" in text for text in services[name]["tmpfs"]
        )


def test_the_build_context_has_what_is_copied_and_little_else(services):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word for text in stages()["build"].all("COPY") for word in shlex.split(text)[:-1] if word[0] != "-"
    }
    assert "*" in lines
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    for service in OURS:
        build = services[service]["build"]
        assert (build["context"], build["dockerfile"]) == (str(ROOT), "docker/Dockerfile")
        assert build["target"] in stages()


# What the files run


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What the build sees: the copied files, without what .dockerignore leaves out."""
    folder = tmp_path_factory.mktemp("context")
    left_out = [line[3:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:3] == "**/"]

    def ignored(_, names):
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in left_out)]

    for text in stages()["build"].all("COPY"):
        *sources, target = shlex.split(text)
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, folder / target)
    return folder


@pytest.fixture(scope="module")
def web_environment(context):
    """The web image's environment, made by the web image's commands."""
    made = context / "opt"
    for text in stages()["build-web"].all("RUN"):
        _build(text.replace("/opt/heatbox", str(made)), context)
    return made


def _build(text, context):
    """Run a RUN instruction; pip's own, which installs uv, only as far as uv finds everything."""
    command = re.sub(r"--mount=\S+ ", "", text).replace(
        "python -m pip install --root-user-action=ignore", "uv pip install --dry-run"
    )
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    for argument in stages()["build-worker"].all("ARG"):
        name, value = argument.split("=")
        command = command.replace(f"${{{name}}}", value)
    return run(["/bin/sh", "-c", command], cwd=context, env=environment)


def test_the_web_image_has_no_torch_and_all_files_of_the_package(web_environment):
    python = web_environment / "bin" / "python"
    asked = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in asked.stderr
    assert "postgresql" in run([python, "-c", "import psycopg; print('postgresql')"])
    shown = run([python, "-c", "import heatbox, os; print(os.listdir(os.path.dirname(heatbox.__file__)))"])
    assert "templates" in shown


def test_the_worker_image_gets_torch(context):
    (text,) = [text for text in stages()["build-worker"].all("RUN") if "torch" in text]
    option = "--torch-backend ${TORCH_BACKEND} "
    assert option in text  # it names an index that is not asked here
    assert re.search(
        r"torch-backend.*?\bcpu\b", run([PROGRAMS / "uv", "pip", "install", "--help"]), re.DOTALL
    )
    python = context / "bare" / "bin" / "python"
    run([PROGRAMS / "uv", "venv", "--quiet", context / "bare"])
    command = text.replace(option, "--dry-run ").replace("/opt/heatbox/bin/python", str(python))
    merged = subprocess.STDOUT
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    found = subprocess.run(
        ["/bin/sh", "-c", re.sub(r"--mount=\S+ ", "", command)],
        cwd=context,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=merged,
        text=True,
        check=True,
    ).stdout
    assert {"torch", "torchvision", "scikit-learn", "timm", "captum"} <= set(
        re.findall(r"\+ ([\w-]+)==", found)
    )


@pytest.fixture
def redis_port(services, tmp_path):
    """The Redis of compose.yaml: its command, with folders and a port of the test."""
    service, port = services["redis"], free_port()
    (tmp_path / "run").mkdir()
    (tmp_path / "data").mkdir()
    *shell, text = service["command"]
    text = (
        text.replace("$$", "$").replace("/run/redis", f"{tmp_path}/run").replace("/data", f"{tmp_path}/data")
    )
    environment = {**os.environ, **service["environment"]}
    command = [*shell, f"{text} --port {port} --bind 127.0.0.1"]
    with (tmp_path / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def healthy():
        check = service["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -p {port}")
        asked = subprocess.run(["/bin/sh", "-c", check], env=environment, capture_output=True, check=False)
        return asked.returncode == 0

    wait_until(lambda: healthy() or process.poll() is not None, "redis is healthy", 20)
    yield port
    stop(process, 5)


def test_redis_lets_nobody_in_without_the_password_and_keeps_what_it_has(redis_port, services, tmp_path):
    with (
        Redis(port=redis_port, protocol=2) as stranger,
        pytest.raises(RedisError, match="Authentication required"),
    ):
        stranger.ping()
    with Redis(port=redis_port, password=services["redis"]["environment"]["REDISCLI_AUTH"]) as known:
        known.set("a", "b")
        assert known.config_get("appendonly", "maxmemory-policy") == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
        }
    assert (tmp_path / "data" / "appendonlydir").exists() or (tmp_path / "data" / "appendonly.aof").exists()
    assert (tmp_path / "run" / "password.conf").stat().st_mode & 0o077 == 0


def test_postgres_is_asked_by_a_command_that_it_answers(services, postgres_server):
    check = services["postgres"]["healthcheck"]["test"][1]
    where = f"{postgres_server.programs}/pg_isready --host 127.0.0.1 --port"
    assert "accepting" in run(
        ["/bin/sh", "-c", check.replace("pg_isready", f"{where} {postgres_server.port}")]
    )
    refused = check.replace("pg_isready", f"{where} {free_port()}")
    assert subprocess.run(["/bin/sh", "-c", refused], capture_output=True, check=False).returncode != 0


@pytest.fixture
def places(tiny_store, pictures, tmp_path):
    """The folders of a container, in the test's own."""
    return {
        "HOME": str(tmp_path),
        "HEATBOX_HOME": str(tmp_path / "home"),
        "HEATBOX_STORE": str(tiny_store),
        "HEATBOX_LOCAL_ROOTS": str(pictures),
    }


@pytest.fixture
def container(services, redis_port, postgres_url, places):
    """Start what a container runs, with its environment, and return process, healthcheck and environment."""
    started = []

    def start(name, programs):
        stage, port = stages()[OURS[name]], free_port()
        own = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            **places,
            "HEATBOX_PORT": str(port),
            "HEATBOX_DATABASE_URL": postgres_url,
        }
        given = {**stage.environment, **services[name]["environment"], **own}
        given["HEATBOX_REDIS_URL"] = given["HEATBOX_REDIS_URL"].replace(
            "redis:6379", f"127.0.0.1:{redis_port}"
        )
        command = [shutil.which(stage.command[0], path=str(programs)), *stage.command[1:]]
        process = subprocess.Popen(command, env=given, cwd=places["HOME"])
        started.append(process)
        check = [word.replace(":9090", f":{port}") for word in stage.healthcheck]
        check[0] = shutil.which(check[0], path=str(programs))

        def healthy():
            return subprocess.run(check, env=given, capture_output=True, check=False).returncode == 0

        return process, healthy, given

    yield start
    for process in started:
        stop(process, 20)


def test_the_web_container_answers_its_healthcheck_and_wants_the_password(container, web_environment):
    process, healthy, given = container("heatbox", web_environment / "bin")
    assert not healthy()
    port = int(given["HEATBOX_PORT"])
    wait_until(lambda: listens(port) or process.poll() is not None, "the web service listens", 60)
    assert healthy()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        assert client.get("/health").status_code == 401
        client.auth = (given["HEATBOX_BASIC_AUTH_USER"], given["HEATBOX_BASIC_AUTH_PASSWORD"])
        assert client.get("/health").json()["status"] == "UP"
        assert client.get("/runs").status_code == 200
    process.terminate()
    assert process.wait(20) in {0, -signal.SIGTERM}


def test_the_worker_container_is_healthy_while_its_worker_is_registered(container):
    process, healthy, given = container("worker", PROGRAMS)
    url = given["HEATBOX_REDIS_URL"]
    wait_until(lambda: listening_pids(url) or process.poll() is not None, "the worker is registered", 60)
    assert healthy()
    process.terminate()
    assert process.wait(20) == 0
    assert not healthy()


# What the pages say


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_commands_in_the_pages_exist(page, services):
    lines = re.findall(r"^ *(?:[A-Z_]+=\S+ )*docker compose (.+?)(?: *#.*)?$", page.read_text(), re.MULTILINE)
    for line in lines:
        words = shlex.split(line.replace("--file compose.yaml --file compose.cuda.yaml", ""))
        shown = run([PROGRAMS / "docker-compose", words[0], "--help"])
        end = next((index for index, word in enumerate(words) if word in services), len(words))
        assert all(word in shown for word in words[1:end] if word.startswith("-")), line
        inside = words[end + 1 :] if words[0] in {"run", "exec"} else []
        if words[0] == "exec":
            assert inside.pop(0) == "heatbox"
        if inside:
            _check_heatbox(inside)


def _check_heatbox(words):
    names = words[: next((index for index, word in enumerate(words) if word[0] == "-"), len(words))]
    while names:
        with suppress(AssertionError):
            shown = run([sys.executable, "-m", "heatbox", *names, "--help"])
            break
        names.pop()  # it was an argument
    assert names, words
    assert all(word in shown for word in words if word.startswith("--")), words
