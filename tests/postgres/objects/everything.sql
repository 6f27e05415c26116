CREATE SCHEMA sales; CREATE SCHEMA "We""ird schema";
CREATE EXTENSION citext;
CREATE TYPE sales.state AS ENUM ('new', 'paid', 'it''s');
CREATE TYPE sales.address AS (street text, "No." int, zip varchar(10) COLLATE "C");
CREATE DOMAIN sales.positive AS numeric(10,2) DEFAULT 1 CHECK (VALUE > 0) CONSTRAINT small CHECK (VALUE < 1000000);
CREATE DOMAIN sales.code AS text COLLATE "C" NOT NULL;
CREATE TYPE sales.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE COLLATION sales.german (provider = libc, locale = 'C');
CREATE FUNCTION sales.next_code() RETURNS text LANGUAGE plpgsql AS $f$BEGIN RETURN 'c' || nextval('sales.code_seq'); END$f$;
CREATE SEQUENCE sales.code_seq START 100 INCREMENT 5 CACHE 7;
CREATE SEQUENCE free_seq AS smallint INCREMENT -1 MINVALUE -100 MAXVALUE -1 START -1 CYCLE;
CREATE FUNCTION sales.slug(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$SELECT lower(regexp_replace($1, '\W+', '-', 'g'))$$;
CREATE FUNCTION sales.ok(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 > 0$$;
CREATE TABLE sales.customer (
  id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 10) PRIMARY KEY,
  code text NOT NULL DEFAULT sales.next_code(),
  name text COLLATE sales.german NOT NULL,
  mail citext UNIQUE,
  addr sales.address, addrs sales.address[],
  state sales.state DEFAULT 'new' NOT NULL,
  slug text GENERATED ALWAYS AS (sales.slug(code)) STORED,
  credit sales.positive,
  note text,
  CONSTRAINT "note is ""short""" CHECK (length(note) < 100),
  CONSTRAINT fn CHECK (sales.ok(length(code)))
) WITH (fillfactor = 70, autovacuum_enabled = off);
ALTER TABLE sales.customer ALTER note SET STORAGE EXTERNAL, ALTER name SET STATISTICS 500, ALTER code SET (n_distinct = 5);
ALTER TABLE sales.customer ADD CONSTRAINT late CHECK (code <> '') NOT VALID;
CREATE TABLE sales."order" (
  id serial PRIMARY KEY, customer bigint NOT NULL REFERENCES sales.customer ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  parent int REFERENCES sales."order", placed timestamptz DEFAULT now() NOT NULL, spans sales.span, during tstzrange,
  total numeric(12,2), EXCLUDE USING gist (during WITH &&) WHERE (total > 0));
ALTER TABLE sales.customer ADD last_order int, ADD FOREIGN KEY (last_order) REFERENCES sales."order" NOT VALID;
CREATE INDEX ON sales.customer (lower(name), code DESC NULLS LAST) INCLUDE (state) WHERE state <> 'paid';
CREATE UNIQUE INDEX customer_slug ON sales.customer (sales.slug(name));
CREATE UNIQUE INDEX nnd ON sales.customer (note) NULLS NOT DISTINCT WITH (fillfactor = 50);
CREATE INDEX gin_idx ON sales.customer USING gin (to_tsvector('english', name));
ALTER TABLE sales.customer CLUSTER ON customer_slug;
ALTER TABLE sales."order" REPLICA IDENTITY FULL;
CREATE INDEX expr ON sales."order" ((total * 2)); ALTER INDEX sales.expr ALTER COLUMN 1 SET STATISTICS 50;
CREATE STATISTICS sales.st (dependencies, mcv) ON code, name FROM sales.customer; ALTER STATISTICS sales.st SET STATISTICS 20;
CREATE TABLE events (id bigint, at timestamptz NOT NULL, kind text NOT NULL, data jsonb, PRIMARY KEY (id, at, kind)) PARTITION BY RANGE (at);
CREATE TABLE events_2023 PARTITION OF events FOR VALUES FROM ('2023-01-01') TO ('2024-01-01') PARTITION BY LIST (kind);
CREATE TABLE events_2023_a PARTITION OF events_2023 FOR VALUES IN ('a', 'b');
CREATE TABLE events_2023_x PARTITION OF events_2023 DEFAULT;
CREATE TABLE events_2024 (data jsonb, kind text NOT NULL, at timestamptz NOT NULL, id bigint NOT NULL);
ALTER TABLE events ATTACH PARTITION events_2024 FOR VALUES FROM ('2024-01-01') TO (MAXVALUE);
CREATE INDEX events_kind ON events (kind); ALTER TABLE events ADD CHECK (id > 0);
ALTER TABLE events ADD customer bigint REFERENCES sales.customer;
CREATE TABLE animal (id int PRIMARY KEY, name text DEFAULT 'x' NOT NULL, CHECK (id > 0), CHECK (name <> '') NO INHERIT);
CREATE TABLE dog (breed text, name text DEFAULT 'dog') INHERITS (animal);
CREATE UNLOGGED TABLE scratch (a int, b int, c text COLLATE "C");
CREATE TABLE "We""ird schema"."ta'ble %s" ("co""l ä" int DEFAULT 5, "select" text, " " text);
CREATE TABLE nothing ();
CREATE TABLE cyc_a (id int PRIMARY KEY, b int); CREATE TABLE cyc_b (id int PRIMARY KEY, a int REFERENCES cyc_a);
ALTER TABLE cyc_a ADD FOREIGN KEY (b) REFERENCES cyc_b MATCH FULL ON UPDATE SET NULL;
CREATE FUNCTION sales.of_row(sales.customer) RETURNS text LANGUAGE sql STABLE AS $$SELECT $1.name || '!'$$;
CREATE FUNCTION sales.atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM sales."order"; END;
CREATE PROCEDURE sales.doit(INOUT x int) LANGUAGE plpgsql AS $$BEGIN x := x + 1; END$$;
CREATE AGGREGATE sales.cat(text) (SFUNC = textcat, STYPE = text, INITCOND = '', PARALLEL = SAFE);
CREATE VIEW sales.v AS SELECT c.id, c.name, sales.of_row(c) AS x, count(o.id) AS n FROM sales.customer c LEFT JOIN sales."order" o ON o.customer = c.id GROUP BY c.id;
CREATE VIEW public.v2 WITH (security_barrier) AS SELECT * FROM sales.v WHERE n > 0;
CREATE VIEW public.v3 AS SELECT * FROM scratch WHERE a > 0 WITH LOCAL CHECK OPTION;
ALTER VIEW public.v3 ALTER COLUMN b SET DEFAULT 7;
CREATE MATERIALIZED VIEW sales.m AS SELECT id, name FROM sales.v; CREATE UNIQUE INDEX ON sales.m (id);
CREATE MATERIALIZED VIEW public.m2 AS SELECT count(*) FROM sales.m WITH NO DATA;
CREATE FUNCTION sales.uses_view() RETURNS SETOF sales.v LANGUAGE sql AS $$SELECT * FROM sales.v$$;
CREATE TABLE uses_fn_of_view (a int DEFAULT 1, b bigint DEFAULT sales.atomic());
CREATE FUNCTION sales.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF TG_TABLE_NAME = 'customer' THEN NEW.note := NEW.note || '!'; END IF; RETURN NEW; END$$;
CREATE TRIGGER t1 BEFORE UPDATE OF name, note ON sales.customer FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION sales.touch();
CREATE TRIGGER t2 AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION sales.touch('arg');
CREATE TRIGGER t3 BEFORE INSERT ON sales."order" FOR EACH ROW EXECUTE FUNCTION sales.touch(); ALTER TABLE sales."order" DISABLE TRIGGER t3;
CREATE CONSTRAINT TRIGGER ct AFTER INSERT ON scratch DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sales.touch();
CREATE RULE r AS ON INSERT TO public.v2 DO INSTEAD INSERT INTO scratch VALUES (1, 2);
CREATE RULE r2 AS ON DELETE TO scratch DO ALSO NOTIFY gone;
CREATE POLICY p ON sales.customer AS RESTRICTIVE FOR SELECT TO PUBLIC USING (state <> 'paid'); ALTER TABLE sales.customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY p2 ON scratch FOR INSERT TO PUBLIC WITH CHECK (a > 1);  ALTER TABLE scratch FORCE ROW LEVEL SECURITY;
COMMENT ON SCHEMA sales IS 'it''s sales'; COMMENT ON TABLE sales.customer IS E'who\nbuys'; COMMENT ON COLUMN sales.customer.name IS 'n';
COMMENT ON INDEX sales.customer_slug IS 'i'; COMMENT ON CONSTRAINT fn ON sales.customer IS 'c'; COMMENT ON TYPE sales.state IS 't'; COMMENT ON DOMAIN sales.positive IS 'd';
COMMENT ON CONSTRAINT small ON DOMAIN sales.positive IS 'dc'; COMMENT ON FUNCTION sales.slug(text) IS 'f'; COMMENT ON VIEW sales.v IS 'v'; COMMENT ON COLUMN sales.v.n IS 'vn'; COMMENT ON MATERIALIZED VIEW sales.m IS 'm';
COMMENT ON TRIGGER t1 ON sales.customer IS 'tr'; COMMENT ON RULE r2 ON scratch IS 'ru'; COMMENT ON POLICY p ON sales.customer IS 'po'; COMMENT ON SEQUENCE free_seq IS 's'; COMMENT ON STATISTICS sales.st IS 'st'; COMMENT ON AGGREGATE sales.cat(text) IS 'a'; COMMENT ON PROCEDURE sales.doit(int) IS 'p'; COMMENT ON COLLATION sales.german IS 'c'; COMMENT ON COLUMN sales.address.street IS 'cs'; COMMENT ON CONSTRAINT order_customer_fkey ON sales."order" IS 'fk'; COMMENT ON COLUMN "We""ird schema"."ta'ble %s"."co""l ä" IS 'w';
CREATE TYPE sales.typed AS (a int, b text); CREATE TABLE of_type OF sales.typed (PRIMARY KEY (a), b WITH OPTIONS DEFAULT 'z');
CREATE FUNCTION sales.like_slug(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT sales.slug($1) = sales.slug($2)$$;
CREATE OPERATOR sales.~~~ (FUNCTION = sales.like_slug, LEFTARG = text, RIGHTARG = text, COMMUTATOR = OPERATOR(sales.~~~), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR sales.~~~ (text, text) IS 'o';
CREATE FUNCTION sales.as_int(sales.state) RETURNS int LANGUAGE sql IMMUTABLE AS $$SELECT length($1::text)$$;
CREATE CAST (sales.state AS int) WITH FUNCTION sales.as_int(sales.state) AS ASSIGNMENT; COMMENT ON CAST (sales.state AS int) IS 'ca';
CREATE CAST (sales.address AS text) WITH INOUT;
CREATE TEXT SEARCH DICTIONARY sales.plain (TEMPLATE = simple, STOPWORDS = english, ACCEPT = false); COMMENT ON TEXT SEARCH DICTIONARY sales.plain IS 'td';
CREATE TEXT SEARCH CONFIGURATION sales.search (PARSER = "default"); COMMENT ON TEXT SEARCH CONFIGURATION sales.search IS 'tc';
ALTER TEXT SEARCH CONFIGURATION sales.search ADD MAPPING FOR asciiword, word WITH sales.plain, english_stem;
ALTER TEXT SEARCH CONFIGURATION sales.search ADD MAPPING FOR uint WITH simple;
CREATE INDEX searched ON sales.customer USING gin (to_tsvector('sales.search', name)) WHERE note OPERATOR(sales.~~~) 'x';
