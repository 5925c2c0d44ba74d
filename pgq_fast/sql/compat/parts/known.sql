-- [some
-- The first place behind which a job may be missing: the last one looked at of an entrypoint that has
-- more. All up to there are known.
horizon AS MATERIALIZED (
    SELECT min(turn) AS turn
    FROM (
        SELECT max(turn) AS turn
        FROM candidate
        WHERE looked_at
        GROUP BY entrypoint
        HAVING count(*) >= (SELECT $5::bigint)
    ) AS last
),
-- some]
known AS MATERIALIZED (
    SELECT *
    FROM candidate
    -- [some
    WHERE coalesce(turn <= (SELECT turn FROM horizon), true)
    -- some]
),
