-- The worker or watcher $1 waits to be told: of jobs to run where $2, of jobs that have ended where $3.
-- It says so again before $4 is over, or counts as gone.
WITH gone AS (
    DELETE FROM {waiting_table} WHERE until < now() AND id <> $1::uuid
)
INSERT INTO {waiting_table} AS waiting (id, for_work, for_ends, until)
VALUES ($1::uuid, $2::boolean, $3::boolean, now() + $4::interval)
ON CONFLICT (id) DO UPDATE
    SET for_work = excluded.for_work, for_ends = excluded.for_ends, until = excluded.until
