"""A fetcher for the tests of pictures: its home is of one test alone, and the hostile server counts as allowed."""

import pytest

from heatbox.pictures.fetching import Fetcher
from heatbox.pictures.guard import resolve_by_dns
from heatbox.settings import Settings


@pytest.fixture
def fetcher(tmp_path, hostile):
    """Return a function that makes fetchers."""
    made = []

    def make(resolve=resolve_by_dns, **settings):
        known = {"home": tmp_path / "home", "private_hosts": (hostile.address,), "fetch_seconds": 10.0}
        made.append(Fetcher(Settings(**{**known, **settings}), resolve=resolve))
        return made[-1]

    yield make
    for one in made:
        one.close()
