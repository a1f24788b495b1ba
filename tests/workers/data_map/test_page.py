"""The map's page in a real browser: points open what they stand for, labels hide them, nothing is fetched."""

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from heatbox.errors import PictureNotFoundError
from heatbox_workers.data_map.page import MapPoint, cell_side, thumbnail, write_map

EVIL = '</script><img src=x onerror="document.title=1">'


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Where tasks are: a server that has an empty page for each."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/projects/7/data?task="
        server.shutdown()


def point(number, labels, address="#", **more):
    pixels = np.full((96, 96, 3), 40 * number, dtype=np.uint8)
    known = {"name": f"{number}.jpg", "predicted": "cat", **more}
    return MapPoint(href=f"{address}{number}", pixels=pixels, labels=labels, **known)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, address):
    path = tmp_path_factory.mktemp("map") / "new" / "map.html"
    points = [
        point(1, ("cat",), address=address),
        point(2, ("dog",), mistake=True, address=address),
        point(3, None, address=address),
        point(4, (EVIL,), name=EVIL, predicted=EVIL, address=address),
    ]
    places = np.array([[0.0, 0.5], [1.0, 0.5], [0.5, 0.3], [0.5, 0.7]])
    failed = [("gone.jpg", PictureNotFoundError("It is not there.", "Look for it."))]
    write_map(path, points, places, title="A map & more", subtitle="of four", failed=failed)
    return path


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, page_file):
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(page_file.as_uri())
    yield page
    assert page.errors == []
    context.close()


def clicked(page, *numbers):
    """Click on points one after the other and return the first address that is asked for."""
    return opened(page, lambda: [page.click("#map", position=where(page, number)) for number in numbers])


def where(page, number):
    """Return where a point is on the canvas: the outer ones are 36 pixels from its sides."""
    box = page.locator("#map").bounding_box()
    middle = box["width"] / 2
    return {1: {"x": 36, "y": box["height"] / 2}, 2: {"x": 2 * middle - 36, "y": box["height"] / 2}}[number]


def opened(page, act):
    """Return the address that is asked for in a new tab."""
    with page.context.expect_event("request", lambda one: one.url.startswith("http")) as asked:
        act()
    return asked.value.url


@pytest.mark.parametrize("number", [1, 2])
def test_a_click_on_a_point_opens_its_task(page, address, number):
    assert opened(page, lambda: page.click("#map", position=where(page, number))) == f"{address}{number}"


def test_the_keyboard_goes_from_point_to_point_and_opens_one(page, address):
    page.focus("#map")
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert "cat, predicted so too, 1.jpg" in page.inner_text("#told")
    assert opened(page, lambda: page.keyboard.press("Enter")) == f"{address}1"


def test_a_label_that_is_switched_off_hides_its_points(page, address):
    page.hover("#map", position=where(page, 2))
    page.wait_for_selector("#tip:not([hidden])")
    assert "mistake: predicted cat" in page.inner_text("#tip")
    drawn = page.locator("#map").screenshot()
    page.locator("#labels label", has_text="dog").locator("input").uncheck()
    page.wait_for_selector("#tip", state="hidden")
    assert page.locator("#map").screenshot() != drawn
    assert clicked(page, 2, 1) == f"{address}1"
    page.click("#all")
    assert opened(page, lambda: page.click("#map", position=where(page, 2))) == f"{address}2"


def test_mistakes_only_shows_mistakes_and_lists_them(page, address):
    page.check("#wrong")
    assert clicked(page, 1, 2) == f"{address}2"
    assert page.get_attribute("#mistakes a", "href") == f"{address}2"


def test_zooming_in_moves_points_apart_and_the_whole_map_comes_back(page, address):
    page.click("#in")
    page.hover("#map", position=where(page, 1))
    assert page.locator("#tip").is_hidden()
    page.click("#whole")
    assert opened(page, lambda: page.click("#map", position=where(page, 1))) == f"{address}1"


def test_names_and_labels_are_text_and_nothing_is_fetched(page):
    assert page.title() == "A map & more"
    assert page.locator("img").count() == 0
    assert EVIL in page.inner_text("#labels")
    assert [one for one in page.asked if not one.startswith(("file:", "data:"))] == []
    assert page.inner_text("#failed").startswith("Not on the map")


def test_the_page_says_how_many_pictures_and_labels_there_are(page_file):
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', page_file.read_text(), re.DOTALL)[1])
    assert [(one["name"], one["count"]) for one in payload["labels"]] == [("cat", 2), (EVIL, 1), ("dog", 1)]
    assert len({one["colour"] for one in payload["labels"]}) == 3
    assert [one["said"] for one in payload["points"]] == ["cat", "dog", None, EVIL]


def test_many_labels_are_told_apart_up_to_forty_and_the_rest_are_one(tmp_path):
    points = [point(1, (f"label {number:02}",)) for number in range(45)]
    write_map(tmp_path / "map.html", points, np.zeros((45, 2)), title="t", subtitle="s")
    text = (tmp_path / "map.html").read_text()
    labels = json.loads(re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)[1])["labels"]
    assert len({one["colour"] for one in labels}) == len(labels) == 41
    assert labels[-1] == {"name": "(other)", "colour": "#8a8f99", "count": 5}


@pytest.mark.parametrize(("width", "height"), [(300, 100), (20, 500), (1, 1)])
def test_a_thumbnail_is_the_middle_square(width, height):
    assert thumbnail(np.zeros((height, width, 3), dtype=np.uint8), 48).shape == (48, 48, 3)


def test_the_more_pictures_the_smaller_they_are():
    sides = [cell_side(count) for count in (1, 300, 301, 5000, 50_000)]
    assert sides == sorted(sides, reverse=True)
