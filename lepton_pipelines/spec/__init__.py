"""What a user writes: pipeline, organisation, contract, gates."""
