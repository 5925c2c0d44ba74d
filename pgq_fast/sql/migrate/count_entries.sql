-- Count up to $2 log entries into the statistics, as aggregate_logs does; whether some are left that
-- were enqueues and are older than $3 or, where that is not given, than this statement. Entries that
-- somebody else is counting are waited for.
WITH
turn AS MATERIALIZED (
    UPDATE {migration_table} SET alive_until = clock_timestamp() + life
    WHERE token = $1::uuid AND alive_until > clock_timestamp()
    RETURNING token
),
marked AS (
    UPDATE {log_entries_table} SET aggregated = true
    WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {log_entries_table} WHERE NOT aggregated LIMIT $2::bigint
        ))
        AND NOT aggregated AND EXISTS (SELECT FROM turn)
    RETURNING entrypoint, priority, status, date_trunc('sec', created) AS created
),
counted AS (
    INSERT INTO {statistics_table} AS bucket (count, created, entrypoint, priority, status)
    SELECT count(*), created, entrypoint, priority, status
    FROM marked
    GROUP BY created, entrypoint, priority, status
    -- The same order in all, so that two of these do not wait for each other's buckets.
    ORDER BY created, entrypoint, priority, status
    ON CONFLICT (priority, date_trunc('sec', timezone('UTC', created)), status, entrypoint)
        DO UPDATE SET count = bucket.count + excluded.count
)
SELECT EXISTS (SELECT FROM turn) AS mine, (SELECT count(*) FROM marked) AS entries
