-- The last <window>, cut into <slots> equal parts, the oldest first.
slot AS MATERIALIZED (
    SELECT n, now() - <window>::interval * ((<slots>::integer - n)::float8 / <slots>::integer) AS since,
        now() - <window>::interval * ((<slots>::integer - n - 1)::float8 / <slots>::integer) AS until
    FROM generate_series(0, <slots>::integer - 1) AS slots (n)
),
