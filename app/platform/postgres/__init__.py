"""Pools, replica choice, consistency tokens, sessions, failover."""
