"""What a person sees: the boxes in Label Studio's editor, in a real browser, at the place that was predicted.

Screenshots are kept in the folder `screenshots`, to look at.
"""

import io
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fixtures_photographs import ELEPHANT
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from heatbox.boxes import Box

pytestmark = pytest.mark.studio

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
MAGENTA = (255, 0, 255)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    f'<Label value="elephant" background="#ff00ff" predicted_values="{ELEPHANT}"/></RectangleLabels></View>'
)
USER, PASSWORD = "test@heatbox.example", "heatbox-test"


@pytest.fixture(scope="module")
def page(studio_server) -> Iterator[Page]:
    """A browser in which somebody has logged in."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, base_url=studio_server.url)
        page.goto("/user/login/")
        page.fill("input[name=email]", USER)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit], input[type=submit]")
        page.wait_for_url(lambda url: "login" not in url, wait_until="domcontentloaded")
        yield page
        browser.close()


@pytest.fixture(scope="module")
def project(way, elephants, tmp_path_factory):
    """A connected project: two photographs and one that is stored turned."""
    turned = tmp_path_factory.mktemp("turned") / "turned.jpg"
    with Image.open(elephants[0]) as picture:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif, quality=95)
    project = way.project(CONFIG, "browser")
    project.tasks = project.upload(elephants[0], elephants[1], turned)
    project.retrieve()
    return project


@dataclass(frozen=True)
class Shown:
    """Where a picture is on the screen, and the part of it that is not cut off."""

    picture: Mapping[str, float]
    canvas: Mapping[str, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where on the screen a place in percent of the picture is."""
        across, down = self.picture["width"] / 100, self.picture["height"] / 100
        return self.picture["x"] + x * across, self.picture["y"] + y * down

    def drawn(self, page: Page) -> dict[str, float]:
        """Return the box that is drawn over the picture, in percent of it."""
        with Image.open(io.BytesIO(page.screenshot(clip=self.canvas))) as screenshot:
            pixels = np.asarray(screenshot.convert("RGB")).astype(int)
        stroke = np.abs(pixels - MAGENTA).max(axis=2) < 60
        rows, columns = np.flatnonzero(stroke.any(axis=1)), np.flatnonzero(stroke.any(axis=0))
        assert rows.size, "nothing is drawn"
        across, down = 100 / self.picture["width"], 100 / self.picture["height"]
        return {
            "x": (columns[0] + self.canvas["x"] - self.picture["x"]) * across,
            "y": (rows[0] + self.canvas["y"] - self.picture["y"]) * down,
            "width": np.ptp(columns) * across,
            "height": np.ptp(rows) * down,
        }


def opened(page: Page, project, task: int) -> Shown:
    """Open a task and return where its picture is."""
    page.goto(f"/projects/{project.id}/data?task={task}")
    expect(page.get_by_role("button", name="Submit").first).to_be_enabled(timeout=60_000)
    canvas = page.locator(".konvajs-content canvas").first
    expect(canvas).to_be_visible(timeout=60_000)
    expect(page.get_by_role("treeitem")).to_contain_text("elephant")
    picture = page.locator("img[alt=image]").first
    expect(picture).to_be_visible()
    return Shown(picture.bounding_box(), canvas.bounding_box())


def keep(page: Page, name: str) -> None:
    """Keep a screenshot to look at."""
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def submit(page: Page, project, task: int):
    """Submit the task and return the one annotation that is then stored."""
    with page.expect_response(lambda one: one.request.method == "POST" and "/annotations" in one.url):
        page.get_by_role("button", name="Submit").first.click()
    (annotation,) = project.way.api.get(f"/api/tasks/{task}/annotations/").json()
    return annotation


def iou(first, second):
    """Return the IoU of two boxes in percent."""
    return Box.from_percent(first, 1000, 1000).iou(Box.from_percent(second, 1000, 1000))


@pytest.mark.parametrize("index", [0, 2], ids=["upright", "turned"])
def test_the_box_is_drawn_where_it_was_predicted(page, project, index):
    task = project.tasks[index]
    shown = opened(page, project, task)
    keep(page, f"box-{index}")
    assert iou(shown.drawn(page), project.regions(task)[0]["value"]) > 0.95


def test_an_accepted_box_is_stored_as_predicted(page, project):
    task = project.tasks[0]
    opened(page, project, task)
    annotation = submit(page, project, task)
    (region,) = annotation["result"]
    assert region["origin"] == "prediction"
    assert region["meta"]["heatbox"]["version"] == project.version
    assert annotation["parent_prediction"] == project.predictions(task)[0]["id"]


def test_a_moved_box_is_stored_as_changed(page, project):
    task = project.tasks[1]
    shown = opened(page, project, task)
    before = project.regions(task)[0]["value"]
    x, y = shown.at(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.click(x, y)
    expect(page.locator("input[name=x], label:has-text('X')").first).to_be_visible()  # it is selected
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 10, steps=5)
    page.mouse.up()
    keep(page, "moved")
    (region,) = submit(page, project, task)["result"]
    assert region["origin"] == "prediction-changed"
    assert region["value"]["x"] - before["x"] == pytest.approx(100 * 20 / shown.picture["width"], abs=1)
    assert len(project.predictions(task)) == 1
