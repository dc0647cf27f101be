"""The transparency log: what was recorded, by whom, and that nothing was changed since. Formats: docs/ledger.md."""
