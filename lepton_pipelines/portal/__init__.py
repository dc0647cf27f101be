"""The portal: pages and a REST API over what an organisation knows of ledger, market and runs; and the SDK for it."""
