"""Training loops and steps, and what a step shows to teacher and student."""

from kdlib.training.loop import History, accumulation_step, fit, fit_tokens
from kdlib.training.on_policy import (
    TAIDSchedule,
    all_sequences,
    divergence_by_position,
    on_policy_batch,
    per_token_loss,
    reverse_kl_surrogate,
    table_logits,
    taid_loss,
    token_log_probs,
)
from kdlib.training.step import TeacherCache, distill_step
from kdlib.training.traces import rejection_sample
from kdlib.training.views import draw_mixup, mixup, mixup_step

__all__ = [
    "History",
    "TAIDSchedule",
    "TeacherCache",
    "accumulation_step",
    "all_sequences",
    "distill_step",
    "divergence_by_position",
    "draw_mixup",
    "fit",
    "fit_tokens",
    "mixup",
    "mixup_step",
    "on_policy_batch",
    "per_token_loss",
    "rejection_sample",
    "reverse_kl_surrogate",
    "table_logits",
    "taid_loss",
    "token_log_probs",
]
