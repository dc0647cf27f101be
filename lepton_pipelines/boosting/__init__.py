"""The histogram engine: XGBoost's trees from integer sums."""
