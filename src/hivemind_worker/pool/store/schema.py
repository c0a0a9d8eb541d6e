"""The tables, and how a file of an older version becomes one of this: steps that are run once each, in order."""

from __future__ import annotations

from hivemind_worker import errors
from hivemind_worker.pool.store import database

APPLICATION_ID = 0x484D504C
"""Marks the file as a pool's store ("HMPL"), so that no other program's database is taken for one."""

_FIRST = """
CREATE TABLE shapes (
    number INTEGER PRIMARY KEY,
    wants TEXT NOT NULL UNIQUE            -- JSON, keys in order
);
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- older tasks have smaller ones
    id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    shape INTEGER NOT NULL REFERENCES shapes,
    kind TEXT NOT NULL,
    image TEXT NOT NULL,
    size INTEGER NOT NULL,                -- bytes of the body
    priority INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    node_id TEXT NOT NULL DEFAULT '',     -- who holds or held the newest attempt
    accepted INTEGER NOT NULL DEFAULT 0,  -- the newest attempt whose end was accepted
    result INTEGER NOT NULL DEFAULT 0,    -- the attempt whose report is the result; 0: the pool ended it, or it goes on
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,
    submitted_at REAL NOT NULL,
    assigned_at REAL NOT NULL DEFAULT 0,
    started_at REAL NOT NULL DEFAULT 0,
    ended_at REAL NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    retry_of TEXT NOT NULL DEFAULT '',
    timeout REAL NOT NULL,                -- seconds, as its submitter set it; 0: it names none
    labels TEXT NOT NULL DEFAULT '{}'
);
-- One queue per shape: tasks that fit nobody are never walked over (50,000 of them ahead: 196 claims/s without).
CREATE INDEX queue ON tasks (shape, priority DESC, number) WHERE state = 'queued';
CREATE INDEX held ON tasks (node_id, number) WHERE state IN ('assigned', 'running');
CREATE INDEX by_state ON tasks (state, number);
-- Apart from the rows that change: SQLite writes a changed row anew with all that is in it.
CREATE TABLE bodies (
    number INTEGER PRIMARY KEY REFERENCES tasks,
    body BLOB NOT NULL
);
CREATE TABLE task_labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    number INTEGER NOT NULL REFERENCES tasks,
    PRIMARY KEY (key, value, number)
) WITHOUT ROWID;
CREATE TABLE events (
    number INTEGER NOT NULL REFERENCES tasks,
    version INTEGER NOT NULL,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    node_id TEXT NOT NULL,
    details TEXT NOT NULL,
    PRIMARY KEY (number, version)
) WITHOUT ROWID;
-- One end per attempt; of all ends of a task at most one is its result, the others are kept for the record.
CREATE TABLE reports (
    number INTEGER NOT NULL REFERENCES tasks,
    attempt INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    at REAL NOT NULL,
    node_id TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (number, attempt)
);
CREATE TABLE submissions (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    ids TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE nodes (
    node_id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    said TEXT NOT NULL,                   -- JSON: what it said of itself when it registered
    status TEXT NOT NULL DEFAULT 'idle',
    message TEXT NOT NULL DEFAULT '',
    readings TEXT NOT NULL DEFAULT '{}',
    draining INTEGER NOT NULL DEFAULT 0,
    registered_at REAL NOT NULL,
    heartbeat_at REAL NOT NULL,
    lease_until REAL NOT NULL,
    alive INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE INDEX leases ON nodes (lease_until) WHERE alive = 1;
CREATE TABLE sessions (                   -- also those of the past: "replaced" is another answer than "unknown"
    session_id TEXT PRIMARY KEY,
    node_id TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_of_node ON sessions (node_id, at);
"""

_RESTING = """
ALTER TABLE nodes ADD COLUMN faults INTEGER NOT NULL DEFAULT 0;      -- incidents in a row that were its own fault
ALTER TABLE nodes ADD COLUMN faulted_at REAL NOT NULL DEFAULT 0;     -- when the last of them was reported
ALTER TABLE nodes ADD COLUMN rest_until REAL NOT NULL DEFAULT 0;
"""

_DISRUPTIONS = """
ALTER TABLE tasks ADD COLUMN disruptions INTEGER NOT NULL DEFAULT 0; -- attempts that the system itself ended
ALTER TABLE tasks ADD COLUMN disrupted INTEGER NOT NULL DEFAULT 0;   -- the newest attempt, where it is one of them
"""

