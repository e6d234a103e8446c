"""Plug-ins for posterior_bench, written as somebody would who never saw its source."""
