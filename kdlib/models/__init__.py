"""Networks: for images, for text, and the teachers that ship with the course."""

from kdlib.models.gpt import GPT, GPTConfig
from kdlib.models.pruning import block_influence, keep_layers
from kdlib.models.teachers import load_teacher, teacher_info
from kdlib.models.vision import CNN, MLP, FashionTeacher, ThinDeep, seeded

__all__ = [
    "CNN",
    "GPT",
    "MLP",
    "FashionTeacher",
    "GPTConfig",
    "ThinDeep",
    "block_influence",
    "keep_layers",
    "load_teacher",
    "seeded",
    "teacher_info",
]
