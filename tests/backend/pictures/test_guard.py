"""The guard: which addresses are public, which hosts may be private, and that a name is looked up once."""

import threading

import pytest

from heatbox.errors import AddressRefusedError, PictureFetchError, SettingsError
from heatbox.pictures.guard import Guard, is_public
from heatbox.settings import read_settings

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),  # noqa: S104 - refused
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254"),
    *("ff02::1", "2001:db8::1", "2001:0:1::1", "100::1", "4000::1", "::127.0.0.1", "::8.8.8.8"),
    *(
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
    ),
]


def guard(*allowed, names=None):
    return Guard(allowed, lambda host, _: names[host] if names else [])


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_asked(address):
    assert is_public(address)
    assert guard(names={"pictures.example": [address]}).addresses("pictures.example", 80, 1) == [address]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused_as_itself_and_behind_a_name(address):
    found = guard(names={"pictures.example": [address]})
    for host in (address, "pictures.example"):
        with pytest.raises(AddressRefusedError, match="not on the public internet") as caught:
            found.addresses(host, 80, 1)
        assert "HEATBOX_PRIVATE_HOSTS" in caught.value.remedy


def test_one_private_address_among_public_ones_is_enough_to_refuse_a_name():
    found = guard(names={"pictures.example": ["8.8.8.8", "10.0.0.1"]})
    with pytest.raises(AddressRefusedError):
        found.addresses("pictures.example", 80, 1)


@pytest.mark.parametrize(
    "host",
    [
        "0177.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "127.0.0.1.",
        "8.8.8.0x8",
        "a b",
        "a%41",
        "",
    ],
)
def test_odd_spellings_of_an_address_and_of_a_host_are_refused(host):
    with pytest.raises(AddressRefusedError, match="no usable host"):
        guard("127.0.0.1", names={host: ["8.8.8.8"]}).addresses(host, 80, 1)


@pytest.mark.parametrize(
    ("allowed", "host", "port"),
    [
        ("minio", "minio", 9000),
        ("minio:9000", "minio", 9000),
        ("MinIO:9000", "minio", 9000),
        ("minio:80", "minio", 80),
        ("bücher", "xn--bcher-kva", 80),
        ("10.0.0.7", "10.0.0.7", 80),
        ("::1", "::1", 80),
        ("[::1]", "::1", 80),
        ("[0:0::1]:81", "::1", 81),
        ("[::1]:81", "0:0::1", 81),
    ],
)
def test_a_host_that_the_settings_name_may_have_a_private_address(allowed, host, port):
    assert guard(allowed, names={host: ["10.0.0.7"]}).addresses(host, port, 1)


@pytest.mark.parametrize(
    ("host", "port"), [("minio", 80), ("minio.example", 9000), ("10.0.0.7", 9000), ("xminio", 9000)]
)
def test_other_ports_hosts_and_its_address_are_not_allowed_with_it(host, port):
    with pytest.raises(AddressRefusedError):
        guard("minio:9000", names={host: ["10.0.0.7"]}).addresses(host, port, 1)


@pytest.mark.parametrize(
    "allowed",
    ["0177.0.0.1", "127.1:80", "1.2.3", "-:x", "a:0", "a:99999", "a@b", "a/b", "a?b", "xn--a:80:", "[::1"],
)
def test_what_names_no_host_is_told_by_the_settings_and_by_the_guard_alike(allowed):
    with pytest.raises(ValueError, match="not HOST or HOST:PORT"):
        guard(allowed)
    with pytest.raises(SettingsError, match=r"HEATBOX_PRIVATE_HOSTS cannot be .* not HOST or HOST:PORT"):
        read_settings({"HEATBOX_PRIVATE_HOSTS": allowed})


@pytest.mark.parametrize("error", [OSError("no such name"), UnicodeError("label too long")])
def test_a_name_without_an_address_is_told(error):
    def fail(*_):
        raise error

    with pytest.raises(PictureFetchError, match=r"No address is known for the host 'a\.example'"):
        Guard([], fail).addresses("a.example", 80, 1)


def test_a_resolver_that_does_not_answer_is_not_waited_for():
    over = threading.Event()
    with pytest.raises(TimeoutError):
        Guard([], lambda *_: [str(over.wait(10))]).addresses("a.example", 80, 0.05)
    over.set()
