"""What a model is worth: figures from sums that add up over rows and organisations, and the report that shows them.

Nothing here talks to anyone: rows go in and a vector of integers comes out (`score_histogram`), a total goes in
and figures come out (`result`), figures go in and a page comes out (`report`).
"""
