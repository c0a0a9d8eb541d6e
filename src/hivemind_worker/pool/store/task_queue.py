"""What is queued, in memory: the first task of each shape, in step with the tables within every transaction.

The tables are the truth. Whatever puts a task into a queue or takes one out says so (`entered`, `left`); what a request
undoes is read anew. So the index says at every moment what the tables say, also in a transaction that is not committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hivemind_worker.pool.matching import assignment, room_index, shape_index
from hivemind_worker.pool.store import database, shapes

# The shapes that have a queue, each found by one step in the index however many tasks wait.
QUEUED_SHAPES = """
WITH RECURSIVE waiting (shape) AS (
    SELECT (SELECT shape FROM tasks INDEXED BY queue WHERE state = 'queued' ORDER BY shape LIMIT 1)
    UNION ALL
    SELECT (
        SELECT shape FROM tasks INDEXED BY queue
        WHERE state = 'queued' AND shape > waiting.shape ORDER BY shape LIMIT 1
    )
    FROM waiting WHERE waiting.shape IS NOT NULL
)
SELECT shape FROM waiting WHERE shape IS NOT NULL
"""

# The planner, who counts nothing, would rather walk over all that is queued in search of a shape.
HEADS = """
SELECT * FROM tasks INDEXED BY queue WHERE state = 'queued' AND shape = ? ORDER BY priority DESC, number
"""

HEAD = """
SELECT priority, number FROM tasks INDEXED BY queue
WHERE state = 'queued' AND shape = ? ORDER BY priority DESC, number LIMIT 1
"""


class TaskQueue:
    """The queues of all shapes. Used by the thread that writes alone."""

    def __init__(self) -> None:
        self.index = shape_index.ShapeIndex()
        self.grown = False
        """Whether a task has come into a queue since the waiting polls were last looked at."""
        self._unsettled: set[int] = set()

    def load(self, sql: database.Connection) -> None:
        """Read everything from the tables."""
        self.index = shape_index.ShapeIndex()
        self._unsettled = {row["shape"] for row in sql.execute(QUEUED_SHAPES).fetchall()}
        self.settle(sql)
        self.grown = True

    def entered(self, number: int, shape: assignment.Shape, urgency: shape_index.Urgency) -> None:
        """A task has come into the queue of the shape of this number."""
        self.grown = True
        if number in self._unsettled:
            return
        head = self.index.urgency(number)
        if head is None:
            self.index.add(number, shape, urgency)
        elif urgency < head:
            self.index.change(number, urgency)

    def left(self, number: int, urgency: shape_index.Urgency) -> None:
        """A task has left its queue."""
        if self.index.urgency(number) == urgency:
            self._unsettled.add(number)

    def distrust(self, number: int) -> None:
        """What was said of this shape has been undone: `settle` reads it anew."""
        self._unsettled.add(number)

    def settle(self, sql: database.Connection) -> None:
        """Read which tasks are the first now, where the first ones have left. Raises :class:`database.Error`."""
        for number in tuple(self._unsettled):
            row = sql.execute(HEAD, (number,)).fetchone()
            if row is None:
                self.index.remove(number)
            elif number in self.index:
                self.index.change(number, (-row["priority"], row["number"]))
            else:
                self.index.add(number, shapes.shape(sql, number), (-row["priority"], row["number"]))
            self._unsettled.discard(number)

    def assigned(
        self, sql: database.Connection, rooms: room_index.RoomIndex, excluded: Mapping[int, int]
    ) -> list[tuple[database.Row, int]]:
        """Return the rows of the tasks that are to be given out now, each with the place of its worker.

        ``excluded``: see :func:`assignment.assign_among`.
        """
        rows: dict[int, database.Row] = {}
        cursors: list[database.Cursor] = []

        def heads(shape: int) -> Iterator[assignment.Head]:
            cursor = sql.cursor()
            cursors.append(cursor)
            for row in cursor.execute(HEADS, (shape,)):
                rows[row["number"]] = row
                yield assignment.Head(row["number"], row["priority"], row["image"], row["size"])

        pairs = assignment.assign_among(rooms, self.index, heads, excluded)
        for cursor in cursors:
            cursor.close()  # before anything is changed of what it would still read
        return [(rows[head.number], place) for head, place in pairs]
