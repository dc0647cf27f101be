"""Dask clusters from the spec, and rows held on their workers."""
