-- A page of what was `looked` at: the jobs that match, as many as <page>, and the last one that was
-- looked at, from which to go on. `looked` has the columns `place`, counted from 1, and `fits`.
judged AS (
    SELECT looked.*, (SELECT count(*) FROM looked) AS looked,
        fits AND priority >= <lowest>::integer AND priority <= <highest>::integer
        AND (<older>::interval IS NULL OR created <= now() - <older>::interval) AS matches
    FROM looked
)
SELECT * FROM judged
WHERE matches OR place = looked
ORDER BY place
LIMIT <page>::bigint + 1
