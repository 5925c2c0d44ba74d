-- The job $1, wherever it is. No table that every job goes through has an index by id, so what is
-- ready is looked up by its place in line, of 1000 pairs of entrypoint and priority at most; and what
-- is deferred by the entrypoint $2 and the time $3 if these are known, else among $4 jobs. The row
-- says whether it was `cut` short; without an id, that this is why nothing was found.
WITH RECURSIVE
in_lease AS MATERIALIZED (
    SELECT lease.id AS lease, job.place
    FROM (SELECT id, ids, done FROM {lease_table} ORDER BY id LIMIT 5000) AS lease
    CROSS JOIN LATERAL unnest(lease.ids) WITH ORDINALITY AS job (id, place)
    WHERE job.id = $1::bigint AND substring(lease.done, job.place::integer, 1) = B'0'
    LIMIT 1
),
-- include lease/web/parts/heads names=1000
in_ready AS MATERIALIZED (
    SELECT head.entrypoint, head.rank
    FROM head
    WHERE EXISTS (
        SELECT FROM {ready_table} AS job
        WHERE job.entrypoint = head.entrypoint AND ~job.priority = head.rank AND job.id = $1::bigint
    )
    LIMIT 1
),
hinted AS MATERIALIZED (
    SELECT entrypoint, execute_after
    FROM {deferred_table}
    WHERE entrypoint = $2::text AND execute_after = $3::timestamptz AND id = $1::bigint
),
searched AS MATERIALIZED (
    SELECT entrypoint, execute_after, id
    FROM {deferred_table}
    WHERE NOT EXISTS (SELECT FROM in_lease) AND NOT EXISTS (SELECT FROM in_ready)
        AND NOT EXISTS (SELECT FROM hinted)
    ORDER BY entrypoint, execute_after, id
    LIMIT $4::bigint
),
in_deferred AS MATERIALIZED (
    SELECT entrypoint, execute_after FROM hinted
    UNION ALL
    SELECT entrypoint, execute_after FROM searched WHERE id = $1::bigint
),
job AS (
    SELECT job.id, job.priority, job.entrypoint, job.created, job.execute_after, job.attempts,
        'queued' AS status, NULL::timestamptz AS updated, NULL::timestamptz AS heartbeat,
        NULL::uuid AS queue_manager_id, NULL::bigint AS slot, job.dedupe_key, job.payload,
        job.headers
    FROM in_ready
    JOIN {ready_table} AS job ON job.entrypoint = in_ready.entrypoint
        AND ~job.priority = in_ready.rank AND job.id = $1::bigint
    UNION ALL
    SELECT job.id, job.priority, job.entrypoint, job.created, job.execute_after, job.attempts,
        'queued', NULL, NULL, NULL, NULL, job.dedupe_key, job.payload, job.headers
    FROM in_deferred
    JOIN {deferred_table} AS job ON job.entrypoint = in_deferred.entrypoint
        AND job.execute_after = in_deferred.execute_after AND job.id = $1::bigint
    UNION ALL
    SELECT lease.ids[place], coalesce(lease.priorities[place], 0), lease.entrypoint,
        lease.created[place], lease.execute_after[place], lease.attempts[place], 'picked',
        lease.picked_at, lease.heartbeat, lease.worker, lease.slot, lease.dedupe_keys[place],
        lease.payloads[place], lease.headers[place]
    FROM in_lease
    JOIN {lease_table} AS lease ON lease.id = in_lease.lease
    UNION ALL
    SELECT id, priority, entrypoint, created, execute_after, attempts, 'failed', held_at, NULL, NULL,
        NULL, dedupe_key, payload, headers
    FROM {held_table}
    WHERE id = $1::bigint
)
SELECT job.id, priority, entrypoint, created, execute_after, attempts, status, updated, heartbeat,
    queue_manager_id, slot, dedupe_key, octet_length(payload) AS payload_bytes,
    -- [payload
    substring(payload FOR 65536) AS payload, left(headers::text, 65536) AS headers,
    -- payload]
    (SELECT count(*) FROM head) >= 1000 OR (SELECT count(*) FROM searched) >= $4::bigint AS cut
FROM (SELECT) AS always
LEFT JOIN job ON true
LIMIT 1
