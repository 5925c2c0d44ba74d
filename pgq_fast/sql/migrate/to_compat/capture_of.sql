-- The triggers of <table>. Several statements.
CREATE TRIGGER pgq_capture_insert AFTER INSERT ON <table>
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
CREATE TRIGGER pgq_capture_update AFTER UPDATE ON <table>
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
CREATE TRIGGER pgq_capture_delete AFTER DELETE ON <table>
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
CREATE TRIGGER pgq_capture_truncate AFTER TRUNCATE ON <table>
    FOR EACH STATEMENT EXECUTE FUNCTION {capture_function}();
