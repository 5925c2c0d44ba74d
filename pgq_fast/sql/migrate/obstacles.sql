-- What somebody else hung on the relations $1 (schemas), $2 (names), that would be lost with them: all
-- that is not among the columns $3 (of the relations named), $4 and the triggers $5.
WITH doomed AS (
    SELECT c.oid, c.relname, c.relkind
    FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
    JOIN pg_namespace AS ns ON ns.nspname = coalesce(wanted.schema, current_schema())
    JOIN pg_class AS c ON c.relnamespace = ns.oid AND c.relname = wanted.name
),
declared AS (
    SELECT name, "column" FROM unnest($3::text[], $4::text[]) AS declared (name, "column")
)
SELECT format('column %s.%s', doomed.relname, a.attname) AS obstacle
FROM doomed
JOIN pg_attribute AS a ON a.attrelid = doomed.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE doomed.relkind <> 'v' AND (doomed.relname, a.attname) NOT IN (SELECT name, "column" FROM declared)
UNION ALL
SELECT format('trigger %s on %s', g.tgname, doomed.relname)
FROM doomed
JOIN pg_trigger AS g ON g.tgrelid = doomed.oid AND NOT g.tgisinternal
WHERE g.tgname <> ALL ($5::text[])
UNION ALL
SELECT format('foreign key %s of %s', k.conname, k.conrelid::regclass)
FROM doomed
JOIN pg_constraint AS k ON k.contype = 'f' AND doomed.oid IN (k.conrelid, k.confrelid)
UNION ALL
SELECT DISTINCT format('view %s of %s', r.ev_class::regclass, doomed.relname)
FROM doomed
JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = doomed.oid
    AND d.classid = 'pg_rewrite'::regclass
JOIN pg_rewrite AS r ON r.oid = d.objid
WHERE r.ev_class NOT IN (SELECT oid FROM doomed)
UNION ALL
SELECT format('partitions of %s', relname) FROM doomed WHERE relkind = 'p'
ORDER BY 1
