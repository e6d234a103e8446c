"""Suites into rows: suite files, jobs, executors and the store."""
