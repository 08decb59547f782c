"""What an accelerator gives in a few minutes: a file a part."""
