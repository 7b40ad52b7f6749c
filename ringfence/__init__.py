"""ringfence watches the boundaries of microsegmented networks."""

__version__ = "0.1.0"
