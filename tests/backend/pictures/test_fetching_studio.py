"""The fetcher and Label Studio: uploads, local files, cloud addresses, and where its token goes and does not."""

import socket
import time
from pathlib import Path

import fixtures_hostile as does
import pytest
from fixtures_hostile import LEGACY, PERSONAL, hostile_server, png

from heatbox.errors import (
    AddressRefusedError,
    PictureFetchError,
    PictureNotFoundError,
    PictureSlowError,
    SettingsError,
    StudioError,
)
from heatbox.pictures.fetching import check_access
from heatbox.settings import Settings

UPLOAD = "/data/upload/7/1f2e-cat.png"
RESOLVE = "/tasks/7/resolve/?fileuri=czM6Ly9iL2NhdC5wbmc%3D"
TOKEN = f"Token {LEGACY}"


@pytest.fixture
def studio(hostile, fetcher):
    """Return a function that makes fetchers which know the hostile server as Label Studio."""

    def make(path="", key=LEGACY, **settings):
        known = {"studio_url": hostile.url + path, "studio_api_key": key, "private_hosts": ()}
        return fetcher(**{**known, **settings})

    return make


def tokens(server):
    return [seen.token for seen in server.seen]


@pytest.mark.parametrize("path", ["", "/ls", "/ls/"])
@pytest.mark.parametrize("written", ["{below}", "{root}{below}", "{url}{root}{below}"])
def test_an_upload_is_fetched_with_the_token_also_below_a_path(studio, hostile, path, written):
    root = path.rstrip("/")
    hostile.routes[root + UPLOAD] = does.wants({TOKEN}, png())
    address = written.format(below=UPLOAD, root=root, url=hostile.url)
    assert studio(path).fetch(address).read_bytes() == png()
    assert tokens(hostile) == [TOKEN]


def test_a_personal_token_is_exchanged_once_for_several_pictures(studio, hostile):
    found = studio(key=PERSONAL)
    for name in ("a.png", "b.png"):
        hostile.routes[f"/data/upload/7/{name}"] = does.wants({"Bearer access-1"}, png())
        found.fetch(f"/data/upload/7/{name}")
    assert (hostile.exchanged, tokens(hostile)) == (1, ["Bearer access-1"] * 2)


def test_an_access_token_that_ends_in_the_middle_is_renewed_once(studio, hostile):
    found = studio(key=PERSONAL)
    hostile.routes["/data/upload/7/a.png"] = does.wants({"Bearer access-1"}, png())
    hostile.routes[UPLOAD] = does.wants({"Bearer access-2"}, png())
    found.fetch("/data/upload/7/a.png")
    assert found.fetch(UPLOAD).read_bytes() == png()
    assert tokens(hostile) == ["Bearer access-1", "Bearer access-1", "Bearer access-2"]


@pytest.mark.parametrize(("key", "asked"), [(LEGACY, 1), (PERSONAL, 2)])
def test_a_token_that_stays_refused_is_told_without_being_shown(studio, hostile, key, asked):
    hostile.routes[UPLOAD] = does.refuses(401)
    with pytest.raises(PictureFetchError, match="HTTP 401") as caught:
        studio(key=key).fetch(UPLOAD)
    assert "HEATBOX_STUDIO_API_KEY" in caught.value.remedy
    assert len(hostile.seen) == asked
    assert not [secret for secret in (LEGACY, PERSONAL, "access-") if secret in str(caught.value)]


@pytest.mark.parametrize(
    "address",
    [
        "{url}/ls2/data/upload/7/1f2e-cat.png",
        "{url}/data/upload/7/1f2e-cat.png",
        "{url}/ls/../data/upload/7/1f2e-cat.png",
        "{url}/ls/api/projects/",
        "{url}/ls/data/upload/%2e%2e/%2e%2e/api/projects/",
    ],
)
def test_a_neighbour_of_label_studio_on_the_same_host_gets_no_token(studio, hostile, address):
    found = studio("/ls")
    with pytest.raises(PictureFetchError, match="HTTP 404"):
        found.fetch(address.format(url=hostile.url))
    assert tokens(hostile) == [None]


def test_another_port_of_the_same_host_gets_no_token(studio, other_host):
    other_host.routes[UPLOAD] = does.sends(png())
    studio(private_hosts=(other_host.address,)).fetch(other_host.url + UPLOAD)
    assert tokens(other_host) == [None]


