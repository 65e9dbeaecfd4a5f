"""The columns of all tables: of the durable queue and of the results.

Instances and deliveries are the queue: their rows move from state to state and are forgotten
in the end. Answers, their events and verdicts are the results table: rows are only ever added,
and hold no text of the patient. Their UIDs are hashed with the site's key.
"""

VERSION = 2
"""Counts up if the tables change; a file of a version that has no upgrade is not opened."""

UPGRADES = {
    1: (
        "ALTER TABLE instances ADD COLUMN timeouts INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE instances ADD COLUMN rules TEXT;"
        "ALTER TABLE instances ADD COLUMN question TEXT;"
    ),
}
"""Statements that bring the tables of an older version to the next one."""

SCHEMA = """
CREATE TABLE instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_uid TEXT NOT NULL UNIQUE,
    class_uid TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    source_ae TEXT NOT NULL,
    file TEXT,
    received_at REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('received', 'scored', 'skipped', 'dead')),
    reason TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    timeouts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL DEFAULT 0,
    rules TEXT,
    question TEXT,
    changed_at REAL NOT NULL
);
CREATE INDEX instances_by_state ON instances (state, next_at);
CREATE INDEX instances_with_file ON instances (file) WHERE file IS NOT NULL;

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    answer INTEGER NOT NULL REFERENCES answers (id),
    destination TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('sr', 'sc')),
    class_uid TEXT NOT NULL,
    sop_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    rule TEXT NOT NULL,
    rank INTEGER NOT NULL,
    content BLOB,
    state TEXT NOT NULL CHECK (state IN ('scored', 'sent', 'confirmed', 'superseded', 'dead')),
    uncertain INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL DEFAULT 0,
    reason TEXT,
    created_at REAL NOT NULL,
    UNIQUE (sop_uid, destination)
);
CREATE INDEX deliveries_by_state ON deliveries (destination, state, next_at);
CREATE INDEX deliveries_of_instance ON deliveries (instance);
CREATE INDEX deliveries_of_study ON deliveries (study_uid, state);

CREATE TABLE conflicts (
    id INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    source_ae TEXT NOT NULL,
    at REAL NOT NULL,
    UNIQUE (instance, digest)
);

CREATE TABLE answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    received_at REAL NOT NULL,
    source_ae TEXT NOT NULL,
    rule TEXT NOT NULL,
    silent INTEGER NOT NULL,
    instance_hash TEXT NOT NULL,
    study_hash TEXT NOT NULL,
    accession_hash TEXT,
    file_sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    finding TEXT NOT NULL,
    probability REAL NOT NULL,
    label TEXT NOT NULL CHECK (label IN ('positive', 'negative')),
    threshold REAL NOT NULL,
    operating_point TEXT NOT NULL,
    warnings TEXT NOT NULL,
    age_years REAL,
    sex TEXT,
    view TEXT,
    trace_id TEXT NOT NULL
);
CREATE INDEX answers_by_time ON answers (received_at);
CREATE INDEX answers_by_instance ON answers (instance_hash);
CREATE INDEX answers_by_study ON answers (study_hash);
CREATE INDEX answers_by_accession ON answers (accession_hash);

CREATE TABLE answer_events (
    id INTEGER PRIMARY KEY,
    answer INTEGER NOT NULL REFERENCES answers (id),
    destination TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX events_of_answer ON answer_events (answer);

CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY,
    answer INTEGER NOT NULL REFERENCES answers (id),
    verdict TEXT NOT NULL CHECK (verdict IN ('accept', 'reject', 'other')),
    label TEXT,
    at REAL NOT NULL
);
CREATE INDEX verdicts_of_answer ON verdicts (answer);
"""

APPEND_ONLY = ("answers", "answer_events", "verdicts")


def append_only_triggers() -> str:
    """Return the statements that let SQLite itself refuse to change or delete a result."""
    return "".join(
        f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;\n"
        for table in APPEND_ONLY
        for act in ("UPDATE", "DELETE")
    )
