"""Grafana's boards as code: `python -m deploy.grafana` writes `boards/*.json`, which Grafana reads at its start."""
