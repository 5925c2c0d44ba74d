-- Not of live jobs: what they say is counted when it is read.
SELECT (
    SELECT count(*) FROM {log_entries_table} WHERE NOT aggregated
) + (
    SELECT coalesce(sum(
        jobs::bigint * (1 + (picked_at IS NOT NULL)::int + (queued_at IS NOT NULL)::int)
    ), 0)::bigint
    FROM {log_batches_table}
    WHERE NOT aggregated
) AS unaggregated
