"""A pull against a small server that lists tasks as Label Studio does, into a real ledger."""

import signal
import subprocess
import sys
from contextlib import closing

import pytest
from fixtures_corrections import CONFIG, OWN, annotated, box, choice, listing, predicted

from heatbox.corrections.corrected import Corrected, Placed
from heatbox.corrections.pulling import pull
from heatbox.corrections.records import Corrections
from heatbox.corrections.rows import Written
from heatbox.errors import LabelConfigError, StudioError
from heatbox.labelling.config import parse_label_config
from heatbox.ledger import Ledger
from heatbox.studio.client import Studio
from heatbox.studio.corrections import AnsweredTask, Mark

PROJECT = 7
CONTENT = "fields=all"


class Room:
    """A project, a ledger and a client."""

    def __init__(self, server, ledger):
        self.server, self.ledger = server, ledger
        self.corrections = Corrections(ledger)

    def pull(self, **options):
        with Studio(self.server.url, "token", delays=(), timeout=5) as studio:
            return pull(studio, self.corrections, PROJECT, **options)

    def changes(self, **options):
        pulled = self.pull(**options)
        return pulled.new, pulled.changed, pulled.deleted

    def there(self):
        """Return the annotations that the ledger has and that are not deleted, by task."""
        found = self.corrections.annotations(self.server.url, PROJECT)
        return sorted((one.task, one.annotation) for one in found if one.deleted_at is None)

    def truth(self):
        return sorted(
            (task, one["id"]) for task, row in self.server.tasks.items() for one in row["annotations"]
        )

    def pictures(self):
        return self.corrections.pictures(self.server.url, PROJECT)


@pytest.fixture
def server():
    with listing() as server:
        yield server


@pytest.fixture
def room(server, tmp_path):
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        yield Room(server, ledger)


def test_what_people_annotated_is_in_any_ledger(server, ledger_url):
    server.put(1, [annotated(box(12), lead_time=4.5, number=11)], [predicted(box(score=0.7))])
    server.put(2)
    with closing(Ledger(ledger_url)) as ledger:
        room = Room(server, ledger)
        assert room.changes() == (1, 0, 0)
        server.put(1, [annotated(box(13), number=11)])
        assert room.changes() == (0, 1, 0)
        server.put(1, [annotated(box(13), number=12)])
        assert room.changes() == (1, 0, 1)
        del server.tasks[1]
        assert room.changes() == (0, 0, 1)
        assert room.there() == []
        assert len(room.corrections.annotations(server.url, PROJECT)) == 2


def test_a_picture_is_as_the_person_left_it(room):
    room.server.put(
        3, [annotated(box(12), choice("dog"), number=11, lead_time=4.5)], [predicted(box(score=0.7))]
    )
    room.pull()
    assert room.pictures() == [
        Corrected(
            PROJECT,
            3,
            "http://photos.example/3.jpg",
            ("cat", "dog"),
            (Placed("cat", (0.12, 0.1, 0.32, 0.3)),),
            (Placed("cat", (0.1, 0.1, 0.3, 0.3), 0.7),),
            OWN,
            annotation=11,
            who=5,
            seconds=4.5,
            changed="2026-01-02T00:00:00.000000+00:00",
        )
    ]


@pytest.mark.parametrize(
    ("annotations", "labels", "boxes"),
    [
        pytest.param([annotated()], (), 0, id="empty"),
        pytest.param([annotated(choice("cat"))], ("cat",), None, id="choices-only"),
        pytest.param([annotated(box()), annotated(number=2, at=3)], (), 0, id="the-last-one"),
        pytest.param(
            [annotated(box(), ground_truth=True), annotated(number=2, at=3)], ("cat",), 1, id="truth"
        ),
        pytest.param(
            [annotated(box()), annotated(number=2, at=3, was_cancelled=True)], ("cat",), 1, id="no-skip"
        ),
    ],
)
def test_of_several_annotations_one_counts(room, annotations, labels, boxes):
    room.server.put(1, annotations)
    room.pull()
    (found,) = room.pictures()
    assert (found.labels, None if found.boxes is None else len(found.boxes)) == (labels, boxes)
    assert len(room.there()) == len(annotations)


def test_a_skipped_task_is_kept_and_gives_no_picture(room):
    room.server.put(1, [annotated(was_cancelled=True)])
    assert room.changes() == (1, 0, 0)
    assert room.pictures() == []


def test_only_what_has_changed_is_read(room):
    for number in range(1, 6):
        room.server.put(number, [annotated(number=number)])
    assert room.pull().read == 5
    assert room.pull().read == 0
    room.server.put(4, [annotated(box(), number=4)])
    assert (room.pull(whole=False).read, room.pull(again=True).read) == (1, 5)
    assert room.there() == room.truth()


def test_pages_of_one_task_bring_the_same_as_one_page_also_where_the_server_gives_fewer(room):
    for number in range(1, 8):
        room.server.put(number * 3, [annotated(number=number)])
    room.pull(page_size=1)
    for number in (3, 12, 21):
        del room.server.tasks[number]
    room.server.most = 2
    assert room.changes(page_size=3) == (0, 0, 3)
    assert room.there() == room.truth()


def test_a_cursor_loses_nothing_of_its_own_moment(room):
    room.server.put(1, [annotated(number=1)])
    room.pull(whole=False)
    room.server.clock -= 1
    room.server.put(2, [annotated(number=2)])
    assert room.server.tasks[1]["updated_at"] == room.server.tasks[2]["updated_at"]
    assert room.changes(whole=False) == (1, 0, 0)


