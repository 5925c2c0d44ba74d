-- How many jobs ended within $1, by slots of $2 seconds: from the $3 newest rows of the statistics,
-- which have no index by time but ids in its order.
SELECT floor(extract(epoch FROM created) / $2::integer)::bigint AS slot,
    -- [by_entrypoint
    entrypoint,
    -- by_entrypoint]
    status::text AS status, sum(count)::bigint AS count, bool_or(looked = $3::bigint) AS cut
FROM (
    SELECT created, entrypoint, status, count, count(*) OVER () AS looked
    FROM (
        SELECT created, entrypoint, status, count
        FROM {statistics_table}
        ORDER BY id DESC
        LIMIT $3::bigint
    ) AS newest
) AS bucket
WHERE created > now() - $1::interval AND status NOT IN ('queued', 'picked')
GROUP BY 1,
    -- [by_entrypoint
    entrypoint,
    -- by_entrypoint]
    bucket.status
