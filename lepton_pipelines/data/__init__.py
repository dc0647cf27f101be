"""From rows in files to checked, split, encoded arrays."""
