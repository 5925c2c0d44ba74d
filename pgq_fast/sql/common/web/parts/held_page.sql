-- A page of `chosen` (id) with the last failure that the log <log> has of each.
--
-- By LATERAL with LIMIT, each row is looked up by its key; a plain join might instead read the other
-- table in the order that is asked for.
SELECT job.id, job.priority, job.entrypoint, job.created, job.execute_after, job.attempts,
    octet_length(job.payload) AS payload_bytes, job.<since> AS updated,
    (SELECT cut FROM cut) AS cut, entry.*
FROM chosen
CROSS JOIN LATERAL (SELECT * FROM <table> AS job WHERE job.id = chosen.id LIMIT 1) AS job
LEFT JOIN LATERAL (
    SELECT left(traceback ->> 'exception_type', 200) AS exception_type,
        left(traceback ->> 'exception_message', 1000) AS exception_message,
        left(traceback ->> 'traceback', 20000) AS traceback
    FROM (
        SELECT traceback
        FROM <log>
        WHERE job_id = job.id
        ORDER BY job_id, created DESC
        LIMIT 20
    ) AS entry
    WHERE traceback IS NOT NULL
    LIMIT 1
) AS entry ON true
ORDER BY job.id DESC
