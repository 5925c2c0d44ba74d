-- A page of the jobs of the entrypoint $1 that may run later, the first that is due first, from the
-- time $2 on without the first $3 of that very time: the index has no ids, and a list that was
-- enqueued with one delay has one time. Looks at $7 jobs at most; see parts/page.sql for $4 to $6, $8.
WITH
looked AS MATERIALIZED (
    SELECT job.*, row_number() OVER (ORDER BY execute_after) AS place, true AS fits,
        row_number() OVER (PARTITION BY execute_after)
            + CASE WHEN execute_after = $2::timestamptz THEN $3::bigint ELSE 0 END AS tie
    FROM (
        SELECT id, priority, entrypoint, created, execute_after, attempts,
            octet_length(payload) AS payload_bytes
        FROM {queue_table}
        WHERE status = 'queued' AND entrypoint = $1::text AND execute_after > now()
            AND execute_after >= coalesce($2::timestamptz, now())
        ORDER BY execute_after
        LIMIT $7::bigint OFFSET $3::bigint
    ) AS job
),
-- include common/web/parts/page lowest=$4 highest=$5 older=$6 page=$8
