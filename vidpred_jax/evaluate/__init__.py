"""Evaluation: clips are predicted and measured, results written and shown."""
