"""What the service costs, measured side by side with baselines: `python -m bench`. See docs/performance.md."""
