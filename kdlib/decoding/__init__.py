"""How text is drawn from a language model: sampling, beam search, speculative decoding."""

from kdlib.decoding.beam import beam_search, beam_search_batch
from kdlib.decoding.sampling import generate
from kdlib.decoding.speculative import accept_draft, acceptance, speedup

__all__ = ["accept_draft", "acceptance", "beam_search", "beam_search_batch", "generate", "speedup"]
