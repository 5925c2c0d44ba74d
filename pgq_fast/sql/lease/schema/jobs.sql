-- The jobs in the shape of pgqueuer's table, to be read only.
--
-- Each part names all its columns, as the catalog does: so an installed view and this text compare.
SELECT id, priority, NULL::uuid AS queue_manager_id, created, created AS updated,
    created AS heartbeat, execute_after, 'queued'::{queue_status_type} AS status, entrypoint,
    dedupe_key, payload, headers, attempts, NULL::bigint AS slot
FROM {ready_table}
UNION ALL
SELECT id, priority, NULL::uuid AS queue_manager_id, created, created AS updated,
    created AS heartbeat, execute_after, 'queued'::{queue_status_type} AS status, entrypoint,
    dedupe_key, payload, headers, attempts, NULL::bigint AS slot
FROM {deferred_table}
UNION ALL
SELECT job.id, job.priority, lease.worker AS queue_manager_id, job.created,
    lease.picked_at AS updated, lease.heartbeat, job.execute_after,
    'picked'::{queue_status_type} AS status, lease.entrypoint, job.dedupe_key, job.payload,
    job.headers, job.attempts, lease.slot
FROM {lease_table} AS lease
CROSS JOIN LATERAL unnest(
    lease.ids, lease.priorities, lease.attempts, lease.created, lease.execute_after,
    lease.dedupe_keys, lease.payloads, lease.headers
) WITH ORDINALITY AS job (
    id, priority, attempts, created, execute_after, dedupe_key, payload, headers, place
)
WHERE get_bit(lease.done, job.place::integer - 1) = 0
UNION ALL
SELECT id, priority, NULL::uuid AS queue_manager_id, created, held_at AS updated,
    held_at AS heartbeat, execute_after, 'failed'::{queue_status_type} AS status, entrypoint,
    dedupe_key, payload, headers, attempts, NULL::bigint AS slot
FROM {held_table}
