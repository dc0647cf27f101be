#!/bin/sh
# Makes a database and an account each for Prefect and MLflow; run by the PostgreSQL image at its first start.
set -eu

psql -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" \
  -v prefect_password="$PREFECT_DATABASE_PASSWORD" -v mlflow_password="$MLFLOW_DATABASE_PASSWORD" <<'END'
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE DATABASE prefect OWNER prefect;
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE mlflow OWNER mlflow;
\connect prefect
-- Prefect's migrations search texts by trigrams; making an extension is the administrator's.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
END
