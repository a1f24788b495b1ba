"""The fetcher against a real Label Studio: an upload, and a picture in a bucket."""

import fixtures_hostile as does
import httpx
import pytest
from fixtures_hostile import HostileServer, png

from heatbox.errors import AddressRefusedError, PictureFetchError
from heatbox.labelling.config import make_label_config
from heatbox.pictures.fetching import Fetcher
from heatbox.settings import Settings

pytestmark = pytest.mark.studio


LISTING = (
    b"<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Name>bucket</Name>"
    b"<KeyCount>1</KeyCount><Contents><Key>in/cat.png</Key><Size>9</Size></Contents></ListBucketResult>"
)


class Room:
    """A project of one test, and what Label Studio says to requests."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api
        config = make_label_config(["cat"])
        self.project = self.made("/api/projects/", json={"title": "Pictures", "label_config": config})["id"]

    def made(self, address: str, **content) -> dict:
        answer = self.api.post(address, **content)
        assert answer.is_success, answer.text
        return answer.json()

    def connect_bucket(self, server: HostileServer) -> None:
        server.routes["/bucket"] = does.sends(LISTING)
        storage = {
            "project": self.project,
            "bucket": "bucket",
            "prefix": "in",
            "use_blob_urls": True,
            "presign": True,
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "s3_endpoint": server.url,
            "region_name": "us-east-1",
        }
        self.made("/api/storages/s3", json=storage)

    def tasks(self) -> list[dict]:
        answer = self.api.get("/api/tasks/", params={"project": self.project, "resolve_uri": "false"})
        return sorted(answer.json()["tasks"], key=lambda task: task["id"])


@pytest.fixture
def room(studio):
    return Room(studio)


@pytest.fixture
def fetcher(studio_server, tmp_path):
    made = []

    def make(key=studio_server.token, **settings):
        known = {"home": tmp_path / "home", "studio_url": studio_server.url, "studio_api_key": key}
        made.append(Fetcher(Settings(**known, **settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_upload_is_fetched_with_the_token(room, fetcher):
    room.made(f"/api/projects/{room.project}/import", files={"file": ("käfer 1.png", png())})
    (task,) = room.tasks()
    path = fetcher().fetch(task["data"]["image"])
    assert path.read_bytes() == png()
    assert path.name.endswith("käfer_1.png")


def test_a_wrong_token_is_told(room, fetcher):
    room.made(f"/api/projects/{room.project}/import", files={"file": ("a.png", png())})
    (task,) = room.tasks()
    with pytest.raises(PictureFetchError, match="HTTP 401"):
        fetcher("0" * 40).fetch(task["data"]["image"])


def test_a_picture_in_a_bucket_comes_by_a_presigned_address_without_the_token(room, fetcher, hostile):
    room.connect_bucket(hostile)
    hostile.routes["/bucket/in/cat.png"] = does.sends_versions([png()], "ETag", ['"1"'])
    room.made(f"/api/projects/{room.project}/import", json=[{"image": "s3://bucket/in/cat.png"}] * 2)
    first, second = (task["id"] for task in room.tasks())
    found = fetcher(private_hosts=(hostile.address,))
    path = found.fetch("s3://bucket/in/cat.png", first)
    assert (path.read_bytes(), path.name) == (png(), "cat.png")
    assert found.fetch("s3://bucket/in/cat.png", second) == path
    presigned = hostile.seen[-2:]
    assert [seen.token for seen in presigned] == [None, None]
    assert ["X-Amz-Signature=" in seen.path for seen in presigned] == [True, True]
    assert presigned[1].headers["If-None-Match"] == '"1"'


def test_a_bucket_in_the_private_network_must_be_named(room, fetcher, hostile):
    room.connect_bucket(hostile)
    room.made(f"/api/projects/{room.project}/import", json=[{"image": "s3://bucket/in/cat.png"}])
    (task,) = room.tasks()
    with pytest.raises(AddressRefusedError) as caught:
        fetcher().fetch("s3://bucket/in/cat.png", task["id"])
    assert hostile.address in caught.value.remedy


def test_a_bucket_that_no_storage_of_the_project_has_is_told(room, fetcher):
    room.made(f"/api/projects/{room.project}/import", json=[{"image": "s3://other/cat.png"}])
    (task,) = room.tasks()
    with pytest.raises(PictureFetchError, match="HTTP 404") as caught:
        fetcher().fetch("s3://other/cat.png", task["id"])
    assert "storage" in caught.value.remedy
