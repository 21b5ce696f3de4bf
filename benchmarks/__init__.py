"""Programs that measure; each writes JSON with the machine it ran on, and a plot."""
