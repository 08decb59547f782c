"""The tables of the four papers, a row a command: `rows` is what, the rest how.

python -m experiments.tables dmvfn:5 --scale=paper
"""
