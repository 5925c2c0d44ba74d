-- How many jobs there are, each number by looking at $1 at most: as many or more then. $2 pairs of
-- entrypoint and priority are looked at for the job that has waited longest.
WITH RECURSIVE
-- include lease/web/parts/heads names=$2
counted AS (
    SELECT
        (
            SELECT count(*)
            FROM (
                SELECT FROM {ready_table} ORDER BY entrypoint, ~priority, id LIMIT $1::bigint
            ) AS job
        ) AS queued,
        (
            SELECT count(*)
            FROM (
                SELECT FROM {deferred_table} ORDER BY entrypoint, execute_after LIMIT $1::bigint
            ) AS job
        ) AS deferred,
        (
            SELECT coalesce(sum(length(done) - bit_count(done)), 0)::bigint
            FROM (SELECT done FROM {lease_table} ORDER BY id LIMIT $1::bigint) AS lease
        ) AS picked,
        (
            SELECT count(*) FROM (SELECT FROM {held_table} ORDER BY id LIMIT $1::bigint) AS job
        ) AS failed,
        false AS failed_cut,
        false AS names_cut,
        -- How long the job has waited that waits longest, of those that are first in their line.
        (SELECT extract(epoch FROM now() - min(since))::float8 FROM head) AS waited
)
SELECT * FROM counted
