"""Wrong answers to unit 00, written from the notebook's text."""

import torch
import torch.nn.functional as F

from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _positive(temperature):
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


@wrong("00.softmax_with_temperature", "divides after the softmax", "each row sums to one")
def probabilities_divided(logits, temperature):
    _positive(temperature)
    return torch.softmax(logits, dim=-1) / temperature


@wrong("00.softmax_with_temperature", "dim=1, as in a 2-D example", "any number of dimensions")
def second_dimension(logits, temperature):
    _positive(temperature)
    return torch.softmax(logits / temperature, dim=1)


@wrong("00.softmax_with_temperature", "the formula as it stands", "logits may be in the thousands")
def formula(logits, temperature):
    _positive(temperature)
    e = torch.exp(logits / temperature)
    return e / e.sum(-1, keepdim=True)


@wrong(
    "00.softmax_with_temperature",
    "shifts by the largest logit of the whole tensor",
    "logits may be in the thousands: a row far below another one underflows",
)
def global_shift(logits, temperature):
    _positive(temperature)
    e = torch.exp((logits - logits.max()) / temperature)
    return e / e.sum(-1, keepdim=True)


@wrong("00.softmax_with_temperature", "divides in place", "the caller's logits stay as they are")
def in_place(logits, temperature):
    _positive(temperature)
    logits /= temperature
    return torch.softmax(logits, dim=-1)


@wrong("00.softmax_with_temperature", "takes zero for allowed", "not positive raises a ValueError")
def zero_allowed(logits, temperature):
    if temperature < 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return torch.softmax(logits / temperature, dim=-1)


@wrong("00.softmax_with_temperature", "a message without the number", "says what was given")
def silent_about_the_value(logits, temperature):
    if temperature <= 0:
        raise ValueError("temperature must be positive")
    return torch.softmax(logits / temperature, dim=-1)


@wrong("00.softmax_with_temperature", "assert for raise", "raises a ValueError")
def asserts(logits, temperature):
    assert temperature > 0, f"temperature must be positive, got {temperature}"
    return torch.softmax(logits / temperature, dim=-1)


@wrong("00.softmax_with_temperature", "clamps logits against overflow", "equation 1 at any logits")
def clamped(logits, temperature):
    _positive(temperature)
    return torch.softmax(logits.clamp(-50, 50) / temperature, dim=-1)


@wrong("00.softmax_with_temperature", "thinks that T is at least one", "any positive temperature")
def at_least_one(logits, temperature):
    _positive(temperature)
    return torch.softmax(logits / max(temperature, 1.0), dim=-1)


@wrong("00.accuracy", "forgets to take it out of the tensor", "a Python float")
def a_tensor(logits, targets):
    return (logits.argmax(-1) == targets).float().mean()


@wrong("00.accuracy", "gives percent", "between 0 and 1")
def percent(logits, targets):
    return 100.0 * (logits.argmax(-1) == targets).float().mean().item()


@wrong("00.accuracy", "gives the error rate", "share that is predicted right")
def error_rate(logits, targets):
    return (logits.argmax(-1) != targets).float().mean().item()


@wrong("00.accuracy", "mean over batches of 16, the last one shorter", "share of rows")
def mean_of_batches(logits, targets):
    shares = [
        (z.argmax(-1) == y).double().mean()
        for z, y in zip(logits.split(16), targets.split(16), strict=True)
    ]
    return torch.stack(shares).mean().item()


@wrong("00.accuracy", "averages the classes' accuracies", "share of rows")
def balanced(logits, targets):
    right = (logits.argmax(-1) == targets).double()
    return torch.stack([right[targets == c].mean() for c in targets.unique()]).mean().item()


@wrong("00.accuracy", "argmax of the magnitudes", "the largest logit is the prediction")
def largest_magnitude(logits, targets):
    return (logits.abs().argmax(-1) == targets).double().mean().item()


@wrong("00.accuracy", "rounds for display", "the share of rows")
def rounded(logits, targets):
    return round((logits.argmax(-1) == targets).double().mean().item(), 2)


@wrong("00.accuracy", "counts every entry of the one-hot table", "share of rows predicted right")
def entries_of_the_table(logits, targets):
    said = F.one_hot(logits.argmax(-1), logits.shape[-1])
    return (said == F.one_hot(targets, logits.shape[-1])).double().mean().item()


@wrong("00.accuracy", "right when the true class has a probability over 1/2", "the largest logit")
def over_a_half(logits, targets):
    p = logits.softmax(-1)[torch.arange(len(targets)), targets]
    return (p > 0.5).double().mean().item()


