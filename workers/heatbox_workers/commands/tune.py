"""`heatbox tune`: the way to boxes that suits each label, by what people corrected."""

import os
import shutil
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from heatbox.cli.console import err, out
from heatbox.cli.keeping import read_corrections
from heatbox.cli.options import Roots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heatbox.corrections.corrected import Corrected
    from heatbox.datasets.examples import Example
    from heatbox.labelling.tags import LabelConfig
    from heatbox.ledger import Ledger
    from heatbox.models import ModelStore
    from heatbox.pipeline import Pipeline
    from heatbox.settings import Settings
    from heatbox_workers.tune import Tuned, TuneOptions
    from heatbox_workers.tune.values import Progress

__all__ = ["keep", "tune"]


def tune(
    project: Annotated[
        int | None,
        typer.Option(
            "--project", "-p", min=1, metavar="NUMBER", help="Project in Label Studio (LABEL_STUDIO_URL)."
        ),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="In place of a project: a folder with images/ and annotations.json (COCO)."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures of --data; default: images/ beside it.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the profile; default: project-NUMBER, or the folder's name.")
    ] = None,
    explainer: Annotated[
        list[str] | None,
        typer.Option("--explainer", metavar="NAME", help="Try these explainers, in place of the usual ones."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts of cross-validation.")] = 5,
    pictures: Annotated[int, typer.Option(min=10, help="At most so many are looked at.")] = 400,
    pull: Annotated[
        bool,
        typer.Option("--pull/--no-pull", help="Whether to read new corrections from Label Studio first."),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and print, and store nothing.")] = False,
    root: Roots = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
) -> None:
    """Choose explainer, layer, box fitter, threshold and least probability for each label, by corrected pictures.

    What it expects to gain is measured on left-out pictures, against the settings and the label config without a
    profile. Labels with too few pictures, or without a gain by themselves, are tried together, and get the same where
    that gains over all of them; else they keep what they have. The project is then served with the new profile.
    """
    from heatbox.ledger import Ledger
    from heatbox.remote_store import open_store
    from heatbox.settings import read_settings
    from heatbox_workers.process import prepare_process

    if (project is None) == (data is None):
        raise typer.BadParameter("Give one of --project and --data.")
    settings = read_settings(os.environ)
    settings = settings.model_copy(update={"local_roots": (*settings.local_roots, *(root or ()))})
    prepare_process(settings.threads, 1)
    from heatbox_workers.tune import TuneOptions

    own = f"project-{project}" if data is None else data.resolve().stem
    options = TuneOptions(
        name or own, tuple(explainer or ()), folds=folds, most_pictures=pictures, publish=not dry_run
    )
    with closing(Ledger(settings.ledger_url)) as ledger, TemporaryDirectory(prefix="heatbox-") as folder:
        store = open_store(settings)
        if data is not None:
            pipeline, examples = _of_data(settings, store, ledger, data, images)
        else:
            pipeline, examples, options = _of_project(
                settings, ledger, project or 0, options, pull=pull, folder=Path(folder)
            )
        tuned = _tuned(settings, store, pipeline, examples, options)
        _print(tuned, json=json)
        if not dry_run:
            keep(settings, ledger, tuned, project)


def _of_data(
    settings: "Settings", store: "ModelStore", ledger: "Ledger", data: Path, images: Path | None
) -> "tuple[Pipeline, list[Example]]":
    from heatbox.serving import serve_project
    from heatbox_workers.tune.sources import read_examples

    pipeline = serve_project(settings, store, ledger, None).pipeline
    examples, label_map, unmapped = read_examples(data, store.find(pipeline.model).labels, images)
    if unmapped:
        _warn(f"no class of the model stands for {', '.join(unmapped)}.")
    return replace(pipeline, label_map=label_map), examples


def _of_project(
    settings: "Settings",
    ledger: "Ledger",
    project: int,
    options: "TuneOptions",
    *,
    pull: bool,
    folder: Path,
) -> "tuple[Pipeline, list[Example], TuneOptions]":
    from heatbox.remote_store import open_store
    from heatbox.serving import serve_project

    corrected, config = read_corrections(settings, ledger, project, new=pull)
    pipeline = serve_project(settings, open_store(settings), ledger, config).pipeline
    return pipeline, _fetched(settings, corrected, folder), _within(config, options)


def _fetched(settings: "Settings", corrected: "Sequence[Corrected]", folder: Path) -> "list[Example]":
    """Return the corrected pictures, copied: what was fetched may be gone some minutes later."""
    from heatbox.datasets.collecting import collect
    from heatbox.datasets.examples import Example
    from heatbox.pictures.fetching import Fetcher
    from heatbox.pictures.images import Limits

    looked = [one for one in corrected if one.boxes is not None]
    examples: list[Example] = []
    with closing(Fetcher(settings)) as fetcher, err().status("Fetching pictures ..."):
        for one in collect(looked, fetcher.fetch, Limits.from_settings(settings)):
            if isinstance(one, Example):
                path = folder / f"{one.sha256}{one.path.suffix}"
                shutil.copyfile(one.path, path)
                examples.append(replace(one, path=path))
            else:
                _warn(f"{one.name}: {one.reason}")
    return examples


def _within(config: "LabelConfig", options: "TuneOptions") -> "TuneOptions":
    """Return the options with what the label config fixes left alone: it goes before a profile."""
    one = config.attributes
    fixed = [name for name in ("explainer", "fitter", "box_threshold") if getattr(one, name) is not None]
    if fixed:
        names = ", ".join(f"model_{name}" for name in fixed)
        _warn(f"the label config has {names}, which goes before a profile: only probabilities are tuned.")
    if one.score_threshold is not None:
        _warn(
            "the label config has model_score_threshold, which goes before a profile: probabilities stay as they are."
        )
    return replace(
        options,
        ways=not fixed,
        probabilities=one.score_threshold is None,
        keep_thresholds=frozenset(tag.name for tag in config.labels if tag.box_threshold is not None),
        keep_probabilities=frozenset(tag.name for tag in config.labels if tag.score_threshold is not None),
    )


def _tuned(
    settings: "Settings",
    store: "ModelStore",
    pipeline: "Pipeline",
    examples: "list[Example]",
    options: "TuneOptions",
) -> "Tuned":
    from heatbox.pictures.images import Limits
    from heatbox_workers import tune as tuning
    from heatbox_workers.loading import load_classifier

    classifier = load_classifier(store, store.find(pipeline.model))
    options = replace(options, limits=Limits.from_settings(settings))
    with _progress() as progress:
        return tuning.tune(classifier, store, pipeline, examples, options, progress)


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Show a bar and yield what is told how far it is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task("reading pictures", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def keep(settings: "Settings", ledger: "Ledger", tuned: "Tuned", project: int | None) -> None:
    """Store the profile and let the project use it; where nothing is better there is none, also not an older one."""
    from heatbox.profiles import profile_of, store_profile, use_profile

    if not tuned.profile.labels:
        err().print("Nothing is better than what there is: no profile was made.", highlight=False)
        if project is not None and (older := profile_of(ledger, settings.studio_url, project)) is not None:
            use_profile(ledger, settings.studio_url, project, None)
            told = (
                f"{older.name} is put aside: project {project} is served by settings and label config alone."
            )
            err().print(told, highlight=False, markup=False, soft_wrap=True)
        return
    name = store_profile(ledger, tuned.profile).name
    told = f"The profile is {name}. Use it: heatbox profiles use {name} --project NUMBER"
    if project is not None:
        use_profile(ledger, settings.studio_url, project, name)
        told = f"Project {project} is served with {name}. Tell Label Studio: heatbox studio connect --project {project}"
    err().print(told, highlight=False, markup=False, soft_wrap=True)


def _print(tuned: "Tuned", *, json: bool) -> None:
    for note in tuned.notes:
        _warn(note)
    if json:
        out().print_json(data=tuned.as_dict())
        return
    from rich.markup import escape
    from rich.table import Table

    title = f"Box quality on left-out pictures, of {tuned.pictures} in {tuned.seconds:.0f} s"
    table = Table("label", "pictures", "now", "tuned", "gain", "90 % interval", "way", title=title)
    for one in tuned.labels:
        found = one.measured
        figures = ["", "", "", ""]
        if found is not None:
            figures = [f"{found.before:.3f}", f"{found.after:.3f}", f"{found.gain:+.3f}"]
            figures.append(f"{found.low:+.3f} to {found.high:+.3f}")
        table.add_row(
            escape(one.label), str(one.pictures), *figures, escape(one.chosen or f"as it is: {one.reason}")
        )
    out().print(table)
    all_of = tuned.measured
    told = (
        f"Expected over all labels: {all_of.before:.3f} now, {all_of.after:.3f} tuned, a gain of {all_of.gain:+.3f} "
        f"({all_of.low:+.3f} to {all_of.high:+.3f})."
    )
    out().print(told, highlight=False, soft_wrap=True)


def _warn(message: str) -> None:
    from rich.markup import escape

    err().print(f"[yellow]warning[/]: {escape(message)}", highlight=False, soft_wrap=True)
