-- Say that the migration $1 goes on; whether it may, and what time it is.
WITH
-- include migrate/turn
mine AS (SELECT count(*) AS turns FROM turn)
SELECT turns > 0 AS mine, clock_timestamp() AS at FROM mine
