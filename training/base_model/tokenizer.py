"""The base model's tokenizer: byte-level BPE, one token a digit, and its chat template."""

from __future__ import annotations

import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from registry import prompts
from training.base_model import words
from training.base_model.requests import Request, ideal, sample_request

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 2048
MAX_POSITIONS = 2048

CHAT_TEMPLATE = """{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- (message['content'] or '') + '<|im_end|>' }}
{%- endgeneration %}
{{- '\\n' }}
{%- elif message['content'] is string %}
{{- message['content'] + '<|im_end|>\\n' }}
{%- else %}
{%- for part in message['content'] or [] %}
{{- part['text'] or '' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

_CORPUS_REQUESTS = 4000
_SPLIT = Regex(r"\p{N}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer fitted on requests with their answers and on the English word list."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed), trainer=trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def prompt_text(request: Request) -> str:
    """What the model reads before it answers; the same text as the chat template's."""
    asked = prompts.instruction(
        request.text, target_tool=request.target_tool, language=request.language
    )
    return f"{START}user\n{asked}{END}\n{START}assistant\n"


def pieces(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Vocabulary entries that are letters alone, without their leading space."""
    texts = (str(tokenizer.decode([index])).strip() for index in range(len(tokenizer)))
    return tuple(sorted({text for text in texts if text.isalpha()}))


def _corpus(seed: int) -> list[str]:
    rng = random.Random(f"tokenizer {seed}")
    texts = [f" {word} {word}" for word in words.english_words() if not words.is_held_out(word)]
    for _ in range(_CORPUS_REQUESTS):
        request = sample_request(rng, unseen=False, tangled=True)
        texts += [prompt_text(request), ideal(request)]
    return texts
