-- Take the jobs of `outcome` (id, owner) from wherever they are: `taken`. [fenced: only from the
-- owner, which is nobody for those that are not picked. attempts: only with the attempts of
-- `outcome`.] Of those with dedupe keys, `keyed` (id, priority).
in_lease AS MATERIALIZED (
    SELECT lease.id AS lease, job.id
    FROM {lease_table} AS lease
    CROSS JOIN LATERAL unnest(lease.ids) WITH ORDINALITY AS job (id, place)
    JOIN outcome ON outcome.id = job.id
    WHERE get_bit(lease.done, job.place::integer - 1) = 0
    -- [fenced
        AND lease.worker = ANY(ARRAY(SELECT owner FROM outcome)) AND lease.worker = outcome.owner
    -- fenced]
),
-- The latest version: others may have set bits since the snapshot, or deleted the lease.
locked AS MATERIALIZED (
    SELECT * FROM {lease_table}
    WHERE id = ANY(ARRAY(SELECT lease FROM in_lease))
    ORDER BY id
    FOR UPDATE
),
leased AS MATERIALIZED (
    SELECT lease.id AS lease, lease.done, job.place::integer - 1 AS place, lease.worker,
        lease.picked_at, lease.entrypoint, job.id, job.priority, job.attempts, job.created,
        job.execute_after, job.dedupe_key,
        -- [keeping
        job.payload, job.headers
        -- keeping]
        -- [dropping
        NULL::bytea AS payload, NULL::jsonb AS headers
        -- dropping]
    FROM locked AS lease
    CROSS JOIN LATERAL unnest(
        lease.ids, lease.priorities, lease.attempts, lease.created, lease.execute_after,
        lease.dedupe_keys
        -- [keeping
        , lease.payloads, lease.headers
        -- keeping]
    ) WITH ORDINALITY AS job (
        id, priority, attempts, created, execute_after, dedupe_key,
        -- [keeping
        payload, headers,
        -- keeping]
        place
    )
    JOIN outcome ON outcome.id = job.id
    WHERE get_bit(lease.done, job.place::integer - 1) = 0
    -- [fenced
        AND lease.worker = outcome.owner
    -- fenced]
    -- [attempts
        AND job.attempts = outcome.attempts
    -- attempts]
),
-- include lease/parts/mark_leases
in_held AS MATERIALIZED (
    SELECT held.id
    FROM {held_table} AS held
    WHERE held.id = ANY(ARRAY(SELECT id FROM outcome WHERE owner IS NULL))
),
wanted AS MATERIALIZED (
    SELECT id FROM outcome WHERE owner IS NULL
    EXCEPT SELECT id FROM in_lease
    EXCEPT SELECT id FROM in_held
),
-- include lease/parts/in_ready
-- Read only for jobs that are nowhere else: deferred has no index by id.
in_deferred AS MATERIALIZED (
    SELECT deferred.ctid AS place, wanted.id, deferred.dedupe_key
    FROM {deferred_table} AS deferred
    JOIN wanted ON wanted.id = deferred.id
    WHERE EXISTS (SELECT id FROM wanted EXCEPT SELECT id FROM in_ready)
),
-- After the leases and before the queued jobs, as everybody else does it: so nobody waits for each
-- other. The priority in here is the one that counts.
keyed AS MATERIALIZED (
    SELECT job_id AS id, priority
    FROM {dedupe_table}
    WHERE key = ANY(ARRAY(
        SELECT dedupe_key FROM leased
        UNION ALL
        SELECT dedupe_key FROM in_ready
        UNION ALL
        SELECT dedupe_key FROM in_deferred
    ))
    ORDER BY key
    FOR UPDATE
),
from_held AS (
    DELETE FROM {held_table} AS held
    USING outcome
    WHERE held.id = ANY(ARRAY(SELECT id FROM in_held)) AND held.id = outcome.id
    -- [attempts
        AND held.attempts = outcome.attempts
    -- attempts]
    RETURNING held.*
),
from_ready AS (
    DELETE FROM {ready_table} AS ready
    USING outcome
    WHERE EXISTS (SELECT FROM in_ready) AND (SELECT count(*) FROM keyed) >= 0
        AND ready.ctid = ANY(ARRAY(SELECT place FROM in_ready)) AND ready.id = outcome.id
    -- [attempts
        AND ready.attempts = outcome.attempts
    -- attempts]
    RETURNING ready.*
),
from_deferred AS (
    DELETE FROM {deferred_table} AS deferred
    USING outcome
    WHERE EXISTS (SELECT FROM in_deferred) AND (SELECT count(*) FROM keyed) >= 0
        AND deferred.ctid = ANY(ARRAY(SELECT place FROM in_deferred)) AND deferred.id = outcome.id
    -- [attempts
        AND deferred.attempts = outcome.attempts
    -- attempts]
    RETURNING deferred.*
),
taken AS MATERIALIZED (
    SELECT id, priority, attempts, created, entrypoint, dedupe_key, payload, headers,
        NULL::uuid AS worker, NULL::timestamptz AS picked_at, execute_after, false AS held
    FROM from_ready
    UNION ALL
    SELECT id, priority, attempts, created, entrypoint, dedupe_key, payload, headers, NULL, NULL,
        execute_after, false
    FROM from_deferred
    UNION ALL
    SELECT id, priority, attempts, created, entrypoint, dedupe_key, payload, headers, NULL, NULL,
        execute_after, true
    FROM from_held
    UNION ALL
    SELECT id, priority, attempts, created, entrypoint, dedupe_key, payload, headers, worker,
        picked_at, execute_after, false
    FROM leased
),
