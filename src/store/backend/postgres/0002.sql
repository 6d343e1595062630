-- The newest state of each grant that was ever written, sealed: what is restored without it is found
-- to be older.
CREATE TABLE {schema}.marks (
  key text COLLATE "C" PRIMARY KEY,
  bytes bytea NOT NULL
);
COMMENT ON TABLE {schema}.marks IS
  'adsproxy: how far each grant has come; do not restore it with the table entries';

-- Who writes entries, writes marks.
DO $adsproxy$
DECLARE
  role text;
BEGIN
  FOR role IN SELECT DISTINCT grantee FROM information_schema.role_table_grants
    WHERE table_schema = {name} AND table_name = 'entries' AND privilege_type = 'UPDATE'
      AND grantee <> current_user
  LOOP
    EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON ' || quote_ident({name}) || '.marks TO '
      || CASE role WHEN 'PUBLIC' THEN role ELSE quote_ident(role) END;
  END LOOP;
END $adsproxy$;
