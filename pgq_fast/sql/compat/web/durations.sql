-- Run times of jobs that ended within $1, sampled in $2 slots: of each, jobs among the $3 newest
-- entries, at most $4.
WITH
-- include common/web/parts/slots window=$1 slots=$2
-- include common/web/parts/single_durations table={queue_table_log} look=$3 samples=$4
done AS (SELECT * FROM single)
SELECT n, entrypoint, seconds, jobs FROM done
