"""The fetcher against a real server that does what hostile and broken hosts do."""

import base64
import logging
import os
import time
from urllib.parse import quote

import fixtures_hostile as does
import pytest
from fixtures_hostile import hostile_server, png

from heatbox.errors import (
    AddressRefusedError,
    PictureError,
    PictureFetchError,
    PictureSlowError,
    PictureTooLargeError,
    PictureUnreadableError,
    SettingsError,
)
from heatbox.pictures.images import Limits, read_picture

SECRET = "s3cret"  # noqa: S105 - to be looked for


def kept_files(tmp_path):
    return [path for path in (tmp_path / "home" / "picture-cache").rglob("*") if path.is_file()]


def age(path, seconds=61.0):
    """Make the answer about a picture older."""
    moment = time.time() - seconds
    os.utime(path.parent / "answer.json", (moment, moment))


def test_a_picture_is_fetched_and_read(fetcher, hostile):
    hostile.routes["/in/cat.png"] = does.sends(png("blue"), Content_Type="text/html")
    path = fetcher().fetch(f" {hostile.url}/in/cat.png\n")
    assert (path.read_bytes(), path.name) == (png("blue"), "cat.png")
    assert read_picture(path, Limits()).width == 16
    (seen,) = hostile.seen
    assert (seen.headers["Host"], seen.token, seen.headers["Cookie"]) == (hostile.address, None, None)
    assert seen.headers["Accept-Encoding"] == "identity"


def test_a_picture_in_chunks_is_whole(fetcher, hostile):
    hostile.routes["/a.png"] = does.sends_chunks
    assert fetcher().fetch(hostile.url + "/a.png").read_bytes() == png()


OUTCOMES = [
    (
        "a page",
        does.sends(does.LOGIN_PAGE, Content_Type="image/png"),
        PictureFetchError,
        "an HTML page instead",
    ),
    ("xml", does.sends(b"\xef\xbb\xbf <?xml version='1.0'?><Error/>"), PictureFetchError, "XML instead"),
    ("json", does.sends(b'{"detail": "no"}', Content_Type="image/png"), PictureFetchError, "JSON instead"),
    ("nothing", does.sends(b""), PictureFetchError, "answered nothing"),
    ("endless", does.never_ends, PictureTooLargeError, "limit of 100,000"),
    (
        "too long",
        lambda request: request.answer(b"", length=100_001),
        PictureTooLargeError,
        "limit of 100,000",
    ),
    ("drip", does.drips, PictureSlowError, "within 0.3 seconds"),
    ("slow headers", does.drips_headers, PictureSlowError, "within 0.3 seconds"),
    ("silence", does.says_nothing, PictureSlowError, "within 0.3 seconds"),
    ("cut", does.is_cut, PictureFetchError, "cut off"),
    ("cut in chunks", does.is_cut_in_chunks, PictureFetchError, "cut off"),
    ("bomb", does.sends_bomb, PictureFetchError, "compressed"),
    ("no http", does.speaks_no_http, PictureFetchError, "no HTTP"),
    ("circle", does.redirects("/a.png"), PictureFetchError, "more than 5 times"),
    *(
        (str(status), does.refuses(status), PictureFetchError, f"HTTP {status}")
        for status in (401, 403, 404, 503)
    ),
    ("partial", does.refuses(206), PictureFetchError, "HTTP 206"),
    ("unasked 304", does.refuses(304), PictureFetchError, "HTTP 304"),
    ("to a file", does.redirects("file:///etc/passwd"), AddressRefusedError, "redirects"),
    ("to a user", does.redirects("http://a:b@localhost/"), AddressRefusedError, "a user"),
    ("to no name", does.redirects("http://xn--a/"), AddressRefusedError, "no usable host"),
    ("to loopback", does.redirects("http://127.0.0.1:1/"), AddressRefusedError, "not on the public internet"),
    (
        "to metadata",
        does.redirects("http://169.254.169.254/latest"),
        AddressRefusedError,
        "not on the public",
    ),
]


