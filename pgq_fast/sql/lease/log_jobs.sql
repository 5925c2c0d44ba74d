-- End the jobs $1 with the statuses $2 and the traceback records $3: failed ones are held, the
-- others leave the queue. $5 and $6 say what is logged.
--
-- [fenced
-- Fenced by the owners $4: a job that has changed hands since stays as it is.
-- fenced]
-- [anyone
-- Whoever holds them; the owners $4 are all NULL. Returns the ids of the jobs that were in the queue
-- when this began, and whether they have ended now: one that was on its way has not.
-- anyone]
WITH RECURSIVE
modes AS MATERIALIZED (
    SELECT $5::text AS fallback, $6::text::jsonb AS exceptions
),
outcome AS MATERIALIZED (
    SELECT DISTINCT ON (id) id, status, traceback, owner
    FROM unnest($1::bigint[], $2::text[]::{queue_status_type}[], $3::text[]::jsonb[], $4::uuid[])
        WITH ORDINALITY AS outcome (id, status, traceback, owner, place)
    ORDER BY id, place
),
-- include lease/parts/take
freed AS (
    DELETE FROM {dedupe_table} AS dedupe
    USING taken
    WHERE dedupe.key = taken.dedupe_key AND dedupe.job_id = taken.id
),
moved AS MATERIALIZED (
    SELECT taken.id, outcome.status, outcome.traceback,
        coalesce(keyed.priority, taken.priority) AS priority, taken.entrypoint, taken.created,
        taken.worker, taken.picked_at
    FROM taken
    JOIN outcome USING (id)
    LEFT JOIN keyed USING (id)
),
-- [keeping
held_back AS (
    INSERT INTO {held_table} (id, priority, attempts, created, execute_after, entrypoint,
        dedupe_key, payload, headers)
    SELECT taken.id, moved.priority, taken.attempts, taken.created, taken.execute_after,
        taken.entrypoint, taken.dedupe_key, taken.payload, taken.headers
    FROM taken
    JOIN moved USING (id)
    WHERE moved.status = 'failed'
),
-- keeping]
-- include lease/parts/log_moves
-- [fenced
SELECT id FROM moved
-- fenced]
-- [anyone
SELECT id, EXISTS (SELECT FROM moved WHERE moved.id = seen.id) AS ended
FROM (
    SELECT id FROM in_lease
    UNION SELECT id FROM in_held
    UNION SELECT id FROM in_ready
    UNION SELECT id FROM in_deferred
) AS seen
-- anyone]
