"""What every layer may import: numpy and the standard library only."""
