"""Export of trained networks, and the proof that every runtime answers alike."""
