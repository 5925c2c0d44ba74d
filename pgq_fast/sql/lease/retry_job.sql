-- Put the jobs $1 back to run after the delays $2, logged with the traceback records $3. $6 and $7
-- say what is logged.
--
-- Fenced by the owners $4 and the attempts $5: a job that has changed hands since stays as it is,
-- and so does one that this very statement has put back before, should it be repeated.
WITH RECURSIVE
modes AS MATERIALIZED (
    SELECT $6::text AS fallback, $7::text::jsonb AS exceptions
),
outcome AS MATERIALIZED (
    SELECT DISTINCT ON (id) id, delay, traceback, owner, attempts
    FROM unnest($1::bigint[], $2::interval[], $3::text[]::jsonb[], $4::uuid[], $5::int[])
        WITH ORDINALITY AS outcome (id, delay, traceback, owner, attempts, place)
    ORDER BY id, place
),
-- include lease/parts/take
-- Of a held job the key was free; here it may turn out to be taken.
keyed_again AS (
    INSERT INTO {dedupe_table} (key, job_id, entrypoint, priority)
    SELECT dedupe_key, id, entrypoint, priority
    FROM taken
    WHERE held AND dedupe_key IS NOT NULL
),
moved AS MATERIALIZED (
    SELECT taken.id, 'queued'::{queue_status_type} AS status, outcome.traceback,
        coalesce(keyed.priority, taken.priority) AS priority, taken.entrypoint, taken.created,
        taken.worker, taken.picked_at, outcome.delay
    FROM taken
    JOIN outcome USING (id)
    LEFT JOIN keyed USING (id)
),
to_ready AS (
    INSERT INTO {ready_table} (id, priority, attempts, created, execute_after, entrypoint,
        dedupe_key, payload, headers)
    SELECT taken.id, moved.priority, least(taken.attempts, 2147483646) + 1, taken.created,
        (now() AT TIME ZONE 'UTC' + moved.delay) AT TIME ZONE 'UTC',
        taken.entrypoint, taken.dedupe_key, taken.payload, taken.headers
    FROM taken
    JOIN moved USING (id)
    WHERE moved.delay <= interval '0'
),
to_deferred AS (
    INSERT INTO {deferred_table} (id, priority, attempts, created, execute_after, entrypoint,
        dedupe_key, payload, headers)
    SELECT taken.id, moved.priority, least(taken.attempts, 2147483646) + 1, taken.created,
        (now() AT TIME ZONE 'UTC' + moved.delay) AT TIME ZONE 'UTC',
        taken.entrypoint, taken.dedupe_key, taken.payload, taken.headers
    FROM taken
    JOIN moved USING (id)
    WHERE moved.delay > interval '0'
),
-- include lease/parts/log_moves
SELECT id FROM moved
