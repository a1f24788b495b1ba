"""The client that background runs use, against a real Label Studio: tokens, cursors, filters, what is stored."""

from collections.abc import Iterator

import httpx
import pytest

from heatbox.errors import StudioRefusedError
from heatbox.labelling.config import make_label_config
from heatbox.studio.client import Studio, StudioTask
from heatbox.studio.task_filter import TaskFilter, parse_filter

pytestmark = pytest.mark.studio

CONFIG = make_label_config(["cat"])
VERSION = "heatbox-grad_cam-test-0123456789"
OLDER = "heatbox-cam-test-abcdef0123"
REGION = {
    "id": "a",
    "type": "rectanglelabels",
    "from_name": "label",
    "to_name": "image",
    "original_width": 10,
    "original_height": 10,
    "value": {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]},
}


class Room:
    """A project of one test, its tasks, and the client."""

    def __init__(self, api: httpx.Client, client: Studio, size: int) -> None:
        self.api, self.client = api, client
        self.project = self._made("/api/projects/", {"title": "Client", "label_config": CONFIG})["id"]
        tasks = [{"image": f"http://photos.example/{number}.jpg"} for number in range(size)]
        address = f"/api/projects/{self.project}/import?return_task_ids=true"
        self.ids = self._made(address, tasks)["task_ids"] if tasks else []

    def _made(self, address: str, content) -> dict:
        answer = self.api.post(address, json=content)
        assert answer.is_success, answer.text
        return answer.json()

    def push(self, version: str, *places: int) -> int:
        return self.client.push(self.project, [prediction(self.ids[place], version) for place in places])

    def label(self, *places: int) -> None:
        for place in places:
            self._made(f"/api/tasks/{self.ids[place]}/annotations/", {"result": [REGION]})

    def delete(self, *places: int) -> None:
        for place in places:
            assert self.api.delete(f"/api/tasks/{self.ids[place]}/").is_success

    def view(self, conjunction: str, *conditions: tuple) -> int:
        items = [dict(zip(("filter", "operator", "type", "value"), one, strict=True)) for one in conditions]
        data = {
            "title": "Tab",
            "filters": {"conjunction": conjunction, "items": items},
            "ordering": ["-tasks:id"],
        }
        return self._made("/api/dm/views/", {"project": self.project, "data": data})["id"]

    def pages(self, filters: TaskFilter = TaskFilter(), **options) -> Iterator[list[StudioTask]]:  # noqa: B008 - frozen
        after = 0
        while page := self.client.tasks(self.project, filters, after, **options):
            yield page
            after = page[-1].id

    def places(self, *texts: str) -> list[int]:
        """Return which tasks, by their place, the filter takes; asserts that they are counted alike."""
        filters = parse_filter(texts)
        found = [self.ids.index(task.id) for page in self.pages(filters, page_size=3) for task in page]
        assert self.client.count_tasks(self.project, filters) == len(found)
        return found


def prediction(task: int, version: str) -> dict:
    return {"task": task, "model_version": version, "score": 0.5, "result": [REGION]}


@pytest.fixture(scope="module")
def client(studio_server):
    with Studio(studio_server.url, studio_server.token) as connected:
        yield connected


@pytest.fixture
def make_room(studio, client):
    return lambda size: Room(studio, client, size)


