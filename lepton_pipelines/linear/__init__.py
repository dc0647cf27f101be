"""Federated gradient descent for linear and logistic models."""