def test_another_port_of_the_same_host_is_not_even_asked_unless_the_settings_name_it(studio, other_host):
    with pytest.raises(AddressRefusedError):
        studio().fetch(other_host.url + UPLOAD)
    assert other_host.seen == []


def test_a_redirect_to_another_host_goes_without_the_token(studio, hostile, other_host):
    other_host.routes["/a.png"] = does.sends(png())
    hostile.routes[UPLOAD] = does.redirects(other_host.url + "/a.png")
    studio(private_hosts=(other_host.address,)).fetch(UPLOAD)
    assert (tokens(hostile), tokens(other_host)) == ([TOKEN], [None])


def test_a_redirect_within_label_studio_keeps_the_token(studio, hostile):
    hostile.routes[UPLOAD] = does.redirects("/data/upload/7/b.png")
    hostile.routes["/data/upload/7/b.png"] = does.wants({TOKEN}, png())
    assert studio().fetch(UPLOAD).read_bytes() == png()


def test_a_redirect_out_and_back_has_lost_the_token(studio, hostile, other_host):
    hostile.routes[UPLOAD] = does.redirects(other_host.url + "/back")
    other_host.routes["/back"] = does.redirects(hostile.url + "/data/upload/7/b.png")
    hostile.routes["/data/upload/7/b.png"] = does.sends(png())
    studio(private_hosts=(other_host.address,)).fetch(UPLOAD)
    assert tokens(hostile) == [TOKEN, None]


def test_another_host_that_leads_to_label_studio_gets_no_token_out(studio, hostile, other_host):
    other_host.routes["/a.png"] = does.redirects(hostile.url + UPLOAD)
    hostile.routes[UPLOAD] = does.wants({TOKEN}, png())
    with pytest.raises(PictureFetchError, match="HTTP 401"):
        studio(private_hosts=(other_host.address,)).fetch(other_host.url + "/a.png")
    assert tokens(hostile) == [None]


def test_a_login_page_is_told_as_one(studio, hostile):
    hostile.routes[UPLOAD] = does.redirects("/user/login/?next=hush")
    hostile.routes["/user/login/"] = does.sends(does.LOGIN_PAGE)
    with pytest.raises(PictureFetchError, match="an HTML page") as caught:
        studio().fetch(UPLOAD)
    assert "login" in caught.value.remedy
    assert "hush" not in str(caught.value)


def test_a_cloud_address_is_resolved_and_its_presigned_address_gets_no_token(studio, hostile, other_host):
    hostile.routes[RESOLVE] = does.redirects(other_host.url + "/b/cat.png?X-Amz-Signature=1", 303)
    other_host.routes["/b/cat.png"] = does.sends_versions([png()], "ETag", ['"1"'])
    found = studio(private_hosts=(other_host.address,))
    path = found.fetch("s3://b/cat.png", 7)
    assert (path.read_bytes(), path.name) == (png(), "cat.png")
    assert (hostile.paths(), tokens(hostile), tokens(other_host)) == ([RESOLVE], [TOKEN], [None])
    assert found.fetch("s3://b/cat.png", 7) == path
    assert len(hostile.seen) == 1


def test_a_task_that_may_not_see_a_cloud_picture_does_not_get_it_from_the_cache(studio, hostile):
    hostile.routes[RESOLVE] = does.sends(png(), ETag='"1"')
    found = studio()
    found.fetch("s3://b/cat.png", 7)
    with pytest.raises(PictureFetchError, match="HTTP 404") as caught:
        found.fetch("s3://b/cat.png", 8)
    assert "storage" in caught.value.remedy


def test_a_presigned_address_in_the_private_network_needs_the_setting(studio, hostile, other_host):
    hostile.routes[RESOLVE] = does.redirects(other_host.url + "/b/cat.png?X-Amz-Signature=hush", 303)
    with pytest.raises(AddressRefusedError) as caught:
        studio().fetch("s3://b/cat.png", 7)
    assert f"Add {other_host.address} to HEATBOX_PRIVATE_HOSTS" in caught.value.remedy
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "written", ["/data/local-files/?d=in/cat.png", "{url}/ls/data/local-files/?d=in/cat.png"]
)
def test_a_local_file_that_is_not_here_is_fetched_from_label_studio(studio, hostile, tmp_path, written):
    hostile.routes["/ls/data/local-files/?d=in/cat.png"] = does.wants({TOKEN}, png())
    path = studio("/ls", local_roots=(tmp_path,)).fetch(written.format(url=hostile.url))
    assert (path.read_bytes(), path.name) == (png(), "cat.png")


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("http://studio.example/data/local-files/?d=cat.png", PictureNotFoundError),
        ("/data/local-files/?d=../cat.png", AddressRefusedError),
        ("{url}/data/local-files/?d=a/%2e%2e/cat.png", AddressRefusedError),
        ("/data/upload/../../api/projects/", AddressRefusedError),
        ("/etc/passwd", AddressRefusedError),
    ],
)
def test_other_local_addresses_are_not_asked_of_anybody(studio, hostile, tmp_path, address, error):
    with pytest.raises(error):
        studio(local_roots=(tmp_path,)).fetch(address.format(url=hostile.url))
    assert hostile.seen == []


