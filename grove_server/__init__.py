"""Grove Server: a control plane that scales inference systems, not pods."""
