"""The catalogue: pictures that exist already, drawn again in the styles of trained adapters."""
