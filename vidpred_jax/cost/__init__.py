"""The cost of a prediction: parameters, multiply-adds, memory, latency.

The command `python -m vidpred_jax.cost --config=FILE.py:variants` measures the
system of a configuration and prints JSON.
"""

from vidpred_jax.cost.macs import by_part, count_macs
from vidpred_jax.cost.measure import machine, measure, parameters

__all__ = ['by_part', 'count_macs', 'machine', 'measure', 'parameters']
