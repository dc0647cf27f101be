#!/bin/sh
# Start MLflow's tracking server: runs and models in a database, artifacts handed out by the server itself
# (so that nobody else needs the artifact store's keys), no telemetry. Settings come from the environment;
# server.env lists them with their defaults. Health check: GET /health answers 200 and OK.
set -eu

: "${LEPTON_MLFLOW_STORE:=sqlite:///$PWD/var/mlflow/mlflow.db}"
: "${LEPTON_MLFLOW_ARTIFACTS:=$PWD/var/mlflow/artifacts}"
: "${LEPTON_MLFLOW_HOST:=127.0.0.1}"
: "${LEPTON_MLFLOW_PORT:=5000}"
: "${LEPTON_MLFLOW_WORKERS:=2}"

# Its own job runner, for evaluating language models, is not needed here and costs two more processes.
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

case "$LEPTON_MLFLOW_STORE" in
  sqlite:////*) mkdir -p "$(dirname "${LEPTON_MLFLOW_STORE#sqlite:///}")" ;;
esac

set -- --backend-store-uri "$LEPTON_MLFLOW_STORE" --artifacts-destination "$LEPTON_MLFLOW_ARTIFACTS" \
  --host "$LEPTON_MLFLOW_HOST" --port "$LEPTON_MLFLOW_PORT" --workers "$LEPTON_MLFLOW_WORKERS" "$@"

# Names under which the server is reached, where that is not this machine: it refuses others.
if [ -n "${LEPTON_MLFLOW_ALLOWED_HOSTS:-}" ]; then
  set -- "$@" --allowed-hosts "$LEPTON_MLFLOW_ALLOWED_HOSTS"
fi

if [ -n "${LEPTON_MLFLOW_TLS_CERTIFICATE:-}" ]; then
  : "${LEPTON_MLFLOW_TLS_KEY:?name the key of LEPTON_MLFLOW_TLS_CERTIFICATE}"
  set -- "$@" --uvicorn-opts "--ssl-certfile=$LEPTON_MLFLOW_TLS_CERTIFICATE --ssl-keyfile=$LEPTON_MLFLOW_TLS_KEY"
fi

# Accounts: everybody signs in; the first start makes the account `admin` with MLFLOW_AUTH_ADMIN_PASSWORD.
if [ -n "${LEPTON_MLFLOW_ACCOUNTS:-}" ]; then
  : "${MLFLOW_FLASK_SERVER_SECRET_KEY:?set a secret that signs the forms of the account pages}"
  MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
  export MLFLOW_AUTH_CONFIG_PATH
  cat > "$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = ${LEPTON_MLFLOW_PERMISSION:-READ}
database_uri = $LEPTON_MLFLOW_ACCOUNTS
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
END
  set -- "$@" --app-name basic-auth
fi

exec mlflow server "$@"
