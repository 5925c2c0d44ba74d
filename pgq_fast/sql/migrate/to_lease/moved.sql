-- How many jobs have been moved and are to be settled.
SELECT count(*) AS jobs FROM {moved_table}
