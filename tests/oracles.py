"""The papers' equations in NumPy, float64, written without looking at kdlib."""

import numpy as np


def log_softmax(z, temperature=1.0):
    z = np.asarray(z, dtype=np.float64) / temperature
    top = z.max(axis=-1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(axis=-1, keepdims=True))


def softmax(z, temperature=1.0):
    return np.exp(log_softmax(z, temperature))


def kl(v, z, temperature=1.0):
    p = softmax(v, temperature)
    return (p * (log_softmax(v, temperature) - log_softmax(z, temperature))).sum(axis=-1)


def entropy(z):
    return -(softmax(z) * log_softmax(z)).sum(axis=-1)


def cross_entropy(p, z):
    return -(np.asarray(p) * log_softmax(z)).sum(axis=-1)


def jsd(v, z, beta, temperature=1.0):
    p, q = softmax(v, temperature), softmax(z, temperature)
    m = beta * p + (1 - beta) * q

    def divergence(a):
        return np.where(a > 0, a * (np.log(np.where(a > 0, a, 1)) - np.log(m)), 0).sum(axis=-1)

    return beta * divergence(p) + (1 - beta) * divergence(q)


def total_variation(v, z):
    return 0.5 * np.abs(softmax(v) - softmax(z)).sum(axis=-1)


def kd(z, v, y, temperature, alpha):
    hard = -log_softmax(z)[np.arange(len(y)), y]
    return (alpha * temperature**2 * kl(v, z, temperature) + (1 - alpha) * hard).mean()


def kd_gradient_of_mean(z, v, y, temperature, alpha):
    """Gradient of `kd` with respect to z, from equation 2 and the usual q - onehot."""
    soft = temperature * (softmax(z, temperature) - softmax(v, temperature))
    hard = softmax(z)
    hard[np.arange(len(y)), y] -= 1
    return (alpha * soft + (1 - alpha) * hard) / len(y)
