-- A page of the running jobs, of the entrypoint $1 where given, the one that was picked first first,
-- behind the job with the time $2 and the id $3. Looks at $7 jobs at most; see parts/page.sql for
-- $4 to $6, $8.
WITH
looked AS MATERIALIZED (
    SELECT job.*, row_number() OVER (ORDER BY updated, id DESC) AS place,
        $1::text IS NULL OR entrypoint = $1::text AS fits
    FROM (
        SELECT *
        FROM (
            (
                SELECT id, priority, entrypoint, created, execute_after, attempts,
                    octet_length(payload) AS payload_bytes, updated, heartbeat, queue_manager_id
                FROM {queue_table}
                WHERE status = 'picked' AND updated = $2::timestamptz AND id < $3::bigint
                ORDER BY id DESC
                LIMIT $7::bigint
            )
            UNION ALL
            (
                SELECT id, priority, entrypoint, created, execute_after, attempts,
                    octet_length(payload), updated, heartbeat, queue_manager_id
                FROM {queue_table}
                WHERE status = 'picked' AND updated > coalesce($2::timestamptz, '-infinity')
                ORDER BY updated, id DESC
                LIMIT $7::bigint
            )
        ) AS job
        ORDER BY updated, id DESC
        LIMIT $7::bigint
    ) AS job
),
-- include common/web/parts/page lowest=$4 highest=$5 older=$6 page=$8
