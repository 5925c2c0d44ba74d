-- Pick the schedules among (expressions $1, entrypoints $2) that are due, or whose worker has died,
-- and set their next run to $3 from now. SKIP LOCKED: a tick is run by one worker. A delay is added
-- as seconds: its days would be days of the session's time zone, which are not all 24 hours long.
WITH
wanted AS (
    SELECT expression, entrypoint, delay
    FROM unnest($1::text[], $2::text[], $3::interval[]) AS wanted (expression, entrypoint, delay)
),
due AS (
    SELECT schedule.id, wanted.delay
    FROM {schedules_table} AS schedule
    JOIN wanted USING (expression, entrypoint)
    WHERE (schedule.status = 'queued' AND schedule.next_run <= now())
        OR (schedule.status = 'picked' AND schedule.heartbeat < now() - interval '30 seconds')
    FOR UPDATE OF schedule SKIP LOCKED
)
UPDATE {schedules_table} AS schedule
SET status = 'picked', updated = statement_timestamp(), heartbeat = statement_timestamp(),
    next_run = date_trunc('seconds', now() + extract(epoch FROM due.delay) * interval '1 second')
FROM due
WHERE schedule.id = due.id
RETURNING schedule.*
