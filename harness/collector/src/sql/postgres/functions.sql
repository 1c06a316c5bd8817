-- The functions that `functions.rs` gives SQLite, for PostgreSQL.

CREATE OR REPLACE AGGREGATE decimal_sum(numeric) (
    sfunc = numeric_add, stype = numeric, initcond = '0',
    combinefunc = numeric_add, parallel = safe
);

-- Of numbers, and of sums of them, which may have more digits than a bigint.
CREATE OR REPLACE AGGREGATE count_sum(numeric) (
    sfunc = numeric_add, stype = numeric, initcond = '0',
    combinefunc = numeric_add, parallel = safe
);

CREATE OR REPLACE FUNCTION decimal_add(a numeric, b numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT trim_scale(a + b) $$;

CREATE OR REPLACE FUNCTION rfc3339(milliseconds bigint) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT to_char(to_timestamp(milliseconds / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || CASE WHEN milliseconds % 1000 = 0 THEN '' ELSE to_char(milliseconds % 1000, 'FM".000"') END
        || 'Z'
$$;

-- The sums of quantities by name, as JSON. No text of PostgreSQL has the character 0.
CREATE OR REPLACE FUNCTION units_add(total text, more text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(jsonb_object_agg(name, trim_scale(quantity)::text), '{}')::text
    FROM (SELECT name, sum(quantity::numeric) AS quantity
          FROM (SELECT * FROM jsonb_each_text(replace(total, '\u0000', '\ufffd')::jsonb) AS of_total (name, quantity)
                UNION ALL
                SELECT * FROM jsonb_each_text(replace(more, '\u0000', '\ufffd')::jsonb) AS of_more (name, quantity)) AS each
          GROUP BY name) AS sums
$$;

CREATE OR REPLACE AGGREGATE units_sum(text) (
    sfunc = units_add, stype = text, initcond = '{}',
    combinefunc = units_add, parallel = safe
);
