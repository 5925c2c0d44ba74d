-- How many jobs ended within $1 that the statistics do not count yet, by slots of $2 seconds, from
-- $3 batches and $3 single entries at most.
SELECT floor(extract(epoch FROM created) / $2::integer)::bigint AS slot,
    -- [by_entrypoint
    entrypoint,
    -- by_entrypoint]
    status::text AS status, sum(jobs)::bigint AS count, bool_or(looked = $3::bigint) AS cut
FROM (
    SELECT created, entrypoint, status, jobs, count(*) OVER () AS looked
    FROM (
        SELECT created, entrypoint, status, jobs FROM {log_batches_table}
        WHERE NOT aggregated
        LIMIT $3::bigint
    ) AS batch
    UNION ALL
    SELECT created, entrypoint, status, 1, count(*) OVER ()
    FROM (
        SELECT created, entrypoint, status FROM {log_entries_table}
        WHERE NOT aggregated
        LIMIT $3::bigint
    ) AS entry
) AS entry
WHERE created > now() - $1::interval AND status NOT IN ('queued', 'picked')
GROUP BY 1,
    -- [by_entrypoint
    entrypoint,
    -- by_entrypoint]
    entry.status
