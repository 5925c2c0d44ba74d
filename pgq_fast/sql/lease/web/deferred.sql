-- A page of the deferred jobs of the entrypoint $1, the first that is due first, behind the job with
-- the time $2 and the id $3. Looks at $7 jobs at most; see parts/page.sql for $4 to $6, $8.
WITH
looked AS MATERIALIZED (
    SELECT job.*, row_number() OVER (ORDER BY execute_after, id) AS place, true AS fits, id AS tie
    FROM (
        SELECT id, priority, entrypoint, created, execute_after, attempts,
            octet_length(payload) AS payload_bytes
        FROM {deferred_table}
        WHERE entrypoint = $1::text
            AND (execute_after, id) > (coalesce($2::timestamptz, '-infinity'), $3::bigint)
        ORDER BY execute_after, id
        LIMIT $7::bigint
    ) AS job
),
-- include common/web/parts/page lowest=$4 highest=$5 older=$6 page=$8
