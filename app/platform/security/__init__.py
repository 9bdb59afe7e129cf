"""Who may: callers, tokens, passwords and the headers that browsers obey."""
