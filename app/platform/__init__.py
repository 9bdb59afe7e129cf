"""The patterns. Knows nothing of any feature."""

# First of all: it decides in which files the workers of an instance count, before any room makes a metric.
import app.platform.telemetry  # noqa: F401
