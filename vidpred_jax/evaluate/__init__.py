"""Evaluation: predicts clips, measures the predictions, writes the results."""
