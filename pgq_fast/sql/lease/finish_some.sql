-- End the jobs whose bits are set in $2, in the leases $1 of the worker $3: successful, while others of
-- the same leases still run. Only the bitmap of a lease is written anew, and repeating it changes
-- nothing.
WITH
-- include lease/parts/relaxed
wish AS MATERIALIZED (
    SELECT id, bits::varbit AS bits
    FROM unnest($1::text::bigint[], $2::text[]) AS wish (id, bits)
),
-- Locked, so that what is read here is the latest.
mine AS MATERIALIZED (
    SELECT lease.id, lease.entrypoint, lease.worker, lease.picked_at, lease.ids, lease.priorities,
        lease.created, lease.dedupe_keys, wish.bits & ~lease.done AS bits,
        wish.bits | lease.done AS done
    FROM {lease_table} AS lease
    JOIN wish USING (id)
    WHERE lease.id = ANY($1::text::bigint[]) AND lease.worker IS NOT DISTINCT FROM $3::uuid
        AND length(wish.bits) = length(lease.done)
    ORDER BY lease.id
    FOR UPDATE OF lease
),
kept AS (
    UPDATE {lease_table} AS lease
    SET done = mine.done, heartbeat = statement_timestamp()
    FROM mine
    WHERE lease.id = mine.id AND bit_count(mine.done) < length(mine.done)
        AND bit_count(mine.bits) > 0
),
gone AS (
    DELETE FROM {lease_table} AS lease
    USING mine
    WHERE lease.id = mine.id AND bit_count(mine.done) = length(mine.done)
),
job AS MATERIALIZED (
    SELECT mine.id AS lease, job.*
    FROM mine
    CROSS JOIN LATERAL unnest(mine.ids, mine.priorities, mine.created, mine.dedupe_keys)
        WITH ORDINALITY AS job (id, priority, created, key, place)
    WHERE substring(mine.bits, job.place::integer, 1) = B'1'
),
fresh AS (
    SELECT mine.entrypoint, mine.worker, mine.picked_at, batch.ids, batch.priorities, batch.created
    FROM mine
    JOIN (
        SELECT lease, array_agg(id ORDER BY place) AS ids,
            array_agg(priority ORDER BY place) AS priorities,
            array_agg(created ORDER BY place) AS created
        FROM job
        GROUP BY lease
    ) AS batch ON batch.lease = mine.id
),
-- include lease/parts/logged default=$4 exceptions=$5
-- include lease/parts/keyed jobs=job
freed AS (
    DELETE FROM {dedupe_table} AS dedupe
    USING job
    WHERE dedupe.key = job.key AND dedupe.job_id = job.id AND (SELECT count(*) FROM keyed) >= 0
)
SELECT count(*) AS leases
-- [relaxed
    , (SELECT setting FROM relaxed)
-- relaxed]
FROM mine
