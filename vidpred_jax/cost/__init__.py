"""What a prediction costs: parameters, multiply-adds, memory, time.

The command `python -m vidpred_jax.cost --config=FILE.py:variants` measures what
a configuration describes and prints JSON.
"""

from vidpred_jax.cost.macs import by_part, count_macs
from vidpred_jax.cost.measure import machine, measure, parameters

__all__ = ['by_part', 'count_macs', 'machine', 'measure', 'parameters']
