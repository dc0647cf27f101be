"""One organisation's part of a run, put together from data, compute, boosting, evaluation and federation."""
