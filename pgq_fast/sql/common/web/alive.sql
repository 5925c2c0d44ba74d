-- Whether the queue can be read.
SELECT EXISTS (SELECT FROM {schedules_table}) AS schedules
