"""What docker/compose.yaml asks and gives a Label Studio, tried on a real one outside a container."""

import shutil
import subprocess

import httpx
import pytest
from fixtures_docker import composed, example

pytestmark = pytest.mark.studio


def test_label_studio_answers_its_healthcheck_and_a_port_without_it_does_not(studio_server):
    _, *command = composed()["services"]["label-studio"]["healthcheck"]["test"]
    program = shutil.which(command[0])
    for address, well in ((studio_server.url, True), ("http://127.0.0.1:9", False)):
        words = [word.replace("http://127.0.0.1:8080", address) for word in command]
        asked = subprocess.run([program, *words[1:]], capture_output=True, check=False)
        assert (asked.returncode == 0) is well


def test_the_token_of_the_example_has_the_form_that_label_studio_takes(studio_server):
    assert len(example()["LABEL_STUDIO_TOKEN"]) == len(studio_server.token) == 40
    assert httpx.get(f"{studio_server.url}/api/current-user/whoami", headers=studio_server.headers).is_success
