"""The papers' recipes, one file a system: `get_config(variants)` of each.

They come with the package. On the command line `--config=dmvfn.py:demo` names
one of them, as `--config=configs/dmvfn.py:demo` does, unless there is a file of
that name where the command is run.
"""
