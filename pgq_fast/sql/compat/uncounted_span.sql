-- The times of the first and the last log entry that is in no statistics yet; NULLs if all are. OFFSET
-- keeps the planner from reading the whole log in their order.
--
-- Times that no driver can tell are of entries that somebody has edited, and are left out.
SELECT min(created) AS since, max(created) AS until
FROM (
    SELECT created
    FROM {queue_table_log}
    WHERE NOT aggregated
    OFFSET 0
) AS entry
WHERE created >= timestamptz '0001-01-02 00:00:00+00' AND created < timestamptz '9999-12-30 00:00:00+00'
