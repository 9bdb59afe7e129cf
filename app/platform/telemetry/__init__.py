"""Seeing: the request's context, logs, metrics, health and error reports."""

from app.platform.telemetry import multiprocess

# Before any metric exists: a metric made earlier would count in a file of its own kind.
multiprocess.count_by_slot()
