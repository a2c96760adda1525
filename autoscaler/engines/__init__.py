"""Metric dialects: what each engine, router and exporter calls what we want to know. Data."""
