-- Delete the jobs of the entrypoints $1 up to the id $2, wherever they are, and log them. Returns how
-- many it were, and how many others were there when this began: they are on their way from one place
-- to another. $3 and $4 say what is logged.
WITH
modes AS MATERIALIZED (
    SELECT $3::text AS fallback, $4::text::jsonb AS exceptions
),
locked AS MATERIALIZED (
    SELECT * FROM {lease_table}
    WHERE entrypoint = ANY($1::text[])
    ORDER BY id
    FOR UPDATE
),
leased AS MATERIALIZED (
    SELECT lease.id AS lease, lease.done, job.place::integer - 1 AS place, lease.worker,
        lease.picked_at, lease.entrypoint, job.id, coalesce(job.priority, 0) AS priority,
        job.created, job.dedupe_key
    FROM locked AS lease
    CROSS JOIN LATERAL unnest(lease.ids, lease.priorities, lease.created, lease.dedupe_keys)
        WITH ORDINALITY AS job (id, priority, created, dedupe_key, place)
    WHERE substring(lease.done, job.place::integer, 1) = B'0' AND job.id <= $2::bigint
),
-- include lease/parts/mark_leases
-- See parts/take.sql for the order.
keyed AS MATERIALIZED (
    SELECT job_id AS id, priority
    FROM {dedupe_table}
    WHERE entrypoint = ANY($1::text[]) AND job_id <= $2::bigint
        AND (SELECT count(*) FROM leased) >= 0
    ORDER BY key
    FOR UPDATE
),
from_ready AS (
    DELETE FROM {ready_table}
    WHERE entrypoint = ANY($1::text[]) AND id <= $2::bigint AND (SELECT count(*) FROM keyed) >= 0
    RETURNING id, priority, created, entrypoint, dedupe_key
),
from_deferred AS (
    DELETE FROM {deferred_table}
    WHERE entrypoint = ANY($1::text[]) AND id <= $2::bigint AND (SELECT count(*) FROM keyed) >= 0
    RETURNING id, priority, created, entrypoint, dedupe_key
),
from_held AS (
    DELETE FROM {held_table} WHERE entrypoint = ANY($1::text[]) AND id <= $2::bigint
    RETURNING id, priority, created, entrypoint, dedupe_key
),
taken AS MATERIALIZED (
    SELECT id, priority, created, entrypoint, dedupe_key, NULL::uuid AS worker,
        NULL::timestamptz AS picked_at
    FROM from_ready
    UNION ALL
    SELECT id, priority, created, entrypoint, dedupe_key, NULL, NULL FROM from_deferred
    UNION ALL
    SELECT id, priority, created, entrypoint, dedupe_key, NULL, NULL FROM from_held
    UNION ALL
    SELECT id, priority, created, entrypoint, dedupe_key, worker, picked_at FROM leased
),
freed AS (
    DELETE FROM {dedupe_table} AS dedupe
    USING taken
    WHERE dedupe.key = taken.dedupe_key AND dedupe.job_id = taken.id
),
moved AS MATERIALIZED (
    SELECT taken.id, 'deleted'::{queue_status_type} AS status, NULL::jsonb AS traceback,
        coalesce(keyed.priority, taken.priority) AS priority, taken.entrypoint, taken.created,
        taken.worker, taken.picked_at
    FROM taken
    LEFT JOIN keyed USING (id)
),
-- include lease/parts/log_moves
SELECT count(*) AS cleared, (
    SELECT count(*) FROM {ready_table} WHERE entrypoint = ANY($1::text[]) AND id <= $2::bigint
) + (
    SELECT count(*) FROM {deferred_table} WHERE entrypoint = ANY($1::text[]) AND id <= $2::bigint
) + (
    SELECT count(*) FROM {held_table} WHERE entrypoint = ANY($1::text[]) AND id <= $2::bigint
) + (
    SELECT count(*)
    FROM {lease_table} AS lease
    CROSS JOIN LATERAL unnest(lease.ids) WITH ORDINALITY AS job (id, place)
    WHERE lease.entrypoint = ANY($1::text[]) AND job.id <= $2::bigint
        AND substring(lease.done, job.place::integer, 1) = B'0'
) - count(*) AS missed
FROM moved
