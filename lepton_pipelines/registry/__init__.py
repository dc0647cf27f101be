"""MLflow: runs, versions, aliases, gates."""
