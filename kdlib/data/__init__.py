"""Data and tasks; nothing here trains a network."""

from kdlib.data.images import FASHION_CLASSES, Split, digits, fashion_mnist, pool

__all__ = ["FASHION_CLASSES", "Split", "digits", "fashion_mnist", "pool"]
