"""Any system on video of any length and size: `Predictor`, and the command."""

from vidpred_jax.predict.fields import predict_field
from vidpred_jax.predict.videos import predict_video

__all__ = ['predict_field', 'predict_video']
