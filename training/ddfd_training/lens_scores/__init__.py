"""How a model that takes the lens does on many lenses."""
