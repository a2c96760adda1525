"""Tests, one folder per kind: see "Tests" in docs/architecture.md."""
