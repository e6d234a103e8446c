"""Inverse problems, one a file, or a folder where it needs data or a solver of its own."""
