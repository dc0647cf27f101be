"""Prefect tasks: thin, one per step."""
