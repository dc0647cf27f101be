#!/bin/sh
# Serve a registered model's champion with MLflow's own model server, and change over when the champion changes.
#   serve-model.sh NAME
# Health check: GET /health (or /ping) answers 200. Where the model server may stop for the change-over, this is
# enough; where it may not, run two behind a load balancer that asks /health, with different LEPTON_SERVE_EVERY.
set -eu

: "${MLFLOW_TRACKING_URI:?say where the registry is: the address of the tracking server}"
: "${1:?name the registered model}"

exec python -m lepton_pipelines.registry.serving "$1" \
  --alias "${LEPTON_SERVE_ALIAS:-champion}" --host "${LEPTON_SERVE_HOST:-127.0.0.1}" \
  --port "${LEPTON_SERVE_PORT:-5001}" --every "${LEPTON_SERVE_EVERY:-10}"
