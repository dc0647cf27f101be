"""Models, their runs and versions in MLflow: publishing, gates, promotion, serving, scoring in batches."""
