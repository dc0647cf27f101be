"""Sums across organisations that show nothing but the total."""