@pytest.mark.parametrize("written", ["{below}", "{url}{below}"])
def test_a_picture_of_another_task_is_not_opened(studio, hostile, written):
    address = written.format(url=hostile.url, below=RESOLVE.replace("/7/", "/77/"))
    with pytest.raises(AddressRefusedError, match="opens a cloud address"):
        studio().fetch(address, 7)
    assert hostile.seen == []


@pytest.mark.parametrize("address", [UPLOAD, "s3://b/cat.png", "gs://b/cat.png", "azure-blob://b/cat.png"])
@pytest.mark.parametrize("missing", ["studio_url", "studio_api_key"])
def test_without_label_studio_its_pictures_say_what_to_set(studio, hostile, address, missing):
    with pytest.raises(AddressRefusedError) as caught:
        studio(**{missing: ""}).fetch(address, 7)
    assert "LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in caught.value.remedy
    assert hostile.seen == []


UNUSABLE = [
    {"studio_url": "localhost:8080"},
    {"studio_url": "http://xn--a:8080"},
    {"studio_url": "http://1.2.3"},
    {"key": "my token"},
]


@pytest.mark.parametrize("wrong", UNUSABLE)
def test_what_is_wrong_with_label_studio_costs_only_the_pictures_that_need_it(
    studio, hostile, tmp_path, wrong
):
    hostile.routes["/a.png"] = does.sends(png())
    (tmp_path / "b.png").write_bytes(png())
    found = studio(**wrong, private_hosts=(hostile.address,), local_roots=(tmp_path,))
    assert found.fetch(hostile.url + "/a.png").read_bytes() == png()
    assert found.fetch("/data/local-files/?d=b.png") == tmp_path / "b.png"
    for address in (
        UPLOAD,
        "s3://b/cat.png",
        "/data/local-files/?d=gone.png",
        "/data/local-files/?d=gone.png",
    ):
        with pytest.raises(SettingsError, match="Label Studio"):
            found.fetch(address, 7)
    with pytest.raises(AddressRefusedError):
        found.fetch("/etc/passwd")


@pytest.mark.parametrize("wrong", [*UNUSABLE, {"ca_file": Path("gone.pem")}])
def test_what_is_wrong_with_the_settings_is_told_at_the_start(wrong):
    known = {"studio_url": "http://studio.example", "studio_api_key": wrong.get("key", LEGACY)}
    settings = Settings(**{**known, **{name: wrong[name] for name in wrong if name != "key"}})
    with pytest.raises(SettingsError):
        check_access(settings)


def test_pictures_behind_a_label_studio_that_is_silent_wait_for_it_once(studio):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = studio(studio_url=url, key=PERSONAL, fetch_seconds=0.5)
        began = time.monotonic()
        for number in range(6):
            with pytest.raises((StudioError, PictureSlowError)):
                found.fetch(f"/data/upload/7/{number}.png")
        assert 0.4 < time.monotonic() - began < 1.5


def test_label_studio_may_have_a_certificate_of_an_own_authority(studio, certificates):
    with hostile_server(certificates / "server.pem") as server:
        server.routes[UPLOAD] = does.wants({"Bearer access-1"}, png())
        found = studio(studio_url=server.url, key=PERSONAL, ca_file=certificates / "ca.crt")
        assert found.fetch(UPLOAD).read_bytes() == png()


def test_label_studio_is_not_asked_without_tls_because_it_says_so(studio, certificates, other_host):
    with hostile_server(certificates / "server.pem") as server:
        server.routes[UPLOAD] = does.redirects(other_host.url + "/a.png")
        known = {"ca_file": certificates / "ca.crt", "private_hosts": (other_host.address,)}
        with pytest.raises(AddressRefusedError, match="redirects"):
            studio(studio_url=server.url, **known).fetch(UPLOAD)
    assert other_host.seen == []
