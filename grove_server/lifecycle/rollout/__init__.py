"""How a new revision reaches running pods, and how much may be missing meanwhile. Pure."""
