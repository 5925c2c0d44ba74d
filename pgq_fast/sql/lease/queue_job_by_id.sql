-- The job $1, as the view of the queue shows it, without a look at every job.
WITH RECURSIVE
in_lease AS MATERIALIZED (
    SELECT lease.id AS lease, job.place
    FROM {lease_table} AS lease
    CROSS JOIN LATERAL unnest(lease.ids) WITH ORDINALITY AS job (id, place)
    WHERE job.id = $1::bigint AND get_bit(lease.done, job.place::integer - 1) = 0
),
wanted AS MATERIALIZED (
    SELECT $1::bigint AS id WHERE NOT EXISTS (SELECT FROM in_lease)
),
-- include lease/parts/in_ready
found AS (
    SELECT job.id, job.priority, NULL::uuid AS queue_manager_id, job.created,
        job.created AS updated, job.created AS heartbeat, job.execute_after,
        'queued'::{queue_status_type} AS status, job.entrypoint, job.dedupe_key, job.payload,
        job.headers, job.attempts, NULL::bigint AS slot
    FROM {ready_table} AS job
    WHERE EXISTS (SELECT FROM in_ready) AND job.ctid = ANY(ARRAY(SELECT place FROM in_ready))
    UNION ALL
    SELECT job.id, job.priority, NULL, job.created, job.created, job.created, job.execute_after,
        'queued', job.entrypoint, job.dedupe_key, job.payload, job.headers, job.attempts, NULL
    FROM {deferred_table} AS job
    WHERE EXISTS (SELECT id FROM wanted EXCEPT SELECT id FROM in_ready) AND job.id = $1::bigint
    UNION ALL
    SELECT lease.ids[place], lease.priorities[place], lease.worker, lease.created[place],
        lease.picked_at, lease.heartbeat, lease.execute_after[place], 'picked', lease.entrypoint,
        lease.dedupe_keys[place], lease.payloads[place], lease.headers[place],
        lease.attempts[place], lease.slot
    FROM in_lease
    JOIN {lease_table} AS lease ON lease.id = in_lease.lease
    UNION ALL
    SELECT job.id, job.priority, NULL, job.created, job.held_at, job.held_at, job.execute_after,
        'failed', job.entrypoint, job.dedupe_key, job.payload, job.headers, job.attempts, NULL
    FROM {held_table} AS job
    WHERE job.id = $1::bigint
)
SELECT * FROM found
