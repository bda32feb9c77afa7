"""One small CLIP tokenizer for the text encoders and the CLIP: byte-level BPE, so that any prompt encodes."""

import json
import re
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from embedded_base.captions import BACKGROUNDS, CANONICAL, EFFECTS, PLACES, SETS, SPARE_WORDS, Layout
from embedded_base.contents import name_content

MAX_TOKENS = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def collect_words(slugs: list[str]) -> list[str]:
    """Every word of the caption grammar, of the contents' names, and the spare words; each shall be one token."""
    layouts = [Layout(place, small, ground).words for place in PLACES for small in (True, False) for ground in BACKGROUNDS]
    grammar = [*layouts, CANONICAL.words, *EFFECTS.values(), *SETS.values(), "a an icon of with in as by the"]
    phrases = [*map(name_content, slugs), *grammar, *SPARE_WORDS]
    return sorted(set(re.findall(r"[a-z]+|[0-9]", " ".join(phrases))))


def write_tokenizer(words: list[str], folder: Path) -> CLIPTokenizer:
    """Learn merges that make each word one token and save them in CLIP's format."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=30_000, end_of_word_suffix="</w>", min_frequency=1, show_progress=False)
    learner.train_from_iterator(words, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet] + [left + right for left, right in merges] + [START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{left} {right}" for left, right in merges) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS, pad_token=END)
    tokenizer.save_pretrained(folder)
    return tokenizer
