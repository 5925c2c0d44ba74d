-- The first place behind which a job may be missing: the last one looked at of an entrypoint that has
-- more. All up to there are known. What <aside> says of a job is that it was not found in line.
horizon AS MATERIALIZED (
    SELECT min(turn) AS turn
    FROM (
        SELECT max(turn) AS turn
        FROM candidate
        WHERE NOT <aside>
        GROUP BY <entrypoint>
        HAVING count(*) >= (SELECT <looks>::bigint)
    ) AS last
),