@pytest.mark.parametrize("outcome", [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES])
def test_what_a_hostile_host_does_is_told_and_nothing_of_it_is_kept(fetcher, hostile, tmp_path, outcome):
    hostile.routes["/a.png"], error, words = outcome
    with pytest.raises(error, match=words) as caught:
        fetcher(max_bytes=100_000, fetch_seconds=0.3).fetch(f"{hostile.url}/a.png?key={SECRET}")
    assert type(caught.value) is error
    assert caught.value.remedy
    assert SECRET not in str(caught.value)
    assert kept_files(tmp_path) == []


def test_a_redirect_is_checked_before_it_is_followed(fetcher, hostile, other_host):
    other_host.routes["/a.png"] = does.sends(png())
    hostile.routes["/a.png"] = does.redirects(other_host.url + "/a.png")
    with pytest.raises(AddressRefusedError, match="not on the public internet"):
        fetcher().fetch(hostile.url + "/a.png")
    assert (len(hostile.seen), other_host.seen) == (1, [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_up_to_five_redirects_are_followed(fetcher, hostile, status):
    for number in range(5):
        hostile.routes[f"/{number}"] = does.redirects(f"{number + 1}", status)
    hostile.routes["/5"] = does.sends(png())
    assert fetcher().fetch(hostile.url + "/0").read_bytes() == png()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433"])  # noqa: S104
def test_nothing_of_this_machine_is_asked(fetcher, hostile, host):
    with pytest.raises(AddressRefusedError):
        fetcher(private_hosts=()).fetch(f"http://{host}:{hostile.server_port}/a.png")
    assert hostile.seen == []


def test_a_name_of_a_private_address_is_refused(fetcher, hostile):
    found = fetcher(lambda *_: ["127.0.0.1"])
    with pytest.raises(AddressRefusedError, match=r"'pictures\.example' is not on the public internet"):
        found.fetch(f"http://pictures.example:{hostile.server_port}/a.png")
    assert hostile.seen == []


def test_a_name_that_is_private_a_moment_later_is_not_looked_up_again(fetcher, hostile):
    answers = [["2002:808:808::1"], ["127.0.0.1"]]  # no host of the internet has the first
    found = fetcher(lambda *_: answers.pop(0), fetch_seconds=0.5)
    with pytest.raises((PictureFetchError, PictureSlowError)):
        found.fetch(f"http://pictures.example:{hostile.server_port}/a.png")
    assert (hostile.seen, answers) == ([], [["127.0.0.1"]])


def test_a_name_is_looked_up_again_for_a_new_connection(fetcher, hostile):
    answers = [["127.0.0.1"], OSError("gone")]

    def resolve(*_):
        if isinstance(answers[0], OSError):
            raise answers[0]
        return answers.pop(0)

    host = f"pictures.example:{hostile.server_port}"
    hostile.routes["/a.png"] = does.sends(png(), Connection="close")
    found = fetcher(resolve, private_hosts=(host,))
    found.fetch(f"http://{host}/a.png")
    assert hostile.seen[0].headers["Host"] == host
    with pytest.raises(PictureFetchError, match="No address is known"):
        found.fetch(f"http://{host}/b.png")


def test_the_next_address_of_a_host_is_tried_where_one_does_not_answer(fetcher, hostile):
    hostile.routes["/a.png"] = does.sends(png())
    host = f"pictures.example:{hostile.server_port}"
    found = fetcher(lambda *_: ["127.0.0.9", "127.0.0.1"], private_hosts=(host,))
    assert found.fetch(f"http://{host}/a.png").read_bytes() == png()


def test_a_host_that_nobody_serves_is_told(fetcher):
    with hostile_server() as gone:
        pass
    with pytest.raises(PictureFetchError, match="cannot be reached"):
        fetcher(private_hosts=(gone.address,)).fetch(gone.url + "/a.png")


def test_proxies_of_the_environment_are_not_used(fetcher, hostile, other_host, monkeypatch):
    monkeypatch.setenv("http_proxy", other_host.url)
    monkeypatch.setenv("ALL_PROXY", other_host.url)
    hostile.routes["/a.png"] = does.sends(png())
    fetcher().fetch(hostile.url + "/a.png")
    assert other_host.seen == []


def test_huge_dimensions_in_a_tiny_file_are_found_by_whoever_reads_it(fetcher, hostile):
    hostile.routes["/a.png"] = does.sends(does.huge_png())
    path = fetcher().fetch(hostile.url + "/a.png")
    assert path.stat().st_size < 1000
    with pytest.raises(PictureTooLargeError, match="40000 x 40000"):
        read_picture(path, Limits())


def test_an_svg_is_left_to_whoever_reads_it(fetcher, hostile):
    hostile.routes["/a.svg"] = does.sends(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    with pytest.raises(PictureError, match="SVG"):
        read_picture(fetcher().fetch(hostile.url + "/a.svg"), Limits())


@pytest.mark.parametrize(
    "path",
    [
        "/" + "long" * 2000 + ".png",
        "/käfer 🐞.png",
        "/a%20b%2Fc.png",
        "/100%.png",
        "/%ff%fe.png",
        "/?x=a b&y=ü",
    ],
)
def test_long_and_odd_names_work(fetcher, hostile, path):
    address = quote(path, safe="/?&=%")
    hostile.routes[address] = does.sends(png())
    assert fetcher().fetch(hostile.url + path).read_bytes() == png()


def test_nothing_of_an_address_but_the_pictures_name_is_on_the_disk(fetcher, hostile, tmp_path):
    hostile.routes["/hush/a.png"] = does.sends(png(), ETag='"1"')
    fetcher().fetch(f"{hostile.url}/hush/a.png?X-Amz-Signature={SECRET}&key={SECRET}")
    for path in kept_files(tmp_path):
        shown = str(path.relative_to(tmp_path)).encode() + path.read_bytes()
        assert b"hush" not in shown
        assert SECRET.encode() not in shown
        assert hostile.address.encode() not in shown


def test_a_picture_that_came_a_moment_ago_is_not_asked_for_again(fetcher, hostile):
    hostile.routes["/a.png"] = does.sends(png())
    first = fetcher().fetch(hostile.url + "/a.png")
    assert fetcher().fetch(hostile.url + "/a.png") == first
    assert len(hostile.seen) == 1


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_an_older_picture_is_asked_for_only_if_it_changed(fetcher, hostile, header):
    contents, versions = [png("red"), png("blue")], ['"1"', '"2"']
    hostile.routes["/a.png"] = does.sends_versions(contents, header, versions)
    found, address = fetcher(), hostile.url + "/a.png"
    path = found.fetch(address)
    age(path)
    assert found.fetch(address).read_bytes() == png("red")  # 304
    assert found.fetch(address).read_bytes() == png("red")  # fresh again
    assert len(hostile.seen) == 2
    del contents[0], versions[0]
    age(path)
    with path.open("rb") as reader:
        assert found.fetch(address).read_bytes() == png("blue")
        assert reader.read() == png("red")


def test_a_picture_without_a_version_is_fetched_again(fetcher, hostile):
    hostile.routes["/a.png"] = does.sends(png("red"))
    found, address = fetcher(), hostile.url + "/a.png"
    path = found.fetch(address)
    hostile.routes["/a.png"] = does.sends(png("blue"))
    age(path)
    assert found.fetch(address).read_bytes() == png("blue")
    assert hostile.seen[1].headers["If-None-Match"] is None


def test_an_older_picture_stays_where_the_new_one_breaks_off(fetcher, hostile):
    hostile.routes["/a.png"] = does.sends(png("red"), ETag='"1"')
    found, address = fetcher(), hostile.url + "/a.png"
    path = found.fetch(address)
    hostile.routes["/a.png"] = does.is_cut
    age(path)
    with pytest.raises(PictureFetchError):
        found.fetch(address)
    assert path.read_bytes() == png("red")


def test_two_signatures_of_one_picture_share_it_but_each_is_checked_by_the_host(fetcher, hostile):
    hostile.routes["/a.png"] = does.sends_versions([png()], "ETag", ['"1"'])
    found, address = fetcher(), hostile.url + "/a.png?X-Amz-Expires=60&X-Amz-Signature="
    assert found.fetch(address + "1") == found.fetch(address + "2")
    assert hostile.seen[1].headers["If-None-Match"] == '"1"'
    hostile.routes["/a.png"] = does.refuses(403)
    with pytest.raises(PictureFetchError, match="HTTP 403"):
        found.fetch(address + "3")


@pytest.mark.parametrize("address", ["data:image/png;base64,{}", "DATA:image/png;name=a.png;base64,{}"])
@pytest.mark.parametrize(
    "change", [str, quote, lambda text: text[:9] + "\n " + text[9:]], ids=["as is", "%", "lines"]
)
def test_a_picture_in_the_address_itself_is_decoded(fetcher, address, change):
    text = change(base64.b64encode(png()).decode())
    assert fetcher().fetch(address.format(text)).read_bytes() == png()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("data:image/png;base64,aHVzaA", PictureUnreadableError),
        ("data:image/png;base64,hü==", PictureUnreadableError),
        ("data:image/png;base64," + "A" * 200_000, PictureTooLargeError),
        ("data:text/html;base64,aHVzaA==", AddressRefusedError),
        ("data:image/png,hush", AddressRefusedError),
        ("cat.jpg", AddressRefusedError),
        ("", AddressRefusedError),
        ("/etc/passwd", AddressRefusedError),
        ("file:///etc/passwd", AddressRefusedError),
        ("ftp://host.example/a.png", AddressRefusedError),
        ("http://xn--a/a.png", AddressRefusedError),
    ],
)
def test_other_addresses_are_refused(fetcher, address, error):
    with pytest.raises(error):
        fetcher(max_bytes=100_000).fetch(address)


def test_local_files_are_read_where_they_are(fetcher, tmp_path):
    file = tmp_path / "root" / "data" / "upload" / "cat.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(png())
    found = fetcher(local_roots=(tmp_path / "root",))
    for address in (str(file), f"file://{file}", "/data/local-files/?d=data/upload/cat.png"):
        assert found.fetch(address) == file


def test_a_certificate_of_an_own_authority_is_trusted_only_with_the_setting(fetcher, certificates):
    with hostile_server(certificates / "server.pem") as server:
        server.routes["/a.png"] = does.sends(png())
        known = {"private_hosts": (f"localhost:{server.server_port}", f"127.0.0.1:{server.server_port}")}
        trusting = fetcher(**known, ca_file=certificates / "ca.crt")
        assert trusting.fetch(server.url + "/a.png").read_bytes() == png()
        for found, url in (
            (fetcher(**known), server.url),
            (trusting, server.url.replace("localhost", "127.0.0.1")),
        ):
            with pytest.raises(PictureFetchError, match="certificate of the host") as caught:
                found.fetch(url + "/b.png")
            assert "HEATBOX_CA_FILE" in caught.value.remedy


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_certificates_costs_only_what_is_fetched(fetcher, hostile, tmp_path, content):
    file, local = tmp_path / "ca.pem", tmp_path / "a.png"
    if content is not None:
        file.write_text(content)
    local.write_bytes(png())
    found = fetcher(ca_file=file, local_roots=(tmp_path,))
    assert found.fetch(str(local)) == local
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"'ca\.pem' cannot be used"):
            found.fetch(hostile.url + "/a.png")


def test_no_log_line_shows_an_address(fetcher, hostile, caplog):
    caplog.set_level(logging.INFO)
    hostile.routes["/a.png"] = does.sends(png())
    found = fetcher()
    found.fetch(f"{hostile.url}/a.png?key={SECRET}")
    with pytest.raises(PictureFetchError):
        found.fetch(f"{hostile.url}/b.png?key={SECRET}")
    assert SECRET not in caplog.text
