"""A pruned model that runs without its zeros."""