@pytest.fixture(scope="module")
def personal_token(studio_server):
    answer = httpx.post(f"{studio_server.url}/api/token/", headers=studio_server.headers, timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.json()["token"]


def test_a_project_is_read_with_either_token(studio_server, make_room, personal_token):
    room = make_room(0)
    for token in (studio_server.token, personal_token):
        with Studio(studio_server.url, token) as client:
            project = client.project(room.project)
        assert (project.id, project.title) == (room.project, "Client")
        assert project.label_config.strip() == CONFIG.strip()


def test_a_personal_token_may_do_all_that_a_run_does(studio_server, make_room, personal_token):
    room = make_room(2)
    with Studio(studio_server.url, personal_token) as room.client:
        assert room.push(VERSION, 0, 1) == 2
        ((number, _),) = room.client.predictions(room.project, room.ids)[room.ids[0]]
        room.client.delete_prediction(number)
        assert [task.has_version for page in room.pages(version=VERSION) for task in page] == [False, True]


@pytest.mark.parametrize("token", ["f" * 40, "head3r.payl0ad.signatur3"])
def test_a_wrong_token_is_refused(studio_server, token):
    with Studio(studio_server.url, token) as client, pytest.raises(StudioRefusedError, match="HTTP 401"):
        client.project(1)


def test_an_unknown_project_is_refused(client):
    for ask in (client.project, client.tasks, client.count_tasks, lambda number: client.push(number, [])):
        with pytest.raises(StudioRefusedError, match="HTTP 404") as caught:
            ask(99_999)
        assert "Check the numbers" in caught.value.remedy


def test_an_empty_project_has_no_tasks(make_room):
    room = make_room(0)
    assert (list(room.pages()), room.places()) == ([], [])


def test_tasks_come_page_by_page_as_they_were_imported(make_room):
    room = make_room(7)
    pages = list(room.pages(page_size=3))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [task.id for page in pages for task in page] == room.ids
    assert pages[0][1].data == {"image": "http://photos.example/1.jpg"}


def test_tasks_that_go_between_two_pages_shift_nothing(make_room):
    room = make_room(9)
    pages = room.pages(page_size=3)
    first = next(pages)
    room.delete(0, 2, 4)
    rest = [task.id for page in pages for task in page]
    assert [task.id for task in first] + rest == [*room.ids[:4], *room.ids[5:]]


def test_addresses_of_a_storage_come_as_predict_gets_them(make_room, studio):
    room = make_room(1)
    studio.patch(
        f"/api/tasks/{room.ids[0]}/", json={"data": {"image": "s3://bucket/a.jpg"}}
    ).raise_for_status()
    ((task,),) = room.pages()
    assert task.data == {"image": "s3://bucket/a.jpg"}


@pytest.mark.parametrize(
    "near",
    [VERSION[:-1], f"{VERSION}0", f"my-{VERSION}", VERSION.upper(), VERSION.replace("_", "x"), "undefined"],
)
def test_only_the_exact_version_counts_as_stored(make_room, near):
    room = make_room(3)
    room.push(near, 0, 1)
    room.push(VERSION, 1)
    ((*tasks,),) = room.pages(version=VERSION)
    assert [task.has_version for task in tasks] == [False, True, False]
    assert room.client.stored(room.project, VERSION, room.ids).holding == {room.ids[1]}


def test_a_version_is_found_among_more_than_label_studio_lists(make_room):
    room = make_room(2)
    versions = [f"heatbox-cam-a_rather_long_name_of_a_model-{number:010x}" for number in range(14)]
    for version in versions:
        room.push(version, 0)
    for version in versions:
        ((*tasks,),) = room.pages(version=version)
        assert [task.has_version for task in tasks] == [True, False]
    assert room.client.stored(room.project, versions[3], room.ids).holding == {room.ids[0]}
    assert room.client.stored(room.project, VERSION, room.ids).holding == set()


def test_what_is_stored_tells_deleted_tasks_duplicates_and_older_versions(make_room):
    room = make_room(6)
    room.push(VERSION, 0, 1, 2, 3)
    room.push(VERSION, 1)
    room.push(OLDER, 2, 4)
    room.push("somebody's own", 5)
    room.delete(3)
    stored = room.client.stored(room.project, VERSION, [*room.ids, 99_999_999])
    gone, *_ = [room.ids[3]]
    assert stored.existing == {*room.ids} - {gone}
    assert stored.holding == {*room.ids[:3]}
    assert stored.older == {room.ids[2], room.ids[4]}
    found = [number for number, _ in room.client.predictions(room.project, room.ids)[room.ids[1]]]
    assert stored.duplicates == {room.ids[1]: tuple(sorted(found))}


def test_tasks_of_another_project_do_not_exist_in_this_one(make_room):
    room, other = make_room(1), make_room(1)
    assert room.client.stored(room.project, VERSION, other.ids).existing == set()


def test_a_thousand_tasks_are_pushed_and_confirmed(make_room):
    room = make_room(1000)
    assert room.push(VERSION, *range(500)) == 500
    stored = room.client.stored(room.project, VERSION, room.ids)
    assert (len(stored.existing), stored.holding) == (1000, {*room.ids[:500]})


def test_one_task_that_is_gone_refuses_the_push_and_nothing_is_stored(make_room):
    room = make_room(3)
    room.delete(1)
    with pytest.raises(StudioRefusedError, match=f"Invalid task ID {room.ids[1]}"):
        room.push(VERSION, 0, 1, 2)
    assert room.client.stored(room.project, VERSION, room.ids).holding == set()


def test_a_wrong_prediction_refuses_the_push(make_room):
    room = make_room(1)
    wrong = prediction(room.ids[0], VERSION) | {"result": [{**REGION, "from_name": "boxes"}]}
    with pytest.raises(StudioRefusedError, match="boxes"):
        room.client.push(room.project, [wrong])


def test_predictions_are_listed_with_their_versions_and_deleted_by_number(make_room):
    room = make_room(2)
    room.push(OLDER, 0, 1)
    room.push(VERSION, 0)
    found = room.client.predictions(room.project, room.ids)
    assert [sorted(version for _, version in found[task]) for task in room.ids] == [[OLDER, VERSION], [OLDER]]
    number = {version: number for number, version in found[room.ids[0]]}[OLDER]
    for _ in range(2):
        room.client.delete_prediction(number)
    assert [version for _, version in room.client.predictions(room.project, room.ids)[room.ids[0]]] == [
        VERSION
    ]


def test_labelled_and_predicted_tasks_can_be_left_out(make_room):
    room = make_room(6)
    room.label(0, 3)
    room.push("somebody's own", 1, 3)
    assert room.places("unlabelled") == [1, 2, 4, 5]
    assert room.places("unpredicted") == [0, 2, 4, 5]
    assert room.places("unlabelled", "unpredicted") == [2, 4, 5]
    assert [task.is_labeled for page in room.pages() for task in page] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


def test_tasks_are_taken_by_number(make_room):
    room = make_room(8)
    ids = room.ids
    assert room.places(f"ids={ids[1]},{ids[3]}-{ids[4]},{ids[7]}-{ids[7] + 99}") == [1, 3, 4, 7]
    assert room.places(f"ids={ids[2]}-{ids[4]}") == [2, 3, 4]
    assert room.places(f"ids={ids[-1] + 1000}") == []


def test_a_view_joined_by_and_is_combined_with_other_words(make_room):
    room = make_room(8)
    room.label(2)
    view = room.view(
        "and",
        ("filter:tasks:id", "greater", "Number", room.ids[0]),
        ("filter:tasks:data.image", "not_contains", "String", "/5.jpg"),
    )
    assert room.places(f"view={view}") == [1, 2, 3, 4, 6, 7]
    assert room.places(f"view={view}", "unlabelled", f"ids={room.ids[2]}-{room.ids[6]}") == [3, 4, 6]


def test_a_view_joined_by_or_is_combined_with_other_words(make_room):
    room = make_room(8)
    room.label(1)
    room.push(VERSION, 6)
    view = room.view(
        "or",
        ("filter:tasks:id", "less", "Number", room.ids[3]),
        ("filter:tasks:predictions_model_versions", "contains", "List", [VERSION]),
    )
    assert room.places(f"view={view}") == [0, 1, 2, 6]
    assert room.places(f"view={view}", "unlabelled") == [0, 2, 6]
    assert room.places(f"view={view}", "unpredicted", f"ids={room.ids[1]}-{room.ids[7]}") == [1, 2]


def test_a_view_without_filters_takes_every_task(make_room):
    room = make_room(2)
    assert room.places(f"view={room.view('and')}") == [0, 1]


def test_a_view_of_another_project_is_refused(make_room):
    room, other = make_room(1), make_room(1)
    with pytest.raises(StudioRefusedError, match=f"belongs to project {other.project}, not {room.project}"):
        room.client.tasks(room.project, TaskFilter(view=other.view("and")))


def test_an_unknown_view_is_refused(make_room):
    room = make_room(1)
    with pytest.raises(StudioRefusedError, match="No View matches"):
        room.client.count_tasks(room.project, TaskFilter(view=99_999))
