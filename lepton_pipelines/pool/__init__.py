"""The compute pool: what is offered of Dask clusters, what is reserved, and work without private rows."""
