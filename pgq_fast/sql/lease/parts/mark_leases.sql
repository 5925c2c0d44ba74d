-- Set the bits of the jobs in `leased` (lease, done, place), whose leases are locked. A lease that
-- has nothing left to do is deleted. The DELETE tells whoever waits for ends, also of other jobs
-- that this statement ends: a trigger of a statement does not ask how many rows there are.
marks AS MATERIALIZED (
    SELECT lease, bit_or(set_bit(done, place, 1)) AS done FROM leased GROUP BY lease
),
closed AS (
    DELETE FROM {lease_table}
    WHERE id = ANY(ARRAY(SELECT lease FROM marks WHERE bit_count(done) = length(done)))
),
marked AS (
    UPDATE {lease_table} AS lease
    SET done = marks.done
    FROM marks
    WHERE lease.id = marks.lease AND bit_count(marks.done) < length(marks.done)
),
