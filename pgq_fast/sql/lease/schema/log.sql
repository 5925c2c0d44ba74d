-- The log in the shape of pgqueuer's table, to be read only. What the present place of a job says
-- about it is in here without being written anywhere.
--
-- Each part names all its columns, as the catalog does: so an installed view and this text compare.
SELECT id, created, job_id, status, priority, entrypoint, traceback, aggregated
FROM {log_entries_table}
UNION ALL
SELECT batch.id, event.created, job.id AS job_id, event.status,
    coalesce(batch.priority, job.priority) AS priority, batch.entrypoint,
    NULL::jsonb AS traceback, batch.aggregated
FROM {log_batches_table} AS batch
CROSS JOIN LATERAL unnest(batch.ids, batch.priorities, batch.queued_at)
    AS job (id, priority, queued_at)
CROSS JOIN LATERAL (
    VALUES
        (job.queued_at, 'queued'::{queue_status_type}),
        (batch.picked_at, 'picked'::{queue_status_type}),
        (batch.created, batch.status)
) AS event (created, status)
WHERE event.created IS NOT NULL
UNION ALL
SELECT NULL::bigint AS id, created, id AS job_id, 'queued'::{queue_status_type} AS status, priority,
    entrypoint, NULL::jsonb AS traceback, false AS aggregated
FROM {ready_table}
UNION ALL
SELECT NULL::bigint AS id, created, id AS job_id, 'queued'::{queue_status_type} AS status, priority,
    entrypoint, NULL::jsonb AS traceback, false AS aggregated
FROM {deferred_table}
UNION ALL
SELECT NULL::bigint AS id, created, id AS job_id, 'queued'::{queue_status_type} AS status, priority,
    entrypoint, NULL::jsonb AS traceback, false AS aggregated
FROM {held_table}
UNION ALL
SELECT NULL::bigint AS id, event.created, job.id AS job_id, event.status, job.priority,
    lease.entrypoint, NULL::jsonb AS traceback, false AS aggregated
FROM {lease_table} AS lease
CROSS JOIN LATERAL unnest(lease.ids, lease.priorities, lease.created)
    WITH ORDINALITY AS job (id, priority, created, place)
CROSS JOIN LATERAL (
    VALUES
        (job.created, 'queued'::{queue_status_type}),
        (lease.picked_at, 'picked'::{queue_status_type})
) AS event (created, status)
WHERE get_bit(lease.done, job.place::integer - 1) = 0
