"""Conversations -> texts: by a tokenizer's chat template, or in plain words where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anglekit.errors import InputError, foreign_failures

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Messages = Sequence[Mapping[str, str]]
"""Messages in order, each with its `role` (system, user, assistant, tool) and `content`."""


def plain_conversation(messages: Messages) -> str:
    """Return messages as "User: ..." and "Assistant: ...", a blank line between."""
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content'].strip()}" for message in messages)


def templated(tokenizer: Tokenizer, messages: Messages, answer: str) -> tuple[str, str]:
    """Return the text that comes before the assistant's answer, and the answer as the tokenizer's template begins it.

    The mark that ends an answer is left out: examples end with the end-of-text token. A tokenizer without a template
    reads the conversation in plain words.

    Raises:
        InputError: the template does not take these messages.
    """
    if not tokenizer.chat_template:
        return f"{plain_conversation(messages)}\n\nAssistant:", answer

    def refusal(reason: str) -> InputError:
        return InputError(f"the tokenizer's chat template refuses a conversation: {reason}", "correct its messages")

    held = [dict(message) for message in messages]
    with foreign_failures(refusal):
        before = str(tokenizer.apply_chat_template(held, tokenize=False, add_generation_prompt=True))
        whole = str(tokenizer.apply_chat_template([*held, {"role": "assistant", "content": answer}], tokenize=False))
    begin = str(tokenizer.bos_token or "")
    rest = whole.removeprefix(before) if whole.startswith(before) else ""
    said = answer if answer in rest else answer.strip()
    lead = rest[: rest.index(said)] if said and said in rest else ""
    # The begin-of-text token is put there again where the text becomes tokens.
    return before.removeprefix(begin), f"{lead}{answer}"
