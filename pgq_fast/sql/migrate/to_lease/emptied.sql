-- Somebody emptied the queue: start the copies anew. A note that comes in between is of a change that the
-- next copies contain, or of another emptying, which leaves nothing to remove.
TRUNCATE {staged_ready_table}, {staged_deferred_table}, {staged_held_table}, {staged_dedupe_table};
DELETE FROM {changes_table} WHERE id IS NULL;
