"""Scores from summed histograms, the report and its plots."""
