"""How many tokens a model's positions and its tokenizer take."""

from __future__ import annotations

from typing import Final

from transformers import PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

#: Stands for no limit: more tokens than any text has. Tokenizers without a limit state 1e30.
UNLIMITED: Final = 10**9

# Model types whose positions begin behind the padding's, so that a table of 514 takes 512 tokens.
_BEHIND_PADDING: Final = frozenset(
    (
        *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet"),
        *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    )
)


def position_limit(config: PretrainedConfig) -> int | None:
    """Return the most tokens that a model's positions take; None where there is no limit (T5's are relative)."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    return positions - ((config.pad_token_id or 0) + 1 if config.model_type in _BEHIND_PADDING else 0)


def tokenizer_limit(tokenizer: Tokenizer) -> int | None:
    """Return the length to which a tokenizer says texts should be cut, or None."""
    limit = int(tokenizer.model_max_length)
    return limit if limit < UNLIMITED else None


def length_limit(tokenizer: Tokenizer, config: PretrainedConfig) -> int:
    """Return the most tokens that tokenizer and model allow, special ones included; `UNLIMITED` if neither limits."""
    return min(tokenizer_limit(tokenizer) or UNLIMITED, position_limit(config) or UNLIMITED)
