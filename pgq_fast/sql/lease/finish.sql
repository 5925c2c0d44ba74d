-- End the leases $1 of the worker $2, all of whose jobs were successful. Repeating it changes nothing.
WITH
-- include lease/parts/relaxed
-- include lease/parts/ended leases=$1 owner=$2 default=$3 exceptions=$4
result AS (SELECT count(*) AS leases FROM ended)
SELECT leases
-- [relaxed
    , (SELECT setting FROM relaxed)
-- relaxed]
FROM result
