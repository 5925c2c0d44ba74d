-- The latest status of each of the jobs $1: what the log says last of those that have ended, and the
-- present place of the others.
WITH RECURSIVE
asked AS MATERIALIZED (
    SELECT DISTINCT id FROM unnest($1::bigint[]) AS asked (id)
),
-- The batches are not asked for the latest one by the index on `created`, which would be read to
-- wherever it is: hence OFFSET.
logged AS MATERIALIZED (
    SELECT asked.id, latest.status
    FROM asked
    CROSS JOIN LATERAL (
        (
            SELECT entry.status, entry.created
            FROM {log_entries_table} AS entry
            WHERE entry.job_id = asked.id
            ORDER BY entry.job_id, entry.created DESC, entry.id DESC
            LIMIT 1
        )
        UNION ALL
        SELECT status, created
        FROM (
            SELECT batch.status, batch.created
            FROM {log_batches_table} AS batch
            WHERE int8range(batch.first_id, batch.last_id, '[]') @> asked.id
                AND batch.ids IS NOT NULL AND asked.id = ANY(batch.ids)
            OFFSET 0
        ) AS batch
        ORDER BY created DESC
        LIMIT 1
    ) AS latest
),
going AS MATERIALIZED (
    SELECT id FROM asked
    EXCEPT
    SELECT id FROM logged WHERE status IN ('successful', 'exception', 'canceled', 'deleted')
),
in_lease AS MATERIALIZED (
    SELECT going.id
    FROM {lease_table} AS lease
    CROSS JOIN LATERAL unnest(lease.ids) WITH ORDINALITY AS job (id, place)
    JOIN going ON going.id = job.id
    WHERE substring(lease.done, job.place::integer, 1) = B'0' AND EXISTS (SELECT FROM going)
),
in_held AS MATERIALIZED (
    SELECT id FROM {held_table} WHERE id = ANY(ARRAY(SELECT id FROM going))
),
wanted AS MATERIALIZED (
    SELECT id FROM going EXCEPT SELECT id FROM in_lease EXCEPT SELECT id FROM in_held
),
-- include lease/parts/in_ready
in_deferred AS MATERIALIZED (
    SELECT wanted.id
    FROM {deferred_table} AS deferred
    JOIN wanted ON wanted.id = deferred.id
    WHERE EXISTS (SELECT id FROM wanted EXCEPT SELECT id FROM in_ready)
),
live AS (
    SELECT id, 'picked'::{queue_status_type} AS status FROM in_lease
    UNION ALL
    SELECT id, 'failed' FROM in_held
    UNION ALL
    SELECT id, 'queued' FROM in_ready
    UNION ALL
    SELECT id, 'queued' FROM in_deferred
)
SELECT id AS job_id, coalesce(live.status, logged.status)::text AS status
FROM live
FULL JOIN logged USING (id)
-- One that is nowhere and has no end in the log has ended without a word: what the log says of an
-- earlier run is not true any more.
WHERE live.status IS NOT NULL
    OR logged.status IN ('successful', 'exception', 'canceled', 'deleted')
ORDER BY id
