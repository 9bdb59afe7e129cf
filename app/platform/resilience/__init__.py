"""Staying up when what we depend on does not: deadlines, circuit breakers, drain."""
