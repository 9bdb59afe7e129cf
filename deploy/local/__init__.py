"""The native stack: everything that production runs, on loopback, without containers."""
