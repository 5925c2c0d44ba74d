-- Somebody emptied the queue: start the copies anew. A note that comes in between is of a change that the
-- next copies contain, or of another emptying, which leaves nothing to remove.
TRUNCATE {staged_table};
DELETE FROM {changes_table} WHERE id IS NULL;
