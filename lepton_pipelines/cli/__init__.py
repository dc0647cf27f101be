"""The `lepton` command."""
