CREATE SEQUENCE {schema}.numbers;

CREATE TABLE {schema}.entries (
  space text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  bytes bytea NOT NULL,
  version bigint NOT NULL,
  expires_at_ms bigint,
  fence bigint,
  lease_owner text,
  lease_until timestamptz,
  changed_by xid8 NOT NULL,
  PRIMARY KEY (space, key)
);
COMMENT ON TABLE {schema}.entries IS 'adsproxy: sealed; useless without the key';
COMMENT ON COLUMN {schema}.entries.changed_by IS
  'the transaction that wrote the row last, leases aside; set by a trigger';
CREATE INDEX entries_changes ON {schema}.entries (space, changed_by);
CREATE INDEX entries_expiry ON {schema}.entries (space, expires_at_ms)
  WHERE expires_at_ms IS NOT NULL;

CREATE TABLE {schema}.deletions (
  space text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  changed_by xid8 NOT NULL,
  deleted_at timestamptz NOT NULL,
  PRIMARY KEY (space, key)
);
COMMENT ON TABLE {schema}.deletions IS 'adsproxy: which entries went within the last hour';
CREATE INDEX deletions_changes ON {schema}.deletions (space, changed_by);
CREATE INDEX deletions_age ON {schema}.deletions (deleted_at);

-- Triggers, and not the program's statements, note what has changed: so does a change by hand.
CREATE FUNCTION {schema}.note_change() RETURNS trigger LANGUAGE plpgsql AS $adsproxy$
BEGIN
  NEW.changed_by := pg_current_xact_id();
  IF TG_OP = 'UPDATE' AND NEW.version = OLD.version AND NEW.bytes <> OLD.bytes THEN
    NEW.version := nextval({numbers});
  END IF;
  RETURN NEW;
END $adsproxy$;
CREATE TRIGGER note_change BEFORE INSERT OR UPDATE OF space, key, bytes, version, expires_at_ms
  ON {schema}.entries FOR EACH ROW EXECUTE FUNCTION {schema}.note_change();

CREATE FUNCTION {schema}.note_deletion() RETURNS trigger LANGUAGE plpgsql AS $adsproxy$
BEGIN
  INSERT INTO {schema}.deletions VALUES (OLD.space, OLD.key, pg_current_xact_id(), now())
  ON CONFLICT (space, key) DO UPDATE
    SET changed_by = excluded.changed_by, deleted_at = excluded.deleted_at;
  RETURN NULL;
END $adsproxy$;
CREATE TRIGGER note_deletion AFTER DELETE OR UPDATE OF space, key
  ON {schema}.entries FOR EACH ROW EXECUTE FUNCTION {schema}.note_deletion();

CREATE TABLE {schema}.owners (
  name text COLLATE "C" PRIMARY KEY,
  alive_until timestamptz NOT NULL
);
-- The audit log. The servers' role needs SELECT and INSERT here, and neither UPDATE nor DELETE.
CREATE TABLE {schema}.audit (
  place bigint GENERATED ALWAYS AS IDENTITY,
  chain text COLLATE "C" NOT NULL,
  number bigint NOT NULL,
  line text COLLATE "C" NOT NULL,
  PRIMARY KEY (chain, number)
);
CREATE INDEX audit_place ON {schema}.audit (place);
COMMENT ON TABLE {schema}.audit IS
  'adsproxy: a line is one JSON object; adsproxy audit verify finds every change';
