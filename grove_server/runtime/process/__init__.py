"""Real child processes of this machine: the process runtime."""