@wrong("00.nll", "sums the rows", "a mean over the rows")
def summed(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum").item()


@wrong("00.nll", "softmax, then log with an epsilon", "certain and wrong is large and exact")
def epsilon(logits, targets):
    p = logits.softmax(-1)[torch.arange(len(targets)), targets]
    return -(p + 1e-12).log().mean().item()


@wrong("00.nll", "cross_entropy of probabilities", "-mean log q(y)")
def softmax_twice(logits, targets):
    return F.cross_entropy(logits.softmax(-1), targets).item()


@wrong("00.nll", "nll_loss of logits", "-mean log q(y)")
def no_softmax(logits, targets):
    return F.nll_loss(logits, targets).item()


@wrong("00.nll", "log2, bits", "in nats")
def bits(logits, targets):
    return F.cross_entropy(logits, targets).item() / torch.tensor(2.0).log().item()


@wrong("00.nll", "inf replaced by zero", "certain and wrong is large")
def infinity_dropped(logits, targets):
    log_q = logits.softmax(-1).log()[torch.arange(len(targets)), targets]
    return -torch.nan_to_num(log_q, neginf=0.0).mean().item()


@wrong("00.nll", "indexes logits[:, targets]", "log q_n(y_n): one entry of each row")
def all_pairs(logits, targets):
    return -F.log_softmax(logits, -1)[:, targets].mean().item()


@wrong("00.nll", "NLL of the predicted class", "of the true class")
def of_the_prediction(logits, targets):
    return -F.log_softmax(logits, -1).amax(-1).mean().item()


@wrong("00.nll", "returns the tensor", "return a Python float")
def nll_tensor(logits, targets):
    return F.cross_entropy(logits, targets)


@wrong("00.fit_temperature", "multiplies by T", "NLL(z / T)")
def multiplied(logits, targets, temperatures):
    losses = torch.stack([F.cross_entropy(logits * T, targets) for T in temperatures])
    return temperatures[losses.argmin()].item()


@wrong("00.fit_temperature", "returns the position", "return the temperature")
def position(logits, targets, temperatures):
    losses = torch.stack([F.cross_entropy(logits / T, targets) for T in temperatures])
    return float(losses.argmin())


@wrong("00.fit_temperature", "returns the NLL", "return the temperature")
def smallest_loss(logits, targets, temperatures):
    return min(F.cross_entropy(logits / T, targets).item() for T in temperatures)


@wrong("00.fit_temperature", "stops as soon as the NLL rises", "the grid is in any order")
def stops_early(logits, targets, temperatures):
    best, found = temperatures[0].item(), F.cross_entropy(logits / temperatures[0], targets)
    for T in temperatures[1:]:
        loss = F.cross_entropy(logits / T, targets)
        if loss > found:
            break
        best, found = T.item(), loss
    return best


@wrong("00.fit_temperature", "sorts for the losses, looks up unsorted", "in any order")
def sorted_only_once(logits, targets, temperatures):
    losses = [F.cross_entropy(logits / T, targets).item() for T in temperatures.sort().values]
    return temperatures[losses.index(min(losses))].item()


@wrong("00.fit_temperature", "skips the first of the grid", "the smallest NLL of the grid")
def first_skipped(logits, targets, temperatures):
    losses = [F.cross_entropy(logits / T, targets).item() for T in temperatures[1:]]
    return temperatures[1:][losses.index(min(losses))].item()


@wrong("00.fit_temperature", "scales the same logits again and again", "each T on the logits given")
def compounding(logits, targets, temperatures):
    scaled, losses = logits, []
    for T in temperatures:
        scaled = scaled / T
        losses.append(F.cross_entropy(scaled, targets).item())
    return temperatures[losses.index(min(losses))].item()


@wrong("00.fit_temperature", "picks by accuracy", "the smallest NLL")
def by_accuracy(logits, targets, temperatures):
    shares = [((logits / T).argmax(-1) == targets).float().mean().item() for T in temperatures]
    return temperatures[shares.index(max(shares))].item()


@wrong("00.fit_temperature", "starts the search at a loss of 10", "the smallest NLL, however large")
def threshold(logits, targets, temperatures):
    best, best_loss = 1.0, 10.0
    for T in temperatures.tolist():
        loss = F.cross_entropy(logits / T, targets).item()
        if loss < best_loss:
            best, best_loss = T, loss
    return best


@wrong("00.fit_temperature", "matches confidence to accuracy", "the smallest NLL")
def by_calibration(logits, targets, temperatures):
    right = (logits.argmax(-1) == targets).double().mean()
    gaps = [((logits / T).softmax(-1).amax(-1).mean() - right).abs().item() for T in temperatures]
    return temperatures[gaps.index(min(gaps))].item()