def test_changes_alone_are_asked_for_from_a_minute_before_the_cursor(room):
    for number in range(1, 200):
        room.server.put(number)
    room.server.put(200, [annotated(number=1)])
    room.pull()
    assert room.pull(whole=False).listed == 61
    assert room.pull().listed == 200


def test_a_deleted_task_is_noticed_where_all_are_listed(room):
    room.server.put(1, [annotated(number=1)])
    room.server.put(2, [annotated(number=2)])
    room.pull()
    del room.server.tasks[1]
    assert room.changes(whole=False) == (0, 0, 0)
    assert room.changes() == (0, 0, 1)
    assert room.changes() == (0, 0, 0)


def test_a_task_that_comes_back_is_there_again(room):
    room.server.put(1, [annotated(number=1)])
    room.pull()
    task = room.server.tasks.pop(1)
    room.pull()
    room.server.tasks[1] = task
    assert room.changes() == (0, 1, 0)
    assert room.there() == room.truth()


def test_what_was_predicted_stays_when_heatbox_replaces_it(room):
    room.server.put(1, [annotated(box(12), parent_prediction=3)], [predicted(box(score=0.7), number=3)])
    room.pull()
    room.server.put(1, [annotated(box(13), parent_prediction=None)], [predicted(box(80), number=4, at=9)])
    assert room.changes() == (0, 1, 0)
    (found,) = room.pictures()
    assert found.predicted == (Placed("cat", (0.1, 0.1, 0.3, 0.3), 0.7),)


def test_what_is_not_understood_is_counted_and_stops_nothing(room):
    room.server.put(1, [annotated({**box(), "value": {"rectanglelabels": ["cat"]}}, box(50), number=1)])
    room.server.put(2, [annotated(box(), number=2)], text="no picture")
    pulled = room.pull()
    assert pulled.not_understood == {
        "a region of type rectanglelabels has no place in the picture": 1,
        "the task names no picture": 1,
    }
    assert [one.task for one in room.pictures()] == [1]
    room.server.put(1, [annotated(box(), number=1)])
    assert room.pull().not_understood == {"the task names no picture": 1}


def test_two_label_studios_in_one_ledger_do_not_mix(room):
    room.server.put(1, [annotated(number=1)])
    room.pull()
    with listing() as other:
        other.put(1, [annotated(box(), number=1)])
        Room(other, room.ledger).pull()
        assert len(room.corrections.pictures(other.url, PROJECT)[0].boxes) == 1
    assert room.pictures()[0].boxes == ()
    assert room.corrections.pictures(room.server.url + "/", PROJECT) == room.pictures()
    assert room.corrections.pictures(room.server.url, PROJECT + 1) == []


def test_a_ledger_that_was_opened_without_its_tables_gets_them(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    plain = "from heatbox.ledger import Ledger; import sys; Ledger(sys.argv[1]).close()"
    subprocess.run([sys.executable, "-c", plain, url], check=True)
    with closing(Ledger(url)) as ledger:
        assert Corrections(ledger).annotations("http://studio.example", 1) == []


def test_a_label_studio_that_falls_silent_leaves_what_was_read(room):
    for number in range(1, 4):
        room.server.put(number, [annotated(number=number)])
    room.server.silent_from = 5
    with Studio(room.server.url, "token", delays=(), timeout=0.3) as studio, pytest.raises(StudioError):
        pull(studio, room.corrections, PROJECT, page_size=1)
    assert room.there()
    room.server.silent_from = None
    room.pull()
    assert room.there() == room.truth()


def test_a_state_that_was_read_earlier_does_not_replace_a_later_one(room):
    room.server.put(1, [annotated(number=1)])
    early = room.server.tasks[1]
    room.server.put(1, [annotated(box(), number=1)])
    room.pull()
    place, config = room.corrections.place(room.server.url, PROJECT), parse_label_config(CONFIG)
    old = (Mark(1, early["updated_at"], 1), AnsweredTask(1, early["annotations"], (), early["data"]))
    assert room.corrections.write(place, [old], config) == Written()
    assert len(room.pictures()[0].boxes) == 1


KILLED = """
import sys
from heatbox.corrections.pulling import pull
from heatbox.corrections.records import Corrections
from heatbox.ledger import Ledger
from heatbox.studio.client import Studio
with Studio(sys.argv[1], "token", delays=()) as studio:
    pull(studio, Corrections(Ledger(sys.argv[2])), 7, page_size=2)
"""


@pytest.mark.parametrize("requests", [1, 3, 6])
def test_a_killed_pull_loses_nothing_and_doubles_nothing(room, tmp_path, requests):
    for number in range(1, 8):
        room.server.put(number, [annotated(number=number), annotated(number=100 + number)])
    room.server.silent_from = requests
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    process = subprocess.Popen([sys.executable, "-c", KILLED, room.server.url, url])
    assert room.server.silent.wait(20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(room.there())
    room.server.silent_from = None
    assert room.changes(whole=False) == (14 - before, 0, 0)
    assert room.there() == room.truth()


def test_no_task_is_read_by_its_own_address_and_nothing_is_written(room):
    room.server.put(1, [annotated(number=1)])
    room.pull()
    listed = [one for one in room.server.seen if one.startswith("/api/tasks/")]
    assert listed
    assert all("review=true" in one for one in listed)
    assert sum(CONTENT in one for one in listed) == 1


def test_a_project_that_heatbox_does_not_understand_is_refused(room, monkeypatch):
    monkeypatch.setattr("fixtures_corrections.CONFIG", "<View><Text name='a' value='$a'/></View>")
    with pytest.raises(LabelConfigError):
        room.pull()
