-- Jobs of workers that are not waited for any more are queued again: with the priority that counts if they
-- have a key, and the entry in the log that the lease stood for.
WITH
job AS MATERIALIZED (
    SELECT job.id, coalesce(dedupe.priority, job.priority) AS priority, job.attempts, job.created,
        job.execute_after, lease.entrypoint, job.dedupe_key, job.payload, job.headers, lease.picked_at
    FROM {lease_table} AS lease
    CROSS JOIN LATERAL unnest(
        lease.ids, lease.priorities, lease.attempts, lease.created, lease.execute_after,
        lease.dedupe_keys, lease.payloads, lease.headers
    ) WITH ORDINALITY AS job (
        id, priority, attempts, created, execute_after, dedupe_key, payload, headers, place
    )
    LEFT JOIN {dedupe_table} AS dedupe ON dedupe.key = job.dedupe_key AND dedupe.job_id = job.id
    WHERE get_bit(lease.done, job.place::integer - 1) = 0
),
staged AS (
    INSERT INTO {staged_table} (
        id, priority, created, updated, heartbeat, execute_after, status, entrypoint, dedupe_key,
        payload, headers, attempts
    )
    SELECT id, priority, created, now(), now(), execute_after, 'queued', entrypoint, dedupe_key,
        payload, headers, attempts
    FROM job
    ORDER BY id
),
noted AS (
    -- As what was queued in the lease layout, for what is to follow the switch.
    INSERT INTO {ready_table} (id, priority, attempts, created, execute_after, entrypoint)
    SELECT id, priority, attempts, created, execute_after, entrypoint
    FROM job
)
INSERT INTO {log_entries_table} (created, job_id, status, priority, entrypoint)
SELECT picked_at, id, 'picked', priority, entrypoint
FROM job
