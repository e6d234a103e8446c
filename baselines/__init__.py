"""Baseline methods, one family a file."""
