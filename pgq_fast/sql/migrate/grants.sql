-- Which of the relations $1 (schemas), $2 (names) others than their owner may use.
SELECT c.relname::text AS name
FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
JOIN pg_namespace AS ns ON ns.nspname = coalesce(wanted.schema, current_schema())
JOIN pg_class AS c ON c.relnamespace = ns.oid AND c.relname = wanted.name
CROSS JOIN LATERAL aclexplode(c.relacl) AS grants
WHERE grants.grantee <> c.relowner
GROUP BY c.relname
ORDER BY c.relname