_EPOCHS = """
CREATE TABLE epochs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- the largest is the one in force
    epoch TEXT NOT NULL UNIQUE,           -- 32 hexadecimal characters
    reason TEXT NOT NULL,
    at REAL NOT NULL
);
INSERT INTO epochs (epoch, reason, at) VALUES (lower(hex(randomblob(16))), 'the store was made', {now});
CREATE TABLE attempts (
    number INTEGER NOT NULL REFERENCES tasks,
    attempt INTEGER NOT NULL,
    epoch TEXT NOT NULL,                  -- in which it was assigned
    node_id TEXT NOT NULL,
    run_id TEXT NOT NULL DEFAULT '',      -- the one execution that counts; empty until it is seen
    legacy_logs INTEGER NOT NULL DEFAULT 0,  -- assigned by a version that stored output by task and attempt alone
    PRIMARY KEY (number, attempt)
) WITHOUT ROWID;
INSERT OR IGNORE INTO attempts (number, attempt, epoch, node_id, legacy_logs)
    SELECT events.number, events.attempt, epochs.epoch, events.node_id, 1 FROM events, epochs
    WHERE events.event = 'assign' AND events.attempt > 0 ORDER BY events.number, events.version;
"""

_LEASE_CLOCK = """
-- Seconds for which the store has been open, in all its lives: leases, rests and deadlines are due by it, so that no
-- step of the wall's clock moves them. The wall's clock is in what is shown alone.
CREATE TABLE lease_clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seconds REAL NOT NULL
);
INSERT INTO lease_clock VALUES (1, 1);
ALTER TABLE tasks ADD COLUMN given_at REAL NOT NULL DEFAULT 0;  -- lease clock: when its node was last given it
ALTER TABLE tasks ADD COLUMN deadline REAL NOT NULL DEFAULT 0;  -- lease clock: when its node has had it for too long
CREATE INDEX attempt_deadlines ON tasks (deadline) WHERE state IN ('assigned', 'running');
CREATE INDEX lost_nodes ON nodes (lease_until) WHERE alive = 0;
-- They were moments of the wall's clock.
UPDATE nodes SET lease_until = 0, faults = 0, faulted_at = 0, rest_until = 0;
UPDATE sessions SET at = 0;
"""

_TOLD_TO_DRAIN = """
ALTER TABLE nodes ADD COLUMN told_to_drain INTEGER NOT NULL DEFAULT 0;  -- what its last heartbeat was answered
"""

_BATCHES = """
-- Large submissions that are being taken in slices: their tasks are `staged` until the batch is published.
CREATE TABLE batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    after INTEGER NOT NULL,               -- its tasks have larger numbers
    published INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE batch_slices (
    batch INTEGER NOT NULL REFERENCES batches,
    first INTEGER NOT NULL,               -- numbers of tasks; no other batch has one between
    last INTEGER NOT NULL,
    PRIMARY KEY (batch, first)
) WITHOUT ROWID;
-- Otherwise each task that is removed again is looked for among all labels there are.
CREATE INDEX labels_of_task ON task_labels (number);
"""

_STATE_LOCK = """
ALTER TABLE nodes ADD COLUMN state_lock_id TEXT NOT NULL DEFAULT '';  -- which locked state folder its process has
"""

_SHAPE_RESTS = """
-- Which tasks a node is not offered for a while: it has handed such a one back.
CREATE TABLE shape_rests (
    node_id TEXT NOT NULL,
    shape INTEGER NOT NULL REFERENCES shapes,
    hand_backs INTEGER NOT NULL,          -- in a row
    handed_back_at REAL NOT NULL,         -- lease clock
    rest_until REAL NOT NULL,             -- lease clock
    PRIMARY KEY (node_id, shape)
) WITHOUT ROWID;
CREATE INDEX shape_rests_end ON shape_rests (rest_until);
"""

_GENERATION = """
-- Grows while attempts are assigned; the newest there was is in the mark beside the store: see `history_mark`.
CREATE TABLE generation (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL
);
INSERT INTO generation VALUES (1, 0);
"""

_ORDERLY_STOPS = """
-- What was lost because a node, or this pool, was stopped in order uses up no attempt.
ALTER TABLE lease_clock ADD COLUMN closed INTEGER NOT NULL DEFAULT 0;    -- the pool was stopped in order
ALTER TABLE nodes ADD COLUMN unheard INTEGER NOT NULL DEFAULT 0;         -- since the pool was stopped in order
ALTER TABLE attempts ADD COLUMN lease_lost INTEGER NOT NULL DEFAULT 0;   -- given up for its lease alone
"""

