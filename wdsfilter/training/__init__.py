"""Scored pairs -> a judge."""
