"""The data market: what organisations offer, to whom, for what, and what came of it. A view of the ledger."""