_SUMMARIES = """
-- What a list shows of a result with much output, which it need not read then. Results of before have none, nor have
-- those with little output.
CREATE TABLE summaries (
    number INTEGER NOT NULL REFERENCES tasks,
    attempt INTEGER NOT NULL,
    summary BLOB NOT NULL,
    PRIMARY KEY (number, attempt)
);
"""

_SECRETS = """
ALTER TABLE tasks ADD COLUMN has_secrets INTEGER NOT NULL DEFAULT 0;  -- also once they were erased, as it ended
-- Sealed with the key beside the store, which no backup has unless it is asked for.
CREATE TABLE sealed_secrets (
    number INTEGER PRIMARY KEY REFERENCES tasks,
    sealed BLOB NOT NULL
);
"""

_BLAME = """
-- A node rests only where unrelated tasks fail, or where it has found itself sick.
ALTER TABLE tasks ADD COLUMN submitter TEXT NOT NULL DEFAULT '';       -- the address that submitted it
ALTER TABLE nodes ADD COLUMN suspected INTEGER NOT NULL DEFAULT 0;     -- a task failed there, and nobody knows why
ALTER TABLE nodes ADD COLUMN suspect_submitter TEXT NOT NULL DEFAULT ''; -- where that task comes from
ALTER TABLE nodes ADD COLUMN suspect_image TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN crashed INTEGER NOT NULL DEFAULT 0;    -- its worker was lost with it
"""

_STEPS: tuple[tuple[str, str], ...] = (
    ("the first tables", _FIRST),
    ("nodes that fail by their own fault rest", _RESTING),
    ("disruptions use up no attempts", _DISRUPTIONS),
    ("the store has an epoch, each assignment a record", _EPOCHS),
    ("a clock for leases, and deadlines of attempts", _LEASE_CLOCK),
    ("a drain that is over is not shown", _TOLD_TO_DRAIN),
    ("large submissions come in slices", _BATCHES),
    ("a living session is not taken over", _STATE_LOCK),
    ("nodes rest from what they have handed back", _SHAPE_RESTS),
    ("an older copy that is put back is seen", _GENERATION),
    ("orderly stops use up no attempts", _ORDERLY_STOPS),
    ("lists read no output", _SUMMARIES),
    ("secrets of tasks, sealed", _SECRETS),
    ("tasks of one author make no node rest", _BLAME),
)
"""What each version added, from version 1 on. A step that was released is never changed."""


def migrate(connection: database.Connection, now: float) -> None:
    """Bring the file to this version. Raises :class:`errors.BadSettings` for a newer one, or another program's."""
    marked = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if marked != APPLICATION_ID and tables:
        raise errors.BadSettings("this file is another program's database: name another file as the pool's store")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, what TEXT NOT NULL, at REAL NOT NULL)"
    )
    found = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()[0]
    if found > len(_STEPS):
        raise errors.BadSettings(
            f"a newer version wrote this store (its tables are of version {found}, this program knows up to "
            f"{len(_STEPS)}): upgrade, or name another file"
        )
    for version, (what, text) in enumerate(_STEPS[found:], start=found + 1):
        step = text.replace("{now}", repr(now))
        # One transaction per step: executescript would commit the one that is open, so it gets its own words for it.
        script = f"BEGIN IMMEDIATE; {step}; INSERT INTO migrations VALUES ({version}, '{what}', {now}); COMMIT;"  # noqa: S608  (no input: our own constants)
        connection.executescript(script)


def epoch(connection: database.Connection) -> str:
    """Return the epoch in force: 32 hexadecimal characters, made with the store and renewed by a restore."""
    return str(connection.execute("SELECT epoch FROM epochs ORDER BY number DESC LIMIT 1").fetchone()["epoch"])


def epochs(connection: database.Connection) -> tuple[str, ...]:
    """Return every epoch that the store has had, oldest first."""
    return tuple(str(row["epoch"]) for row in connection.execute("SELECT epoch FROM epochs ORDER BY number"))


def has_generation(connection: database.Connection) -> bool:
    """Whether this is a pool's store, of a version that counts generations."""
    ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    return ours and connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'generation'").fetchone() is not None


def generation(connection: database.Connection) -> int:
    """Return how far the store's history has come."""
    return int(connection.execute("SELECT number FROM generation").fetchone()["number"])


def advance_generation(connection: database.Connection) -> int:
    """Begin the next generation; return its number."""
    connection.execute("UPDATE generation SET number = number + 1")
    return generation(connection)
