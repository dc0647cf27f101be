"""Prefect flows: what runs when. No algorithm in here."""
