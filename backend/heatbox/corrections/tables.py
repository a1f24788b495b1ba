"""The tables of corrections: projects with their cursors, marks of tasks, and one row for each annotation.

A project is one of one Label Studio, known by its address, so several of them may share a ledger. A row outlives its
annotation, its task and the prediction that it corrects: a deleted annotation has a `deleted_at`, and what was
predicted is kept here when heatbox replaces its predictions. Boxes and verdicts are JSON.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from heatbox.ledger import metadata

__all__ = ["TABLES", "corrections", "projects", "tasks"]

projects = Table(
    "correction_projects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("studio", String(500), nullable=False),
    Column("project", Integer, nullable=False),
    Column("cursor", String(40), nullable=False, default=""),  # Label Studio's time, ISO 8601
    Column("pulled_at", Float),
    UniqueConstraint("studio", "project"),
)

tasks = Table(
    "correction_tasks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("place", ForeignKey("correction_projects.id"), nullable=False),
    Column("task", Integer, nullable=False),
    Column("updated_at", String(40), nullable=False),
    Column("annotations", Integer, nullable=False),
    Column("gone", Boolean, nullable=False, default=False),
    UniqueConstraint("place", "task"),
)

corrections = Table(
    "corrections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("place", ForeignKey("correction_projects.id"), nullable=False),
    Column("task", Integer, nullable=False),
    Column("annotation", Integer, nullable=False),
    Column("addresses", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("updated_at", String(40), nullable=False),
    Column("who", Integer),
    Column("seconds", Float),
    Column("skipped", Boolean, nullable=False),
    Column("ground_truth", Boolean, nullable=False),
    Column("version", String(300), nullable=False),
    Column("explainer", String(200), nullable=False),
    Column("source", String(20), nullable=False),  # how it is known what the person was shown
    Column("predicted", Text, nullable=False),
    Column("boxes", Text, nullable=False),
    Column("labels", Text, nullable=False),  # choices, for each picture
    Column("looked", Boolean, nullable=False),  # whether anybody looked for boxes
    Column("verdicts", Text, nullable=False),
    Column("problems", Text, nullable=False),
    Column("deleted_at", Float),
    UniqueConstraint("place", "annotation"),
)
Index("corrections_of_a_task", corrections.c.place, corrections.c.task)

TABLES = (projects, tasks, corrections)
